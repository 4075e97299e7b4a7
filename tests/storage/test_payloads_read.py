"""No script and no query reads an entry's fields only to learn its id: entries may have megabytes.

Each script gets a few lines before its own that record the large answers to its commands. What Python gets is recorded
too.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids._core.outcomes import Ledger
from rapids._storage import (
    appends,
    archive,
    group_control,
    groups,
    inspection_queries,
    letter_index,
    rates,
    read_positions,
    scripts,
    settlement,
    streams,
)
from rapids._storage.client.connections import Command, Reply, SharedPool
from rapids._storage.keys import PARKED, Source
from rapids._storage.letter_moves import Bounds, LetterMoves
from rapids._storage.scripts import Script
from rapids._storage.settlement import Letter, SettleCall, Verb
from tests.worker.helpers import as_text

STREAM, GROUP = "st:large", "st-group"
DLQ = "{st:large}:dlq"
SOURCE = Source(STREAM, GROUP)
RECORD = "{st:large}:record"
LARGE = 20_000
"""Bytes of an entry; an answer with as many has the fields of one."""

RECORDING = """
local real_redis, redis = redis, {}
local function size_of(answer)
  if type(answer) == 'string' then return #answer end
  local size = 0
  if type(answer) == 'table' then
    for _, part in pairs(answer) do size = size + size_of(part) end
  end
  return size
end
local function recorded(answer, command)
  if size_of(answer) >= LARGE then real_redis.pcall('RPUSH', 'RECORD', command) end
  return answer
end
for name, value in pairs(real_redis) do redis[name] = value end
function redis.call(...) return recorded(real_redis.call(...), (...)) end
function redis.pcall(...) return recorded(real_redis.pcall(...), (...)) end
""".replace("LARGE", str(LARGE)).replace("RECORD", RECORD)


def recording(script: Script) -> Script:
    source = RECORDING.encode() + script.source
    sha = hashlib.sha1(source, usedforsecurity=False).hexdigest()
    return Script(source, sha, (*["recording"] * RECORDING.count("\n"), *script.lines))


class Recorder:
    """Commands of a server, and which of them had an answer with an entry's fields: in scripts, or outside them."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._commands = SharedPool(redis, STREAM)
        self._outside: list[str] = []

    async def send(self, commands: Sequence[Command]) -> list[Reply]:
        replies = await self._commands.send(commands)
        for command, reply in zip(commands, replies, strict=True):
            if size_of(reply) >= LARGE:
                self._outside.append("to Python: " + " ".join(map(str, command[:2])))
        return replies

    async def read(self) -> list[str]:
        inside = [as_text(name) for name in await self.redis.lrange(RECORD, 0, -1)]
        return inside + [name for name in self._outside if "EVAL" not in name]


def size_of(reply: Any) -> int:
    match reply:
        case bytes() | str():
            return len(reply)
        case list() | tuple():
            return sum(map(size_of, reply))
        case dict():
            return sum(map(size_of, reply.items()))
        case _:
            return 0


@pytest.fixture
async def large(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Recorder]:
    """A stream of ten large entries, of which a group has read five, and settled none."""
    load = scripts.load
    monkeypatch.setattr(scripts, "load", lambda name: recording(load(name)))
    for number in range(1, 11):
        await add(redis, f"{number}-0")
    await redis.xgroup_create(STREAM, GROUP, "0")
    await redis.xreadgroup(GROUP, "me", {STREAM: ">"}, count=5)
    yield Recorder(redis)
    assert not [row for row in await redis.xinfo_groups(STREAM) if as_text(row["name"]) != GROUP]


async def add(redis: Redis, entry_id: str, stream: str = STREAM, **more: str) -> None:
    await redis.xadd(stream, {"id": entry_id, "data": "x" * LARGE, **more}, id=entry_id)


def ids(*numbers: int) -> list[bytes]:
    return [b"%d-0" % number for number in numbers]


async def test_renewing_leases(large: Recorder) -> None:
    await large.redis.xdel(STREAM, "2-0")
    assert await groups.renew(large, SOURCE, "me", ids(1, 2, 3, 7)) == ids(7)
    assert await large.read() == []
    pending = await large.redis.xpending_range(STREAM, GROUP, "-", "+", 10)
    assert len(pending) == 5, "a trimmed entry stays pending until it is settled"


