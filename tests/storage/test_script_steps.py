"""No script works in proportion to what is stored: the server does nothing else during a script.

The steps of a script are the commands that it calls, as the server counts them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids._core.outcomes import Ledger
from rapids._storage import (
    appends,
    future_times,
    group_control,
    groups,
    inspection_queries,
    letter_index,
    scripts,
    settlement,
    streams,
)
from rapids._storage.client.connections import Command, Reply, SharedPool, run
from rapids._storage.keys import PARKED, WAITING, Source
from rapids._storage.settlement import SettleCall

pytestmark = pytest.mark.slow  # each script gets 20,000 of what it works on

MANY = 20_000
MOST_STEPS = 5_000

STREAM, GROUP = "st:many", "st-group"
DLQ = "{st:many}:dlq"
SOURCE = Source(STREAM, GROUP)


class Counted:
    """Commands of a server, with the steps of each round trip."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._commands = SharedPool(redis, STREAM)
        self.steps: list[int] = []

    async def send(self, commands: Sequence[Command]) -> list[Reply]:
        await self._redis.config_resetstat()
        replies = await self._commands.send(commands)
        calls = [row["calls"] for row in (await self._redis.info("commandstats")).values()]
        self.steps.append(sum(calls))
        return replies


FILL = """
for i = ARGV[1], ARGV[1] + 9999 do
  local id = i .. '-0'
  redis.call('XADD', KEYS[1], id, 'id', id)
  redis.call('XADD', KEYS[2], id, 'handler', 'h' .. i % 50, 'original_group', ARGV[2], 'letter_id', id)
  redis.call('ZADD', KEYS[3], 1, id)
  redis.call('HSET', KEYS[4], id, 'for good')
  redis.call('HSET', KEYS[5], id, '{"n":1}')
end
"""


async def fill(redis: Redis, many: int) -> Counted:
    keys = (STREAM, DLQ, SOURCE.due, SOURCE.parked, SOURCE.ledger)
    for first in range(1, many, 10_000):
        await redis.eval(FILL, len(keys), *keys, first, GROUP)
    assert await redis.xlen(STREAM) == await redis.hlen(SOURCE.ledger) == many
    return Counted(redis)


@pytest.fixture
async def commands(redis: Redis) -> Counted:
    """20,000 entries, of which the group has none, all recorded as waiting and as parked; and as many letters."""
    return await fill(redis, MANY)


async def recreate(commands: Counted, redis: Redis) -> None:
    await groups.recreate(commands, SOURCE, "0-0", delivered=False)
    rows = {row["name"]: row["pending"] for row in await redis.xinfo_consumers(STREAM, GROUP)}
    assert rows[WAITING] + rows.get(PARKED, 0) == MANY, "all of them are back"
    assert not await redis.exists(SOURCE.restoring)


async def _settle(commands: Counted, redis: Redis, verb: Any) -> None:
    await redis.xgroup_create(STREAM, GROUP, f"{MANY}-0")
    entry_id = await redis.xadd(STREAM, {"id": "new"})
    await redis.xreadgroup(GROUP, "me", {STREAM: ">"})
    one = SettleCall(SOURCE, entry_id, verb, Ledger().dump(), delay_ms=3_600_000)
    done = b"kept" if verb == "keep" else b"parked"
    assert await settlement.settle(commands, "me", [one], dlq=None, dlq_maxlen=None) == [done]


async def keep(commands: Counted, redis: Redis) -> None:
    await _settle(commands, redis, "keep")


async def park(commands: Counted, redis: Redis) -> None:
    await _settle(commands, redis, "park")


async def claim(commands: Counted, redis: Redis) -> None:
    await redis.xgroup_create(STREAM, GROUP, "$")
    assert len((await groups.claim(commands, SOURCE, "me", ids=[], min_idle_ms=0, due=10)).entries) == 10


async def trim(commands: Counted, redis: Redis) -> None:
    await redis.xgroup_create(STREAM, GROUP, "$")
    assert 0 < (await streams.trim(commands, SOURCE, least_age_ms=0, most=1_000)).removed <= 1_000


async def find_events(commands: Counted, redis: Redis) -> None:
    found, complete = await appends.find_events(commands, STREAM, "1-0", ["5-0", "99999-0"], age_ms=1)
    assert (found, complete) == ([("5-0", "5-0")], False)


