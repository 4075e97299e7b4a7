"""A release is refused until its tag, its changelog and its metadata are complete."""

from __future__ import annotations

from importlib.metadata import version

import pytest

import rapids
from tests.house.source import ROOT
from tests.packaging.release import notes, problems, sections

URLS = {"urls": {"Source": "s", "Documentation": "d", "Changelog": "c"}}
CHANGELOG = """\
# Changelog

## [Unreleased]

## [0.3.0] - 2027-01-31

- It is faster.

## [0.2.0] - 2026-11-30

- It is new.
"""


def test_a_complete_release_may_go_out() -> None:
    assert problems("v0.3.0", "0.3.0", CHANGELOG, URLS) == []
    assert notes(CHANGELOG, "0.3.0") == "- It is faster."


@pytest.mark.parametrize(
    ("tag", "number", "changelog", "project", "said"),
    [
        ("v0.2.0", "0.3.0", CHANGELOG, URLS, "the tag must be 'v0.3.0'"),
        (None, "0.4.0", CHANGELOG, URLS, "no section '## [0.4.0] - YYYY-MM-DD'"),
        (
            None,
            "0.3.0",
            CHANGELOG.replace("- It is faster.", ""),
            URLS,
            "no section '## [0.3.0] - YYYY-MM-DD' with a text",
        ),
        (
            None,
            "0.3.0",
            CHANGELOG.replace("[Unreleased]\n", "[Unreleased]\n\n- More."),
            URLS,
            "1 lines under 'Unreleased'",
        ),
        (None, "0.3.0", CHANGELOG, {"urls": {"Source": "s"}}, "has no Documentation, Changelog"),
        (None, "0.3.0", CHANGELOG, {}, "has no Source, Documentation, Changelog"),
    ],
)
def test_what_is_missing_is_named(tag: str | None, number: str, changelog: str, project: dict, said: str) -> None:
    [problem] = problems(tag, number, changelog, project)
    assert said in problem


def test_the_changelog_can_be_read() -> None:
    assert next(iter(sections((ROOT / "CHANGELOG.md").read_text()))) == "[Unreleased]"


def test_the_version_is_that_of_the_distribution() -> None:
    assert rapids.__version__ == version("rapids-fastapi")