@pytest.mark.parametrize(
    ("verb", "done"), [("ack", b"acked"), ("keep", b"kept"), ("park", b"parked"), ("release", b"released")]
)
async def test_settling(large: Recorder, verb: Verb, done: bytes) -> None:
    await add(large.redis, "1-0", DLQ)
    letter = Letter("pay", (b"handler", b"pay", b"original_msg_id", b"1-0", b"original_group", GROUP.encode()))
    call = SettleCall(SOURCE, b"1-0", verb, Ledger().dump(), letters=[letter])
    assert await settlement.settle(large, "me", [call], dlq=DLQ, dlq_maxlen=None) == [done]
    # The letter that is there already was written without the index, and is now indexed by its fields.
    assert await large.read() == ["XRANGE"]
    again = replace(call, entry_id=b"2-0")
    assert await settlement.settle(large, "me", [again], dlq=DLQ, dlq_maxlen=None) == [done]
    assert await large.read() == ["XRANGE"]


async def test_settling_a_trimmed_entry(large: Recorder) -> None:
    await large.redis.xdel(STREAM, "1-0")
    call = SettleCall(SOURCE, b"1-0", "keep", Ledger().dump())
    assert await settlement.settle(large, "me", [call], dlq=None, dlq_maxlen=None) == [b"trimmed"]
    assert await large.read() == []


async def test_registering_with_a_recreated_group(large: Recorder) -> None:
    await large.redis.xgroup_destroy(STREAM, GROUP)
    await large.redis.xgroup_create(STREAM, GROUP, "5-0")
    assert await groups.register(large, SOURCE, "me", ids(1, 2, 77)) == (ids(1, 2), [])
    assert await large.read() == []


async def test_recreating_a_group(large: Recorder) -> None:
    await large.redis.xgroup_destroy(STREAM, GROUP)
    await large.redis.hset(SOURCE.parked, mapping={"1-0": "for good", "77-0": "for good"})
    await large.redis.zadd(SOURCE.due, {"2-0": 1})
    assert await streams.last_id(large, STREAM) == "10-0"
    assert await groups.recreate(large, SOURCE, "5-0", delivered=True)
    [parked] = await large.redis.xpending_range(STREAM, GROUP, "-", "+", 10, PARKED)
    assert as_text(parked["message_id"]) == "1-0"
    assert await large.read() == []


async def test_forgetting_a_due_entry_that_another_client_settled(large: Recorder) -> None:
    await large.redis.xgroup_createconsumer(STREAM, GROUP, "rapids:waiting")
    await large.redis.zadd(SOURCE.due, {"1-0": 1})
    await large.redis.xack(STREAM, GROUP, "1-0")
    claimed = await groups.claim(large, SOURCE, "me", ids=[], min_idle_ms=0, due=10)
    assert claimed is not None
    assert (claimed.entries, claimed.ghosts) == ([], [])
    assert await large.read() == []


async def sample(large: Recorder, known_first: str = "") -> read_positions.Sample:
    commands = read_positions.commands(SOURCE, batch_size=2, with_script=True, known_first=known_first)
    found = read_positions.sample_in((await large.send(commands))[-1])
    assert found is not None
    return found


async def test_sampling_while_entries_are_unread(large: Recorder) -> None:
    seen = await sample(large, "1-0")
    assert (seen.length, seen.last_assigned, seen.delivered, seen.is_whole) == (10, "10-0", "5-0", True)
    # Without counts only the entries themselves say which of them was there: those of the read after the next one.
    assert await large.read() == ([] if seen.added is not None else ["XRANGE"])


async def test_sampling_while_all_is_read(large: Recorder) -> None:
    await large.redis.xreadgroup(GROUP, "me", {STREAM: ">"})
    for _ in range(2):
        seen = await sample(large, "1-0")
        assert (seen.last_assigned, seen.delivered, seen.next, seen.is_whole) == ("10-0", "10-0", None, True)
    assert await large.read() == []


async def test_sampling_after_the_last_entry_read_was_deleted(large: Recorder) -> None:
    await large.redis.xdel(STREAM, "5-0")
    await large.redis.xreadgroup(GROUP, "me", {STREAM: ">"})
    await large.redis.xdel(STREAM, "10-0")
    seen = await sample(large, "1-0")
    assert (seen.length, seen.delivered, seen.last_assigned) == (8, "10-0", "10-0")
    assert set(await large.read()) <= {"XREVRANGE"}, "for the last entry that is left"


