"""What a router that has nothing to do asks Redis for: a hosted server's bill counts commands."""

from __future__ import annotations

from collections import Counter

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from rapids._storage import group_control, scripts
from rapids._storage.client.connections import SharedPool
from rapids._storage.keys import Source
from tests.worker.helpers import GROUP, STREAM, DvOrder, make_router, running

SOURCE = Source(STREAM, GROUP)
TURNS = 3


async def test_a_turn_is_one_command_while_nothing_is_due(redis: Redis) -> None:
    router = make_router(redis)
    router.on("dv.order")(_pass)
    names = {scripts.load(name).sha: name for name in ("look", "claim")}
    sent = Counter[str]()
    async with running(router), redis.monitor() as monitor:
        while sent["look"] <= TURNS:
            asked = await monitor.next_command()
            if asked["client_type"] == "lua":
                continue
            name, _, rest = asked["command"].partition(" ")
            script = names.get(rest.partition(" ")[0], "another script")
            if sent["look"]:  # a whole turn from here
                sent[script if name == "EVALSHA" else name] += 1
            elif script == "look":
                sent["look"] = 1
    assert not set(sent) & {"claim", "XPENDING", "HMGET"}, "what else there is, is asked for every few seconds"


async def test_a_look_says_what_is_pending_and_when_the_next_entry_is_due(redis: Redis) -> None:
    pool, sources = SharedPool(redis, STREAM), [SOURCE, SOURCE.replays()]
    for source in sources:
        await redis.xgroup_create(source.stream, GROUP, "0", mkstream=True)
    now_ms = (await group_control.look(pool, sources)).now_ms
    await redis.zadd(SOURCE.due, {"1-0": now_ms + 60_000, "2-0": now_ms + 90_000})
    await redis.xadd(STREAM, {"n": "1"})
    await redis.xreadgroup(GROUP, "one", {STREAM: ">"})
    look = await group_control.look(pool, sources)
    assert look.paused is None
    assert [one.pending.held for one in look.sources] == [{b"one": 1}, {}]
    first, second = (one.next_due_ms for one in look.sources)
    assert first is not None
    assert 0 < first <= 60_000
    assert second is None
    await redis.zadd(SOURCE.due, {"1-0": now_ms - 5})
    await redis.hset(SOURCE.replays().restoring, "rapids:waiting", "0")
    await redis.hset(SOURCE.paused, "actor", "ann")
    look = await group_control.look(pool, sources)
    assert [one.next_due_ms for one in look.sources] == [0, 0], "due, and being restored"
    assert look.paused is not None
    assert look.paused.actor == "ann"


@pytest.mark.parametrize("lost", [0, 1])
async def test_a_look_at_a_lost_group_raises_what_the_server_says(redis: Redis, lost: int) -> None:
    sources = [SOURCE, SOURCE.replays()]
    for source in sources:
        await redis.xgroup_create(source.stream, GROUP, mkstream=True)
    await redis.xgroup_destroy(sources[lost].stream, GROUP)
    with pytest.raises(ResponseError, match=r"^NOGROUP"):
        await group_control.look(SharedPool(redis, STREAM), sources)


async def _pass(event: DvOrder) -> None:
    pass
