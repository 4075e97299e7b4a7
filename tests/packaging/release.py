"""Whether a release may go out: `python -m tests.packaging.release TAG`, or without a tag before one is set.

The tag is `v` and the version of the code. The changelog has a section of this version with a date, and nothing is left
under "Unreleased". The metadata names where the project lives.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Mapping
from typing import Any

from rapids import __version__
from tests.house.source import ROOT

__all__ = ["notes", "problems"]

URLS = ("Source", "Documentation", "Changelog")


def sections(changelog: str) -> dict[str, str]:
    """The text of each version, by the title of its section, such as `[0.2.0] - 2026-11-30`."""
    parts = re.split(r"^## (.+)$", changelog, flags=re.MULTILINE)
    return {title.strip(): text.strip() for title, text in zip(parts[1::2], parts[2::2], strict=True)}


def notes(changelog: str, version: str) -> str | None:
    """What the changelog says of a version; None if it has no dated section of it."""
    title = re.compile(rf"\[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d")
    return next((text for one, text in sections(changelog).items() if title.fullmatch(one)), None)


def problems(tag: str | None, version: str, changelog: str, project: Mapping[str, Any]) -> list[str]:
    """What must be done before the release."""
    found: list[str] = []
    if tag is not None and tag != f"v{version}":
        found.append(f"the tag is {tag!r}, and rapids.__version__ is {version!r}: the tag must be 'v{version}'")
    if not notes(changelog, version):
        found.append(f"CHANGELOG.md has no section '## [{version}] - YYYY-MM-DD' with a text")
    if left := sections(changelog).get("[Unreleased]"):
        found.append(f"CHANGELOG.md still has {len(left.splitlines())} lines under 'Unreleased'")
    if missing := [name for name in URLS if name not in project.get("urls", {})]:
        found.append(f"pyproject.toml: [project.urls] has no {', '.join(missing)}")
    return found


if __name__ == "__main__":
    read = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    history = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    if wrong := problems(sys.argv[1] if sys.argv[1:] else None, __version__, history, read):
        sys.exit("\n".join(wrong))
    print(notes(history, __version__))
