"""docs/contracts.md: its code runs, and its commands print what the page prints."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import rapids.events
from tests.cli.helpers import Command
from tests.docs.pages import DOCS
from tests.printed import Printed

PAGE = (DOCS / "contracts.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.M | re.S)
PYTHON = [text for kind, text in BLOCKS if kind == "python"]
SESSIONS = [text for kind, text in BLOCKS if kind == "console"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the files of the page, whose modules are forgotten after the test."""
    for text in PYTHON:
        if found := re.match(r"# (\S+\.py)\n", text):
            (tmp_path / found[1]).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(rapids.events, "_registry", {})
    yield tmp_path
    for name in [path.stem for path in tmp_path.glob("*.py")]:
        sys.modules.pop(name, None)


def commands() -> list[tuple[str, str]]:
    """Each command of the page with what is printed below it."""
    return [
        (line, printed)
        for session in SESSIONS
        for line, printed in re.findall(r"^\$ (rapids .*)\n((?:(?!\$ ).*\n?)*)", session, re.M)
        if "--url" not in line  # tests/contracts/test_stored_check.py has it
        if "export-test" not in line  # tests/cli/test_exported_test.py has it
    ]


def test_the_code_runs(folder: Path) -> None:
    for text in PYTHON:
        if not text.startswith("# "):
            exec(text, {"__name__": "page"})


@pytest.mark.parametrize(("line", "printed"), commands(), ids=[line for line, _ in commands()])
def test_a_command_prints_this(line: str, printed: str, folder: Path) -> None:
    if "schema" in line:
        Command("")("schema", "snapshot", "shop:router", "-o", "events.json")
        rapids.events._registry.clear()
        sys.modules.pop("shop")
    ran = Command("")(*line.split()[1:], code=1 if "not as required" in printed else 0)
    Printed().check(printed, ran.stdout + ran.stderr)


def test_the_hook_runs_the_command(folder: Path) -> None:
    [text] = [text for kind, text in BLOCKS if kind == "yaml"]
    [hook] = yaml.safe_load(text)["repos"][0]["hooks"]
    assert hook["entry"] in {line for line, _ in commands()}
