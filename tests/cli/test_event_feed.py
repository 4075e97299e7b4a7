"""`rapids tail` and `rapids trace`."""

from __future__ import annotations

import io
import json
import re
import sys
import time
from typing import Any

import pytest
from rich.console import Console

from rapids import BaseEvent, DeadLetterQueue, EventEmitter, EventRouter
from rapids._core.attempt_log import Attempt, AttemptLog
from rapids._core.outcomes import Ledger
from rapids._storage.keys import Source
from rapids.cli import event_feed
from rapids.inspection import Inspector
from tests.cli.helpers import Command
from tests.dead_letters.helpers import letter_fields, write_flat
from tests.inspection.helpers import deliver, park, wait
from tests.support import eventually

STREAM = "cli:{feed}"
DLQ = f"{STREAM}:dlq"


class CliPartOrdered(BaseEvent):
    note: str
    api_key: str = "hunter2-secret"


class CliPartShipped(BaseEvent):
    note: str


async def seed(redis: Any) -> list[str]:
    """An event, the event that it caused, and another one, of which a group has read the first; the first one's id."""
    emitter = EventEmitter(redis, STREAM)
    first = CliPartOrdered(note="\x1b[31mred [bold]x[/]", correlation_id="request-1")
    await emitter.emit(first)
    await emitter.emit(CliPartShipped(note="second"), caused_by=first)
    await emitter.emit(CliPartShipped(note="third", correlation_id="request-2"))
    await redis.xgroup_create(STREAM, "billing", id="0")
    await redis.xreadgroup("billing", "worker-1", {STREAM: ">"}, count=1)
    return [first.id]


def test_a_stream_is_followed_without_taking_part(rapids: Command) -> None:
    rapids.redis(seed)
    tail = ("tail", "-s", STREAM, "--no-follow")

    [first, *rest] = rapids.json(*tail)
    shown = rapids(*tail).stdout

    assert first["payload"]["value"] == {"note": "\x1b[31mred [bold]x[/]", "api_key": "[redacted]"}
    assert (first["event_type"], first["correlation_id"]) == ("cli_part.ordered", "request-1")
    assert [one["payload"]["value"]["note"] for one in rest] == ["second", "third"]
    assert "hunter2" not in shown
    assert len(shown.splitlines()) == 3
    assert [one["payload"]["value"]["note"] for one in rapids.json(*tail, "-n", "1")] == ["third"]
    assert len(rapids.json(*tail, "--type", "*.shipped")) == 2
    assert [one["payload"]["value"]["note"] for one in rapids.json(*tail, "--group", "billing")] == ["second", "third"]
    group = rapids.redis(lambda redis: Inspector(redis).group(STREAM, "billing"))
    assert (group.lag, group.held) == (2, 1), "nothing was read for the group"


async def test_new_entries_are_followed(redis: Any) -> None:
    followed = Inspector(redis).follow(STREAM, newest=5, interval=0.01)
    await redis.xadd(STREAM, {"event_type": "x.old", "data": b"\xff"})
    first = await anext(followed)
    await redis.xadd(STREAM, {"event_type": "x.new", "event_type2": "y"})

    second = await eventually(lambda: anext(followed))

    assert (first.event_type, first.data, first.event_id) == ("x.old", b"\xff", "")
    assert second.event_type == "x.new"
    await followed.aclose()


def test_a_correlation_is_shown_as_a_tree(rapids: Command) -> None:
    [event_id] = rapids.redis(seed)

    [tree] = rapids.json("trace", "request-1")
    shown = rapids("trace", "request-1", "--stream", STREAM).stdout

    first, second = tree["events"]
    assert (first["event_id"], first["children"], second["parent"]) == (event_id, [1], 0)
    assert [(one["group"], one["state"]) for one in first["deliveries"]] == [("billing", "held")]
    assert first["payload"]["value"]["api_key"] == "[redacted]"
    lines = shown.splitlines()
    assert "cli_part.ordered" in lines[1]
    assert "billing: held by worker-1 (gone)" in lines[2]
    assert "cli_part.shipped" in lines[3]
    assert "billing: undelivered" in lines[4]
    assert "nothing with the correlation id x" in rapids("trace", "x").stderr


