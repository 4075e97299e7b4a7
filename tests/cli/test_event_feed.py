"""`rapids tail` and `rapids trace`."""

from __future__ import annotations

from typing import Any

from rapids import BaseEvent, EventEmitter
from rapids.inspection import Inspector
from tests.cli.helpers import Command
from tests.support import eventually

STREAM = "cli:{feed}"


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
