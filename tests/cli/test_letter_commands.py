"""`rapids dlq`: what failed is shown, replayed, discarded, restored and exported."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest
from rich.cells import cell_len
from rich.console import Console
from typer.testing import CliRunner

from rapids import Attempt, BaseEvent, DeadLetter, DeadLetterQueue
from rapids._core.attempt_log import AttemptLog
from rapids.audit import AuditLog
from rapids.cli import bulk_change, display
from rapids.cli.shown_letters import detail_of
from rapids.redaction import MASK, Redactor
from tests.cli.helpers import Command
from tests.dead_letters.helpers import write_through_script
from tests.support import eventually
from tests.worker.helpers import DLQ, STREAM

HOSTILE = "no\x1b]0;owned\x07 [bold]markup[/] \u202e\nfor hunter2-secret"
METADATA = {b"metadata": b'{"password": "hunter2-secret"}'}


async def seed(redis: Any) -> list[str]:
    """Three letters with a hostile error that quotes a secret, and two others; the ids of the first."""
    first = await write_through_script(redis, 3, handler="pay", error=HOSTILE, fields=METADATA)
    await write_through_script(redis, 2, handler="ship", error="no courier", error_type="shop.CourierError")
    return first


def audit(rapids: Command) -> list[tuple[str, str, str]]:
    log = rapids.redis(lambda redis: AuditLog(redis, DLQ).list())
    return [(one.action, one.actor.partition(":")[0], one.reason) for one in log.items[::-1]]


def states(rapids: Command, ids: list[str]) -> list[str]:
    async def look(redis: Any) -> list[str]:
        return [(await DeadLetterQueue(redis, DLQ).get(one)).state for one in ids]

    return rapids.redis(look)


def test_letters_are_shown_without_secrets_and_without_control(rapids: Command) -> None:
    ids = rapids.redis(seed)

    causes = rapids.json("dlq", "causes", "--dlq", DLQ)
    listed = rapids.json("dlq", "list", "--stream", STREAM, "--fingerprint", causes[0]["fingerprint"])
    [one] = rapids.json("dlq", "show", ids[0], "-s", STREAM)
    tables = [
        rapids("dlq", "causes", "-s", STREAM).stdout,
        rapids("dlq", "list", "-s", STREAM).stdout,
        rapids("dlq", "show", ids[0], "-s", STREAM).stdout,
    ]

    assert [(cause["handler"], cause["count"]) for cause in causes] == [("pay", 3), ("ship", 2)]
    assert [letter["id"] for letter in listed] == ids[::-1]
    assert one["metadata"]["value"] == {"password": "[redacted]"}
    assert one["error"].endswith("for [redacted]")
    assert (one["state"], one["history"], one["parse_check"]) == ("dead", [], None)
    assert "CourierError" in tables[0]
    for table in tables[1:]:
        assert r"no\x1b]0;owned\x07 [bold]markup[/] \u202e" in table
    for text in (*tables, json.dumps([listed, one])):
        assert "hunter2" not in text
    assert len(tables[1].splitlines()) == 6, "a header, and a line for each letter"


def test_a_page_says_that_there_is_more_and_an_empty_queue_where_others_are(rapids: Command) -> None:
    rapids.redis(seed)

    assert len(rapids.json("dlq", "list", "-s", STREAM, "--limit", "2")) == 2
    assert "shown are the 2 newest; more: --limit 4" in rapids("dlq", "list", "-s", STREAM, "-n", "2").stderr
    assert rapids.json("dlq", "list", "-s", STREAM, "--since", "2h", "--type", "nothing.*") == []
    assert f"other dead-letter streams of this server: {DLQ}" in rapids("dlq", "causes").stderr
    assert "there is no dead letter '1-1'" in rapids("dlq", "show", "1-1", "-s", STREAM, code=2).stderr
    assert "--since must be an age" in rapids("dlq", "list", "--since", "yesterday", code=2).stderr
    assert "fingerprint must be" in rapids("dlq", "list", "--fingerprint", "x", code=2).stderr


def test_letters_are_replayed_discarded_and_restored_by_somebody_who_was_asked(rapids: Command, somebody: None) -> None:
    ids = rapids.redis(seed)
    pay = ("-s", STREAM, "--handler", "pay")

    previewed = rapids("dlq", "replay", *pay, "--dry-run")
    assert f"replay: 3 letters of {DLQ}" in previewed.stderr
    assert rapids("dlq", "discard", *pay, answer="n\n", code=2).stderr.count("hunter2") == 0
    assert states(rapids, ids) == ["dead"] * 3

    assert "completed: 3 discarded" in rapids("dlq", "discard", *pay, "--reason", "old", answer="y\n").stderr
    assert states(rapids, ids) == ["discarded"] * 3
    [restored] = rapids.json("dlq", "restore", *ids[:2], "-s", STREAM, "--yes")
    assert (restored["state"], restored["done"], restored["selector"]) == ("completed", 2, {"ids": ids[:2]})
    [replayed] = rapids.json("dlq", "replay", ids[0], "-s", STREAM, "-y", "--scope", "group")
    assert (replayed["done"], replayed["scope"]) == (1, "group")
    assert states(rapids, ids) == ["replayed", "dead", "discarded"]
    shown = rapids("dlq", "show", ids[0], "-s", STREAM).stdout
    assert "undelivered" in shown or "unknown" in shown, "what became of the replay"

    assert {one for one in audit(rapids) if one[0].endswith("started")} == {
        ("operation_started", "cli", "old"),
        ("operation_started", "cli", ""),
    }


def test_what_is_not_meant_is_refused(rapids: Command) -> None:
    ids = rapids.redis(seed)

    assert "say which letters" in rapids("dlq", "replay", "-s", STREAM, code=2).stderr
    assert "say which letters" in rapids("dlq", "replay", ids[0], "--all", "-s", STREAM, code=2).stderr
    assert "give --yes" in rapids("dlq", "replay", "--all", "-s", STREAM, code=2).stderr
    assert "ids must be ids" in rapids("dlq", "replay", "abc", "-s", STREAM, code=2).stderr
    assert "none of these letters" in rapids("dlq", "replay", "1-1", "-s", STREAM, "-y", code=2).stderr
    assert states(rapids, ids) == ["dead"] * 3
    rapids("dlq", "discard", ids[0], "1-1", "-s", STREAM, "-y", code=1)
    assert states(rapids, ids) == ["discarded", "dead", "dead"]


def test_a_letter_is_shown_with_its_attempts_and_without_what_cannot_be_hidden(rapids: Command) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    attempts = AttemptLog.of(
        Attempt(1, 1, at, "worker-1", "shop.Declined", "no hunter2-secret"), Attempt(2, 1, None, "worker-2", "E", "")
    )

    async def seed_odd(redis: Any) -> list[str]:
        tried = await write_through_script(redis, fields=METADATA, attempts=attempts)
        raw = await write_through_script(redis, fields={b"data": b"\xff\xfe"})
        large = await write_through_script(redis, fields={b"data": b'"%s"' % (b"x" * 2**20)})
        return [*tried, *raw, *large]

    tried, raw, large = (rapids("dlq", "show", one, "-s", STREAM).stdout for one in rapids.redis(seed_odd))

    table = tried.partition("\nattempts\n")[2].splitlines()
    assert table[0].split() == ["AT", "CONSUMER", "DELIVERY", "ATTEMPT", "ERROR"]
    assert table[1].split(maxsplit=5) == ["2026-01-02", "03:04:05Z", "worker-1", "1", "1", "Declined: no [redacted]"]
    assert table[2].split() == ["-", "worker-2", "2", "1", "E:"]
    assert "  not shown (2 bytes): it is not JSON, so what to hide is not known" in raw
    assert "  not shown (1,048,578 bytes): larger than 1 MiB" in large


def test_a_large_change_is_previewed_and_an_empty_one_changes_nothing(
    rapids: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    rapids.redis(lambda redis: write_through_script(redis, 30))

    def nameless() -> str:
        raise OSError("no name for this user")

    monkeypatch.setattr("getpass.getuser", nameless)

    assert "discard: 30 letters" in (previewed := rapids("dlq", "discard", "--all", "-s", STREAM, "--dry-run")).stderr
    assert "shown are " in previewed.stderr
    nothing = rapids("dlq", "discard", "--handler", "nobody", "-s", STREAM, "--yes", "--json")
    assert nothing.stderr.endswith("nothing to change\n")
    assert json.loads(nothing.stdout) == {"kind": "discard", "dlq": DLQ, "total": 0, "total_exact": True}
    rapids("dlq", "discard", "--all", "-s", STREAM, "--yes")
    log = rapids.redis(lambda redis: AuditLog(redis, DLQ).list())
    assert {one.actor for one in log.items} == {"cli:unknown"}


def test_causes_say_what_they_leave_out(rapids: Command) -> None:
    async def seed_trimmed(redis: Any) -> None:
        await write_through_script(redis, 200, handler="ship")
        await write_through_script(redis, 200, handler="pay", maxlen=300)

    rapids.redis(seed_trimmed)

    shown = rapids("dlq", "causes", "-s", STREAM, "--limit", "1").stderr

    assert "letters were trimmed before anybody handled them, last " in shown
    assert "there are 2 causes: --limit 2" in shown


@pytest.mark.parametrize(
    ("typed", "decided"),
    [("c\n", "cancel"), ("Detach\n", "detach"), ("\n", "continue"), ("stop\nc\n", "cancel"), ("", "detach")],
)
def test_after_ctrl_c_the_answer_decides(monkeypatch: pytest.MonkeyPatch, typed: str, decided: str) -> None:
    monkeypatch.setattr(bulk_change, "is_interactive", lambda: True)

    with CliRunner().isolation(typed) as (_, stderr, _):
        answer = bulk_change.decision()
        asked = stderr.getvalue().decode()

    assert answer == decided
    assert "The letters that were moved stay moved. Cancel the operation, detach and leave the rest" in asked
    assert "c(ancel), d(etach) or continue (Enter)" in asked
    assert ("c, d or Enter" in asked) == typed.startswith("stop")


def test_without_anybody_to_ask_ctrl_c_leaves_the_operation_to_others() -> None:
    with CliRunner().isolation("c\n") as (_, _, printed):
        assert bulk_change.decision() == "detach"
        assert printed.getvalue() == b"", "nobody is asked"


@pytest.mark.parametrize(("decided", "state"), [("cancel", "cancelled"), ("detach", "running")])
def test_ctrl_c_asks_what_to_do(rapids: Command, monkeypatch: pytest.MonkeyPatch, decided: str, state: str) -> None:
    ids = rapids.redis(seed)
    decisions = iter(["continue", decided])
    monkeypatch.setattr(bulk_change, "decision", lambda: next(decisions))
    run_until_ended = bulk_change.Interruption.wait

    async def interrupted(self: bulk_change.Interruption) -> None:
        await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGINT)
        await run_until_ended(self)

    monkeypatch.setattr(bulk_change.Interruption, "wait", interrupted)

    [left] = rapids.json("dlq", "discard", "--all", "-s", STREAM, "-y", "--rate", "0.001", code=130)

    assert left["state"] == state
    assert left["done"] < 5
    assert set(states(rapids, ids)) <= {"dead", "discarded"}
    if state == "running":  # and another process continues it at once

        async def taken_over(redis: Any) -> bool:
            operations = DeadLetterQueue(redis, DLQ).operations
            stop = asyncio.Event()
            other = asyncio.create_task(operations.run(stop))
            await eventually(lambda: _has_owner(operations, left["id"]))
            stop.set()
            await other
            return True

        assert rapids.redis(taken_over)
        monkeypatch.undo()
        refused = rapids("dlq", "discard", "--all", "-s", STREAM, "-y", code=2)
        assert left["id"] in refused.stderr
        [ended] = rapids.json("dlq", "continue", left["id"], "-s", STREAM, "-y", "--cancel")
        assert ended["state"] == "cancelled"
        again = rapids("dlq", "continue", left["id"], "-s", STREAM, "-y", code=2)
        assert "cancelled" in again.stderr


async def _has_owner(operations: Any, operation_id: str) -> bool:
    return bool((await operations.get(operation_id)).owner)


def test_letters_are_exported_and_the_audit_says_so(rapids: Command, tmp_path: Path) -> None:
    ids = rapids.redis(seed)
    file = tmp_path / "letters.ndjson"

    rapids("dlq", "export", "-s", STREAM, "--handler", "pay", "--output", str(file))
    few = rapids("dlq", "export", "-s", STREAM, "--max-items", "1")

    assert [json.loads(line)["id"] for line in file.read_text().splitlines()] == ids[::-1]
    assert "hunter2" not in file.read_text()
    assert len(few.stdout.splitlines()) == 1
    assert "there are more" in few.stderr
    assert "cannot be written" in rapids("dlq", "export", "-s", STREAM, "-o", str(file), code=2).stderr
    assert [one[:2] for one in audit(rapids)] == [("export_started", "cli"), ("export_ended", "cli")] * 2


def test_an_export_keeps_no_secret_that_was_searched_for(rapids: Command) -> None:
    rapids.redis(seed)

    rapids("dlq", "export", "-s", STREAM, "-q", "hunter2-secret", "--handler", "pay")
    ended = rapids("dlq", "discard", "-s", STREAM, "-q", "hunter2-secret", "--yes", "--json")

    log = rapids.redis(lambda redis: AuditLog(redis, DLQ).list())
    assert any(one.details.get("filter") == f'{{"handler": "pay", "q": "{MASK}"}}' for one in log.items)
    assert "hunter2" not in str([one for one in log.items if one.action.startswith("export")])
    assert json.loads(ended.stdout)["selector"] == {"filter": {"q": MASK}}


def test_an_age_before_the_first_year_is_refused_in_a_line(rapids: Command) -> None:
    assert "--since must be an age" in rapids("dlq", "list", "-s", STREAM, "--since", "999999d", code=2).stderr


def test_ctrl_c_ends_a_command_without_a_line(rapids: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(DeadLetterQueue, "causes", interrupted)

    assert rapids("dlq", "causes", "-s", STREAM, code=130).output == ""


def test_a_row_has_two_lines_on_a_terminal_that_is_narrow(rapids: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {b"event_type": "注文.確定".encode()}
    ids = rapids.redis(lambda redis: write_through_script(redis, handler="請求🚚", error="x" * 500, fields=fields))

    def shown(width: int) -> list[str]:
        def terminal(*, is_error: bool = False) -> Console:
            file = sys.stderr if is_error else sys.stdout
            return Console(file=file, width=width, force_terminal=True, color_system=None)

        monkeypatch.setattr(display, "terminal", terminal)
        return rapids("dlq", "list", "-s", STREAM).stdout.splitlines()

    [header, wide] = shown(120)
    [names, more_names, first, second] = shown(60)

    assert header.split() == ["ID", "FAILED", "EVENT", "TYPE", "GROUP", "HANDLER", "ERROR"]
    assert (cell_len(wide), wide[-2:]) == (120, "x…")
    assert cell_len(wide[: wide.index("請求")]) == header.index("HANDLER"), "wide characters take two columns"
    assert (names.split(), more_names.split()) == (["ID", "FAILED", "ERROR"], ["EVENT", "TYPE", "GROUP", "HANDLER"])
    assert first.startswith(ids[0])
    assert cell_len(first) == 60
    assert second.split() == ["注文.確定", "dv-group", "請求🚚"]


class CliTallied(BaseEvent):
    event_type: ClassVar[str] = "cli_tallied"
    tally: dict[str, int] = {}


def test_a_pointer_quotes_no_hidden_value_that_has_a_slash() -> None:
    secret = "Zq7/mK~2pXw"
    fields = {"event_type": "cli_tallied", "data": json.dumps({"password": secret, "tally": {secret: "x", "k": "y"}})}
    more = {"schema_version": "1", "id": "1", "timestamp": "2026-01-01T00:00:00+00:00", "metadata": "{}"}
    more |= {"correlation_id": "", "causation_id": ""}
    stored = [part.encode() for pair in {**fields, **more}.items() for part in pair]
    shown = detail_of(DeadLetter.read("1-1", stored), "q", Redactor.of([]), check=True)
    assert shown.parse_check is not None
    assert [one.pointer for one in shown.parse_check.problems] == [f"/tally/{MASK}", "/tally/k"]