async def inspect(commands: Counted, redis: Redis) -> None:
    await groups.recreate(SharedPool(redis, STREAM), SOURCE, "0-0", delivered=False)
    assert (await inspection_queries.stream(commands, STREAM)).length == MANY
    await inspection_queries.groups(commands, SOURCE, names_of=SOURCE)
    await inspection_queries.consumers(commands, SOURCE, names_of=SOURCE, most=100)
    assert len((await inspection_queries.pending(commands, SOURCE, names_of=SOURCE, most=100)).rows) == 100
    assert len((await inspection_queries.waiting(commands, SOURCE, most=100)).rows) == 100
    await group_control.progress(commands, [SOURCE, SOURCE])


async def index(commands: Counted, redis: Redis) -> None:
    while not await letter_index.catch_up(commands, DLQ):
        pass
    assert (await letter_index.state(commands, DLQ)).entries == MANY


async def forget_settled(commands: Counted, redis: Redis) -> None:
    await redis.xgroup_create(STREAM, GROUP, "$")
    await redis.delete(SOURCE.due, SOURCE.parked)
    assert len((await groups.forget_settled(commands, SOURCE, 0))[1]) >= 1


async def correct_times(commands: Counted, redis: Redis) -> None:
    await groups.recreate(SharedPool(redis, STREAM), SOURCE, "0-0", delivered=False)
    assert await future_times.correct_entries(commands, SOURCE, WAITING) == 0


SCRIPTS: list[Callable[[Counted, Redis], Awaitable[None]]] = [
    recreate,
    keep,
    park,
    claim,
    trim,
    find_events,
    inspect,
    index,
    forget_settled,
    correct_times,
]


@pytest.mark.parametrize("call", SCRIPTS, ids=lambda call: call.__name__)
async def test_a_script_takes_a_bounded_number_of_steps(
    commands: Counted, redis: Redis, call: Callable[[Counted, Redis], Awaitable[None]]
) -> None:
    await call(commands, redis)
    assert max(commands.steps) <= MOST_STEPS


# --- between the steps of restoring what waits or is parked -----------------------------------------------------------


async def half_restored(redis: Redis) -> Counted:
    """A group that was lost and recreated by a process that then ended."""
    commands = await fill(redis, 10_000)
    keys = (STREAM, SOURCE.ledger, SOURCE.due, SOURCE.parked, SOURCE.recreated, SOURCE.restoring)
    await run(commands, scripts.load("recreate"), [(keys, (GROUP, "0-0", 1, 60_000))])
    await run(commands, scripts.load("restore_held"), [((*keys[:4], keys[5]), (GROUP,))])
    assert await redis.hlen(SOURCE.restoring) == 2
    return commands


async def held(redis: Redis) -> int:
    return sum(
        [row["pending"] for row in await redis.xinfo_consumers(STREAM, GROUP) if row["name"] in (WAITING, PARKED)]
    )


async def test_claims_restore_what_the_process_that_recreated_the_group_did_not(redis: Redis) -> None:
    commands = await half_restored(redis)
    await redis.zadd(SOURCE.due, {f"{number}-0": 2**50 for number in range(1, 10_001)})
    while await redis.exists(SOURCE.restoring):
        await groups.claim(commands, SOURCE, "me", ids=[], min_idle_ms=0, due=1)
    assert await held(redis) == 10_000
    assert max(commands.steps) <= MOST_STEPS


async def test_what_is_due_and_not_restored_yet_does_not_count_as_settled(redis: Redis) -> None:
    commands = await half_restored(redis)
    taken: list[bytes] = []
    while await redis.zcard(SOURCE.due):
        claimed = await groups.claim(commands, SOURCE, "me", ids=[], min_idle_ms=0, due=500)
        taken += [entry.entry_id for entry in claimed.entries]
    # What is recorded as both waiting and parked belongs to the consumer that got it first.
    parked = {row["message_id"] for row in await redis.xpending_range(STREAM, GROUP, "-", "+", 10_000, PARKED)}
    assert parked.isdisjoint(taken)
    assert len(taken) + len(parked) == 10_000


async def test_the_ledger_of_a_parked_entry_that_is_not_restored_yet_stays(redis: Redis) -> None:
    commands = await half_restored(redis)
    await redis.delete(SOURCE.due)
    await redis.hdel(SOURCE.restoring, WAITING)
    cursor, forgotten = await groups.forget_settled(commands, SOURCE, 0)
    assert (cursor > 0, forgotten) == (True, [])