async def test_renewing_a_name_with_rates(large: Recorder) -> None:
    report = rates.report([1] * (len(rates.COUNTED) + rates.RANGES))
    await groups.hold(large, SOURCE.consumer("me"), "token", ttl_ms=60_000, rates=(SOURCE, report))
    assert await large.read() == []
    [found] = await rates.read(SharedPool(large.redis, STREAM), STREAM, [GROUP])
    [added] = [one for period, one in zip(found.periods, found.added, strict=True) if period]
    assert added in (10, None), "None of Redis 6.2, which does not count"


async def test_trimming(large: Recorder) -> None:
    await large.redis.xack(STREAM, GROUP, *ids(1, 2, 3, 4, 5))
    first = await streams.trim(large, SOURCE, least_age_ms=60_000, most=1_000)
    assert first.unsettled is not None
    assert first.unsettled.entry_id == "6-0"
    found = await large.read()
    again = await streams.trim(large, SOURCE, least_age_ms=60_000, most=1_000, before=first)
    assert (again.removed, again.left) == (0, first.left)
    assert again.unsettled is not None
    assert again.unsettled.entry_id == "6-0"
    assert await large.read() == found


async def test_the_progress_of_a_group(large: Recorder) -> None:
    replays = SOURCE.replays()
    await large.redis.xgroup_create(replays.stream, GROUP, "0", mkstream=True)
    progress = await group_control.progress(large, [SOURCE, replays])
    assert progress is not None
    assert (progress.last_id, progress.has_more) == ("10-0", True)
    await large.redis.xreadgroup(GROUP, "me", {STREAM: ">"})
    progress = await group_control.progress(large, [SOURCE, replays])
    assert progress is not None
    assert (progress.last_id, progress.has_more) == ("10-0", False)
    assert await large.read() == []


async def test_the_states_of_replays(large: Recorder) -> None:
    await large.redis.xack(STREAM, GROUP, "4-0")
    await large.redis.xdel(STREAM, "4-0")
    states = [await archive.replay_state(large, STREAM, GROUP, f"{number}-0") for number in (4, 5, 6, 11)]
    assert states == ["gone", "pending", "undelivered", "unknown"]
    assert await large.read() == []


async def test_letters_are_looked_up_in_their_index(large: Recorder) -> None:
    await add(large.redis, "1-0", DLQ, handler="pay")
    while not await letter_index.catch_up(large, DLQ):
        pass
    await large.redis.delete(RECORD)
    state = await letter_index.state(large, DLQ)
    assert (state.last, state.to, state.entries) == ("1-0", "1-0", 1)
    assert await large.read() == []


async def test_moving_a_letter_that_is_gone(large: Recorder) -> None:
    await add(large.redis, "1-0", DLQ)
    moves = LetterMoves(large, DLQ, Bounds(retention_ms=60_000, archive_maxlen=10))
    assert await moves.move("0-1", {"action": "discarded", "actor": "", "reason": ""}, None) is None
    assert await large.read() == []


async def test_a_write_whose_replicas_are_asked(large: Recorder) -> None:
    lent = appends.LentConnection(large.redis, STREAM)
    try:
        assert await appends.replicated(lent, STREAM, replicas=0, timeout_ms=1) >= 0
    finally:
        await lent.return_connection()
    assert await large.read() == []


async def test_a_look_at_pending_entries(large: Recorder) -> None:
    found = await inspection_queries.pending(large, SOURCE, names_of=SOURCE, most=3)
    assert ([row.entry_id for row in found.rows], found.until) == (ids(1, 2, 3), b"5-0")
    assert await large.read() == []


# --- servers that refuse to write -------------------------------------------------------------------------------------


Call = Callable[[Recorder], Awaitable[Any]]


@pytest.mark.parametrize(
    ("call", "found"),
    [
        (lambda large: streams.last_id(large, STREAM), "10-0"),
        (lambda large: groups.renew(large, SOURCE, "me", ids(1, 2, 7)), ids(7)),
    ],
)
async def test_without_free_memory_the_entries_are_read(large: Recorder, call: Call, found: Any) -> None:
    """The server refuses the group there."""
    unlimited = (await large.redis.config_get("maxmemory"))["maxmemory"]
    await large.redis.config_set("maxmemory", 1)
    try:
        assert await call(large) == found
    finally:
        await large.redis.config_set("maxmemory", unlimited)


async def test_what_is_left_of_a_script_that_a_crash_cut_off_is_removed(large: Recorder) -> None:
    await large.redis.xgroup_create(STREAM, "rapids:ids", "3-0")
    assert await streams.last_id(large, STREAM) == "10-0"