@pytest.mark.parametrize("width", [30, 80])
def test_a_long_chain_of_causes_is_shown_to_its_end(
    rapids: Command, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    events = [CliPartShipped(id="part-0", note="0", correlation_id="request-1")]
    for number in range(1, 300):
        cause = f"part-{number - 1}"
        event = {"id": f"part-{number}", "note": str(number), "correlation_id": "request-1", "causation_id": cause}
        events.append(CliPartShipped.model_validate(event))
    ids = rapids.redis(lambda redis: EventEmitter(redis, STREAM).emit(events))
    screen = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    monkeypatch.setattr(event_feed, "terminal", lambda: screen)

    rapids("trace", "request-1")

    assert isinstance(screen.file, io.StringIO)
    shown = "".join(re.sub(r"^[ │├└─]+", " ", line) for line in screen.file.getvalue().splitlines())
    assert shown.count("cli_part.shipped") == 300
    assert f"caused by {ids[298]}" in re.sub(r" +", " ", shown)


router = EventRouter(stream=STREAM, group="billing")


@router.on(CliPartOrdered)
async def order(event: CliPartOrdered) -> None: ...


def test_a_tree_says_what_an_acknowledgement_means_as_far_as_it_is_known(rapids: Command) -> None:
    async def acknowledge(redis: Any) -> None:
        for _, entries in await redis.xreadgroup("billing", "worker-1", {STREAM: ">"}):
            await redis.xack(STREAM, "billing", *(entry_id for entry_id, _ in entries))

    rapids.redis(seed)
    rapids.redis(lambda redis: redis.xgroup_setid(STREAM, "billing", "0"))
    rapids.redis(acknowledge)

    unknown = rapids("trace", "request-1").stdout
    known = rapids("trace", "request-1", "--app", "tests.cli.test_event_feed:router").stdout

    assert unknown.count("billing: acknowledged") == 2
    assert ("billing: handled" in known, "billing: no handler for it" in known) == (True, True)


async def seed_failures(redis: Any) -> str:
    """Of three events with one correlation id, one waits, one is parked and one is a letter that was replayed. Their
    errors quote a secret. Returns the id of the letter."""
    billing = Source(STREAM, "billing")
    await EventEmitter(redis, STREAM).emit(
        [CliPartOrdered(note=str(number), correlation_id="request-1") for number in range(3)]
    )
    waiting, parked, dead = await deliver(redis, 3, source=billing)
    await wait(redis, waiting, int(time.time() * 1000) + 7_200_000, ["pay"], source=billing)
    attempts = AttemptLog.of(Attempt(1, 1, None, "worker-1", "shop.Declined", "no hunter2-secret"))
    await redis.hset(billing.ledger, waiting, Ledger(recorded=1, attempts=(("pay", attempts),)).dump())
    await park(redis, parked, b'[{"handler":"ship","reason":"rejected","error":"no hunter2-secret"}]', source=billing)
    [(_, fields)] = await redis.xrange(STREAM, dead, dead)
    parts = letter_fields(group="billing", error="no hunter2-secret", entry_id=dead, fields=fields)
    parts[parts.index(b"dv:events")] = STREAM.encode()
    [letter_id] = await write_flat(redis, DLQ, [parts])
    await redis.xack(STREAM, "billing", dead)
    await DeadLetterQueue(redis, DLQ).replay(letter_id)
    return letter_id


def test_what_failed_is_in_the_tree_without_secrets(rapids: Command) -> None:
    letter_id = rapids.redis(seed_failures)

    [tree] = rapids.json("trace", "request-1")
    shown = rapids("trace", "request-1").stdout
    near = rapids("trace", "request-1", "--window", "1")

    waiting, parked, dead = (event["deliveries"][0] for event in tree["events"])
    assert (waiting["state"], parked["state"], dead["letters"]) == ("waiting", "parked", [letter_id])
    assert waiting["pending"]["attempts"][0]["attempts"][0]["error"] == "no [redacted]"
    assert parked["pending"]["failures"][0]["error"] == "no [redacted]"
    assert (tree["letters"][0]["id"], tree["letters"][0]["error"]) == (letter_id, "no [redacted]")
    assert [one["letter_id"] for one in tree["replays"]] == [letter_id]
    assert "billing: waiting, due in 120 min" in shown or "billing: waiting, due in 2 h" in shown
    assert "billing: parked; ship: no [redacted]" in shown
    assert f"letter {letter_id} replayed (undelivered), pay: ValueError: no [redacted]" in shown
    assert f"replay of letter {letter_id} to billing pay: group_unknown" in shown
    assert "hunter2" not in f"{tree}{shown}"
    assert "not everything was read" in near.stderr
    assert "--window 10, or name streams" in near.stderr


def test_the_errors_of_a_replay_that_waits_are_hidden(rapids: Command) -> None:
    async def fail_again(redis: Any) -> None:
        await seed_failures(redis)
        replays = Source(STREAM, "billing").replays()
        await redis.xgroup_create(replays.stream, "billing", id="0")
        [entry_id] = await deliver(redis, 1, source=replays)
        await wait(redis, entry_id, int(time.time() * 1000) + 7_200_000, ["pay"], source=replays)
        attempts = AttemptLog.of(Attempt(1, 1, None, "worker-1", "shop.Declined", "no hunter2-secret"))
        await redis.hset(replays.ledger, entry_id, Ledger(recorded=1, attempts=(("pay", attempts),)).dump())

    rapids.redis(fail_again)

    shown = rapids("trace", "request-1", "--json").stdout

    [replay] = json.loads(shown)["replays"]
    [attempt] = replay["delivery"]["pending"]["attempts"][0]["attempts"]
    assert (attempt["error_type"], attempt["error"]) == ("shop.Declined", "[redacted]")
    assert "hunter2" not in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ("tail", "-s", STREAM, "--no-follow"),
        ("trace", "request-1"),
        ("dlq", "list", "-s", STREAM),
        ("dlq", "show", "LETTER", "-s", STREAM),
        ("dlq", "export", "-s", STREAM),
        ("dlq", "discard", "--all", "-s", STREAM, "--dry-run"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_names_that_a_service_hides_are_hidden_by_commands(
    rapids: Command, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    async def seed_letter(redis: Any) -> str:
        fields = {b"event_type": b"x.paid", b"data": b'{"iban": "DE44-5001"}', b"correlation_id": b"request-1"}
        await redis.xadd(STREAM, fields)
        letter = letter_fields(error="no DE44-5001", fields=fields)
        [letter_id, *_] = await write_flat(redis, DLQ, [letter])
        return letter_id

    letter_id = rapids.redis(seed_letter)
    command = [letter_id if one == "LETTER" else one for one in arguments]
    assert "DE44-5001" in rapids(*command).output
    monkeypatch.setenv("RAPIDS_REDACT", "iban, tax number")

    assert "DE44-5001" not in rapids(*command).output
    monkeypatch.setenv("RAPIDS_REDACT", ",")
    assert "RAPIDS_REDACT must be names with commas between them" in rapids(*command, code=2).stderr


def test_a_letter_without_its_event_is_in_the_tree(rapids: Command) -> None:
    async def trimmed(redis: Any) -> None:
        await seed_failures(redis)
        await redis.xtrim(STREAM, maxlen=0, approximate=False)

    rapids.redis(trimmed)

    shown = rapids("trace", "request-1", "--stream", STREAM, "--dlq", DLQ).stdout

    assert "letter " in shown
    assert "ValueError: no [redacted]" in shown


def test_a_line_of_a_terminal_is_cut_and_what_is_not_json_is_not_shown(
    rapids: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    rapids.redis(lambda redis: redis.xadd(STREAM, {"event_type": "x.binary", "data": b"\xff\xfe"}))
    rapids.redis(lambda redis: redis.xadd(STREAM, {"event_type": "x.long", "data": b'"%s"' % (b"long" * 50)}))
    tail = ("tail", "-s", STREAM, "--no-follow")

    piped = rapids(*tail).stdout
    monkeypatch.setattr(
        event_feed, "terminal", lambda: Console(file=sys.stdout, width=60, force_terminal=True, color_system=None)
    )
    shown = rapids(*tail).stdout

    assert "(withheld, 2 bytes)" in piped
    assert "long" * 50 in piped
    assert [len(line) <= 60 for line in shown.splitlines()] == [True, True]
    assert shown.endswith("…\n")
