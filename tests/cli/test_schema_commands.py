"""`rapids schema snapshot` and `check`: what they print, and their exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import rapids.events
from tests.cli.helpers import Command

SERVICE = """
from typing import Any, ClassVar
from pydantic import model_validator
from rapids import BaseEvent, EventRouter

class CliLettersSent(BaseEvent):
    {version}
    to: {kind}
    {more}

router = EventRouter(group="g")

@router.on(CliLettersSent)
async def handle(event: CliLettersSent) -> None: ...
"""
VERSION = "schema_version: ClassVar[int] = 2"
MIGRATION = """
    @model_validator(mode="before")
    @classmethod
    def migrate(cls, data: Any) -> Any:
        return data
"""
Write = Callable[..., str]


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes the service again, as the next version of it: the target of the commands."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    modules = list[str]()

    def write(kind: str = "str", more: str = "", version: str = "") -> str:
        monkeypatch.setattr(rapids.events, "_registry", {})
        name = f"cli_schema_service_{len(modules)}"
        modules.append(name)
        (tmp_path / f"{name}.py").write_text(SERVICE.format(kind=kind, more=more, version=version))
        return f"{name}:router"

    yield write
    for name in modules:
        sys.modules.pop(name, None)


def test_a_compatible_change_passes_and_another_fails(service: Write) -> None:
    rapids = Command("")
    rapids("schema", "snapshot", service(), "-o", "events.json")

    assert "no change since events.json" in rapids("schema", "check", service()).stderr
    wider = rapids("schema", "check", service("str | None"))
    assert wider.stdout.splitlines()[1].split("  ")[0] == "cli_letters.sent"
    assert "/to" in wider.stdout
    assert "all as required (backward)" in wider.stderr
    narrower = rapids("schema", "check", service("int"), code=1)
    assert "string -> integer" in narrower.stdout
    assert "1 not as required: backward" in narrower.stderr
    rapids("schema", "check", service("str | None"), "--require", "full", code=1)
    rapids("schema", "check", service("str", "cc: str = ''"), "--require", "full")


def test_json_and_annotations_say_the_same(service: Write, tmp_path: Path) -> None:
    rapids = Command("")
    (tmp_path / "events.json").write_text(rapids("schema", "snapshot", service()).stdout)
    target = service("int", "urgent: bool")

    [found] = rapids.json("schema", "check", target, code=1)
    lines = rapids("schema", "check", target, "--format", "github", code=1).stdout.splitlines()

    assert (found["require"], found["ok"]) == ("backward", False)
    [changed] = found["events"]
    assert (changed["event_type"], changed["compatibility"]) == ("cli_letters.sent", "none")
    assert [(one["pointer"], one["compatibility"]) for one in changed["differences"]] == [
        ("/to", "none"),
        ("/urgent", "forward"),
    ]
    where = f"::error file={target.removesuffix(':router')}.py,line=6,title=cli_letters.sent"
    assert lines == [
        f"{where} /to::string -> integer (compatible: none; new: string is no integer; old: integer is no string)",
        f"{where} /urgent::added, required: boolean (compatible: forward; new: it is required, and is not written)",
    ]


def test_a_raised_version_counts_with_a_migration(service: Write) -> None:
    rapids = Command("")
    rapids("schema", "snapshot", service(), "-o", "events.json")

    raised = rapids("schema", "check", service("int", version=VERSION), code=1)
    assert "without a migration" in raised.stdout
    migrated = rapids("schema", "check", service("int", MIGRATION, VERSION))
    assert "the class migrates older data" in migrated.stdout


def test_nothing_to_compare_is_a_wrong_use(service: Write, tmp_path: Path) -> None:
    rapids = Command("")
    target = service()
    assert "make it with rapids schema snapshot" in rapids("schema", "check", target, code=2).stderr
    (tmp_path / "events.json").write_text("{}")
    assert "no snapshot of event schemas" in rapids("schema", "check", target, code=2).stderr
    assert "cannot be imported" in rapids("schema", "check", "none:router", code=2).stderr
    said = rapids("schema", "check", target, "--require", "some", code=2).stderr
    assert [part for part in ("--require", "'backward', 'forward', 'full'", "'some'") if part not in said] == []
    assert json.loads(rapids("schema", "snapshot", target).stdout)["rapids_snapshot"] == 1
