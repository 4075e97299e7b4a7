"""`rapids streams`, `groups`, `pending`, `pause` and `resume`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from rapids import BaseEvent, EventEmitter, GroupControl
from rapids.audit import AuditLog
from rapids.cli import group_commands
from rapids.cli.group_commands import GroupState
from rapids.inspection import inspector
from tests.cli.helpers import Command

STREAM = "cli:{orders}"
SOME_TIME = datetime(2026, 11, 30, tzinfo=UTC)
HOSTILE = "a\x1b[31mgroup [bold]x[/]"


class CliOrderPlaced(BaseEvent):
    order_id: str


async def seed(redis: Any) -> None:
    """A stream with two groups, of which one holds an entry; a stream that nobody reads; a dead-letter stream."""
    await EventEmitter(redis, STREAM).emit([CliOrderPlaced(order_id=str(number)) for number in range(3)])
    await EventEmitter(redis, "cli:unread").emit(CliOrderPlaced(order_id="1"))
    await redis.xadd(f"{STREAM}:dlq", {"any": "letter"})
    await redis.xadd(f"{STREAM}:rapids:replay:billing", {"not": "shown"})
    await redis.xgroup_create(STREAM, "billing", id="0")
    await redis.xgroup_create(STREAM, HOSTILE, id="$")
    await redis.xreadgroup("billing", "worker-1", {STREAM: ">"}, count=1)


def test_streams_are_found_on_the_server(rapids: Command) -> None:
    rapids.redis(seed)

    found = {one["stream"]: one for one in rapids.json("streams")}
    named = rapids.json("streams", STREAM)
    table = rapids("streams").stdout

    assert set(found) == {STREAM, "cli:unread", f"{STREAM}:dlq"}
    assert (found[STREAM]["length"], found[STREAM]["groups"]) == (3, 2)
    assert [one["stream"] for one in named] == [STREAM]
    assert len(table.splitlines()) == 4, "a header, and a line for each stream"
    assert "no stream 'nothing'" in rapids("streams", "nothing", code=2).stderr


@pytest.mark.parametrize("name", [b"x\n\x1b[31m", b"\xff\xfe", b"a{}b"], ids=["control", "bytes", "braces"])
def test_streams_and_groups_of_other_programs_with_any_name_disturb_nothing(rapids: Command, name: bytes) -> None:
    async def others(redis: Any) -> None:
        await seed(redis)
        await redis.xadd(name, {"event_type": "x.y", "correlation_id": "request-1"})
        await redis.xgroup_create(name, "billing", id="0")

    rapids.redis(others)

    assert {one["stream"] for one in rapids.json("streams")} == {STREAM, "cli:unread", f"{STREAM}:dlq"}
    assert {one["group"] for one in rapids.json("groups")} == {"billing", HOSTILE}
    assert rapids.json("groups", "billing")[0]["stream"] == STREAM
    assert rapids.json("trace", "request-1")[0]["complete"] is True
    [found] = rapids.json("doctor")
    assert found["streams"] == ["cli:unread", STREAM, f"{STREAM}:dlq"]
    assert (found["groups"], found["complete"]) == (2, True)


def test_a_search_says_that_it_found_nothing_or_not_all(rapids: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rapids("streams").stderr == "no streams\n"
    assert rapids("groups").stderr == "no groups\n"

    rapids.redis(seed)
    monkeypatch.setattr(inspector, "MAX_STREAMS", 1)

    shown = rapids("streams")
    assert len(shown.stdout.splitlines()) == 2, "a header and a stream"
    assert "the search ended before all keys were looked at: there may be more streams" in shown.stderr


def test_groups_are_shown_with_what_they_have_to_do(rapids: Command) -> None:
    rapids.redis(seed)

    groups = {one["group"]: one for one in rapids.json("groups")}
    table = rapids("groups").stdout
    [one] = rapids.json("groups", "billing", "--stream", STREAM)
    shown = rapids("groups", "billing", "-s", STREAM).stdout

    assert (groups["billing"]["lag"], groups["billing"]["held"], groups["billing"]["consumers_alive"]) == (2, 1, 0)
    assert "nobody works" in table
    assert "nobody is alive" in table, "the other group has nothing to do"
    assert table.split("\n")[0].split()[6] == "REPLAYS"
    assert r"a\x1b[31mgroup [bold]x[/]" in table, "control characters are escaped, and markup is no markup"
    assert [consumer["consumer"] for consumer in one["consumer_list"]] == ["worker-1"]
    assert "1 held" in shown
    assert "has no group 'x'" in rapids("groups", "x", "-s", STREAM, code=2).stderr


def test_the_stream_of_a_group_is_found_if_only_one_has_it(rapids: Command) -> None:
    rapids.redis(seed)

    [one] = rapids.json("groups", "billing")
    shown = rapids("groups", "billing").stdout
    nothing = rapids("groups", "mailing", code=2).stderr
    rapids.redis(lambda redis: redis.xgroup_create("cli:unread", "billing", id="$"))
    several = rapids("groups", "billing", code=2).stderr

    assert one["stream"] == STREAM
    assert f"stream            {STREAM}\n" in shown
    assert all(line == line.rstrip() for line in shown.splitlines()), "no line ends with spaces"
    assert nothing == "rapids: no stream of this server has a group 'mailing'\n"
    assert several == f"rapids: several streams have a group 'billing': cli:unread, {STREAM}; name one with --stream\n"
    assert "oldest unsettled  -\n" in rapids("groups", "billing", "-s", "cli:unread").stdout


@pytest.mark.parametrize(
    ("left", "alive", "state"),
    [
        ({}, 1, "caught up"),
        ({"lag": 1}, 1, "working"),
        ({"pending": 1, "held": 1}, 1, "working"),
        ({"pending": 3, "waiting": 3}, 1, "waiting"),
        ({"pending": 5, "parked": 5}, 1, "caught up"),
        ({"replays": 1}, 1, "working"),
        ({"replays": 2, "replays_parked": 2}, 1, "caught up"),
        ({}, 0, "nobody is alive"),
        ({"pending": 3, "waiting": 3}, 0, "nobody works"),
        ({"replays": 1}, 0, "nobody works"),
        ({"replays": 2, "replays_parked": 2}, 0, "nobody is alive"),
    ],
)
def test_a_state_is_true_of_entries_and_replays(left: dict[str, int], alive: int, state: str) -> None:
    nothing: dict[str, Any] = {
        "at": SOME_TIME,
        "stream": STREAM,
        "group": "billing",
        "last_delivered_id": "0-0",
        "lag_exact": True,
    }
    nothing |= dict.fromkeys(GroupState.__dataclass_fields__.keys() - nothing.keys() - {"pause"}, 0)

    assert group_commands._state(GroupState(**{**nothing, "consumers_alive": alive, **left})).plain == state


def test_parked_replays_are_no_work(rapids: Command) -> None:
    async def park_one(redis: Any) -> None:
        replays = f"{STREAM}:rapids:replay:billing"
        await seed(redis)
        await redis.xadd(replays, {"another": "one"})
        await redis.xgroup_create(replays, "billing", id="0")
        await redis.xreadgroup("billing", "rapids:parked", {replays: ">"}, count=1)

    rapids.redis(park_one)

    [one] = rapids.json("groups", "billing", "-s", STREAM)
    assert (one["replays"], one["replays_parked"]) == (2, 1)
    assert "2, 1 of them parked" in rapids("groups", "billing", "-s", STREAM).stdout


def test_pending_entries_are_shown(rapids: Command) -> None:
    rapids.redis(seed)

    [entry] = rapids.json("pending", "billing", "-s", STREAM)

    assert (entry["state"], entry["consumer"], entry["deliveries"]) == ("held", "worker-1", 1)
    assert "worker-1 (gone)" in rapids("pending", "billing", "-s", STREAM).stdout
    assert rapids.json("pending", "billing", "-s", STREAM, "--state", "parked") == []
    assert "nothing is pending" in rapids("pending", "billing", "-s", STREAM, "--state", "waiting").stderr
    refused = rapids("pending", "billing", "-s", STREAM, "--state", "parked", "--consumer", "x", code=2)
    assert "--consumer is for entries that are held" in refused.stderr


def test_a_pause_is_previewed_and_asked_for_and_in_the_audit(rapids: Command, somebody: None) -> None:
    rapids.redis(seed)
    pause = ("pause", "billing", "-s", STREAM)

    assert "2 entries to come, 1 held" in rapids(*pause, "--dry-run").stderr
    assert "nothing was changed" in rapids(*pause, answer="n\n", code=2).stderr
    assert rapids.redis(lambda redis: GroupControl(redis, STREAM, "billing").paused()) is None

    rapids(*pause, "--reason", "the bank is down", answer="y\n")
    [paused] = rapids.json(*pause, "--yes")
    assert (paused["pause"]["reason"], paused["pause"]["actor"][:4]) == ("the bank is down", "cli:")
    assert "paused by cli:" in rapids("groups").stdout

    [resumed] = rapids.json("resume", "billing", "-s", STREAM, "--yes", "--reason", "it is back")
    assert resumed["pause"] is None
    log = rapids.redis(lambda redis: AuditLog(redis, STREAM).list())
    assert [(one.action, one.reason) for one in log.items] == [
        ("group_resumed", "it is back"),
        ("group_paused", "the bank is down"),
    ]


def test_nothing_is_changed_where_nobody_can_be_asked(rapids: Command) -> None:
    rapids.redis(seed)

    assert "give --yes" in rapids("pause", "billing", "-s", STREAM, code=2).stderr

    assert rapids.redis(lambda redis: GroupControl(redis, STREAM, "billing").paused()) is None


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://127.0.0.1:1/0", "cannot reach Redis at redis://127.0.0.1:1/0"),
        ("redis+cluster://127.0.0.1:1", "cannot reach Redis at redis+cluster://127.0.0.1:1"),
        ("ftp://nowhere", "must be one of"),
        ("redis://:wrong@127.0.0.1:1/0?socket_timeout=x", "cannot be used"),
        ("", "no address of Redis: give --url, or set RAPIDS_REDIS_URL"),
    ],
)
def test_an_address_that_cannot_be_used_is_one_line(url: str, reason: str) -> None:
    error = Command(url)("streams", code=2).stderr

    assert len(error.splitlines()) == 1
    assert error.startswith("rapids: ")
    assert reason in error
    assert "wrong" not in error, "no password is printed"


def test_pending_entries_are_counted_and_a_page_says_that_there_are_more(rapids: Command) -> None:
    async def hold(redis: Any) -> None:
        await seed(redis)
        await redis.xreadgroup("billing", "worker-1", {STREAM: ">"}, count=2)

    rapids.redis(hold)
    pending = ("pending", "billing", "-s", STREAM)

    shown = rapids(*pending, "--limit", "2")

    assert len(shown.stdout.splitlines()) == 3
    assert "worker-1 (gone)" in shown.stdout
    assert shown.stderr == "there are more: --limit 4\n"
    assert rapids(*pending, "--state", "parked").stderr == "nothing is pending in group billing (parked)\n"


def test_an_entry_that_nobody_holds_after_an_xnack_is_shown_without_a_consumer(rapids: Command) -> None:
    async def release(redis: Any) -> None:
        await seed(redis)
        [row] = await redis.xpending_range(STREAM, "billing", "-", "+", 10)
        await redis.xclaim(STREAM, "billing", "", 0, [row["message_id"]], retrycount=2**63 - 1, justid=True)

    rapids.redis(release)

    [entry] = rapids.json("pending", "billing", "-s", STREAM)
    assert (entry["state"], entry["consumer"], entry["deliveries"]) == ("held", None, 1_000_000_000)
    assert "1,000,000,000" in rapids("pending", "billing", "-s", STREAM).stdout
    assert "billing" in rapids("groups", "-s", STREAM).stdout
    assert rapids.json("doctor", "-s", STREAM)[0]["groups"] == 2
