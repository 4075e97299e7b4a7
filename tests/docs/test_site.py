"""The site has every page, and links and anchors that lead somewhere; what `make docs` builds loads nothing foreign."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs import site
from tests.docs.pages import DOCS, README
from tests.docs.site import OF_THE_ROOT, Links, problems, public_modules
from tests.house.source import ROOT


def navigation() -> list[str]:
    """The pages in the navigation of `mkdocs.yml`, in its order."""

    def inside(part: Any) -> list[str]:
        if isinstance(part, str):
            return [part]
        return [page for one in (part.values() if isinstance(part, dict) else part) for page in inside(one)]

    return inside(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])


def test_every_page_is_in_the_navigation_once() -> None:
    pages = {page.relative_to(DOCS).as_posix().replace("README.md", "index.md") for page in DOCS.rglob("*.md")}
    reference = {f"api/{module}.md" for module in public_modules()}
    assert sorted(navigation()) == sorted([*pages, *reference, *OF_THE_ROOT.values()])


def test_a_page_links_to_files_that_are_there_and_not_to_readme() -> None:
    wrong = [
        f"{page.relative_to(DOCS)}: {target}"
        for page in DOCS.rglob("*.md")
        for target in re.findall(r"\]\(([^)#\s:]+)(?:#[^)\s]*)?\)", page.read_text())
        if not (found := (page.parent / target).resolve()).exists() or found == README
    ]
    assert wrong == [], "the site has no README; its sections are pages"


PAGE = """
<link rel="stylesheet" href="https://fonts.example.com/inter.css">
<script src="//cdn.example.com/a.js"></script>
<h2 id="here">Here</h2><a href="#here">1</a> <a href="other.html#there">2</a> <a href="https://example.com/">3</a>
<a href="#nowhere">4</a> <a href="gone.html">5</a> <a href="other.html#nowhere">6</a>
"""


def test_what_is_wrong_with_a_site_is_named(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(PAGE)
    (tmp_path / "other.html").write_text('<a name="there"></a>')
    (tmp_path / "main.css").write_text("@font-face {src: url(https://fonts.example.com/x.woff2)} a {b: url(x.png)}")
    assert problems(tmp_path) == [
        "index.html: <link href=https://fonts.example.com/inter.css> is on another host",
        "index.html: <script src=//cdn.example.com/a.js> is on another host",
        "index.html: #nowhere leads nowhere",
        "index.html: gone.html leads nowhere",
        "index.html: other.html#nowhere leads nowhere",
        "main.css: https://fonts.example.com/x.woff2 is on another host",
    ]
    assert Links(tmp_path / "index.html").anchors == {"here"}


@pytest.mark.parametrize(
    ("page", "text", "gathered"),
    [
        ("a.md", "[new](../CHANGELOG.md#unreleased)", "[new](changelog.md#unreleased)"),
        ("decisions/a.md", "[why](README.md) [what](../events.md)", "[why](index.md) [what](../events.md)"),
        ("a.md", "[code](../example_app/events.py)", "code"),
        ("a.md", "[gone](gone.md)", "[gone](gone.md)"),
        ("a.md", "[else](https://example.com/a#b)", "[else](https://example.com/a#b)"),
        ("a.md", "![bars](../benchmarks/results/chart.svg)", "![bars](images/chart.svg)"),
    ],
)
def test_links_of_the_repository_become_links_of_the_site(
    page: str, text: str, gathered: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "GATHERED", tmp_path)
    (tmp_path / "events.md").touch()
    (tmp_path / "decisions").mkdir()
    (tmp_path / "decisions" / "index.md").touch()
    assert site.with_links(text, tmp_path / page) == gathered
