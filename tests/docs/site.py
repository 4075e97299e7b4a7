"""The site: `python -m tests.docs.site` builds it into site/, and fails if a link or an anchor leads nowhere.

Its pages are those of docs/, the changelog and the other pages of the repository's root, and one page of reference for
each public module. They are gathered in .docs/, since a page of the site cannot link to files outside.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import rapids
import rapids.testing
import rapids_fastapi
from tests.docs.pages import DOCS
from tests.house.source import ROOT

__all__ = ["GATHERED", "SITE", "Links", "build", "gather", "problems", "public_modules"]

GATHERED = ROOT / ".docs"
SITE = ROOT / "site"

OF_THE_ROOT = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md"}
"""Pages outside docs/ that the site has, by their name there."""

SHIM = "https://unpkg.com/iframe-worker/shim"

REFERENCE = """\
# `{module}`

::: {module}
"""


def public_modules() -> list[str]:
    """The modules of the Python reference: those whose names users import."""
    modules = [rapids.__name__, rapids_fastapi.__name__, rapids.testing.__name__]
    for found in pkgutil.iter_modules(rapids.__path__, "rapids."):
        if not found.name.rpartition(".")[2].startswith("_") and found.name not in (*modules, "rapids.cli"):
            modules.append(found.name)
    return sorted(name for name in modules if hasattr(importlib.import_module(name), "__all__") or name in modules[:3])


def gather() -> None:
    """Write the pages of the site into .docs/."""
    shutil.rmtree(GATHERED, ignore_errors=True)
    shutil.copytree(DOCS, GATHERED)
    (GATHERED / "decisions" / "README.md").rename(GATHERED / "decisions" / "index.md")
    for name, page in OF_THE_ROOT.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        (GATHERED / page).write_text(re.sub(r"\]\(docs/", "](", text), encoding="utf-8")
    for page in GATHERED.rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        page.write_text(with_links(text, page), encoding="utf-8")
    reference = GATHERED / "api"
    reference.mkdir()
    for module in public_modules():
        (reference / f"{module}.md").write_text(REFERENCE.format(module=module), encoding="utf-8")
    (reference / "rapids.md").write_text(_names_of_the_package(), encoding="utf-8")


def _names_of_the_package() -> str:
    """The page of `rapids`: its names, each with a link to its module; those of inner modules are described here."""
    names, inner = [], []
    for name in rapids.__all__:
        module = rapids._MODULES[name]
        if module in public_modules():
            names.append(f"| [`{name}`]({module}.md#{module}.{name}) | `{module}` |")
        else:
            names.append(f"| [`{name}`](#{name.lower()}) | |")
            inner.append(f"## {name}\n\n::: {module}.{name}")
    head = REFERENCE.format(module="rapids").partition("\n::: ")[0]
    return "\n".join([head, "| name | also in |", "|---|---|", *names, "", *inner]) + "\n"


def with_links(text: str, page: Path) -> str:
    """The text with links as the site needs them. A link to a file that the site does not have becomes plain text."""
    home = "../" * (len(page.relative_to(GATHERED).parts) - 1)

    def replaced(found: re.Match[str]) -> str:
        mark, label, target, anchor = found[1], found[2], found[3], found[4] or ""
        target = target.replace("decisions/README.md", "decisions/index.md")
        if page.parent.name == "decisions" and target == "README.md":
            target = "index.md"
        name = target.removeprefix("../" * target.count("../"))
        if name in OF_THE_ROOT:
            return f"[{label}]({home}{OF_THE_ROOT[name]}{anchor})"
        if "://" in target or _is_inside(GATHERED, page.parent / target):
            return f"{mark}[{label}]({target}{anchor})"
        if (ROOT / name).exists() and name.endswith(".svg"):
            images = GATHERED / "images"
            images.mkdir(exist_ok=True)
            shutil.copyfile(ROOT / name, images / Path(name).name)
            return f"![{label}]({home}images/{Path(name).name})"
        return label if (ROOT / name).exists() else found[0]

    return re.sub(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)", replaced, text)


def _is_inside(folder: Path, file: Path) -> bool:
    return file.exists() and file.resolve().is_relative_to(folder.resolve())


class Links(HTMLParser):
    """What a page refers to, and the places in it that others can refer to."""

    LOADS = {"src", "srcset", "poster", "data"}

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.foreign: list[str] = []
        """What a browser would load from another host."""
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            loads = name in self.LOADS or (name == "href" and tag in ("link", "use"))
            if name in ("id", "name"):
                self.anchors.add(value or "")
            elif loads and re.match(r"(https?:)?//", value or ""):
                self.foreign.append(f"<{tag} {name}={value}>")
            elif loads or name == "href":
                self.links.append(value or "")


def problems(site: Path = SITE) -> list[str]:
    """Links and anchors that lead nowhere, and what a browser would load from another host."""
    pages = {path: Links(path) for path in site.rglob("*.html")}
    found: list[str] = []
    for path, page in pages.items():
        found += [f"{path.relative_to(site)}: {one} is on another host" for one in page.foreign]
        for link in page.links:
            where, _, anchor = unquote(link).partition("#")
            target = path if not where else (path.parent / where.partition("?")[0]).resolve()
            if re.match(r"[a-z]+:", link) or path.name == "404.html":
                continue
            if not _is_inside(site, target) or (anchor and target in pages and anchor not in pages[target].anchors):
                found.append(f"{path.relative_to(site)}: {link} leads nowhere")
    for path in site.rglob("*.css"):
        urls = re.findall(r"(?:url\(|@import)\s*['\"]?((?:https?:)?//[^'\")]+)", path.read_text(encoding="utf-8"))
        found += [f"{path.relative_to(site)}: {url} is on another host" for url in urls]
    return found


def _with_own_shim() -> None:
    """Let pages load the shim that the theme takes from another host, for a search in files, from assets/."""
    for page in SITE.rglob("*.html"):
        home = "../" * (len(page.relative_to(SITE).parts) - 1)
        text = page.read_text(encoding="utf-8")
        page.write_text(text.replace(SHIM, f"{home}assets/iframe-worker.js"), encoding="utf-8")


def build() -> None:
    """Build the site. Exits with what is wrong."""
    gather()
    shutil.rmtree(SITE, ignore_errors=True)
    zensical = Path(sys.executable).with_name("zensical")
    done = subprocess.run([zensical, "build", "--clean", "--strict"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        shutil.rmtree(SITE, ignore_errors=True)  # it is not whole
        said = re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr).partition("Traceback")[0]
        sys.exit(f"{said}\nzensical refused a page: `docs/` has a link or an anchor that leads nowhere")
    _with_own_shim()
    if found := problems():
        sys.exit("\n".join(dict.fromkeys(found)))
    print(f"{len(list(SITE.rglob('*.html')))} pages in {SITE.relative_to(ROOT)}/; begin with site/index.html")


if __name__ == "__main__":
    build()
