"""What servers newer than the test matrix answer, in rows made by hand: entries that nobody holds after an XNACK.

Redis 8.8 keeps such an entry pending without a consumer and with an idle time of -1
(https://redis.io/docs/latest/commands/xnack/). Here a consumer without a name stands for nobody.
"""

from __future__ import annotations

from redis.asyncio import Redis

from rapids._storage.client.connections import SharedPool
from rapids._storage.groups import claim
from rapids._storage.inspection_queries import PendingRow
from rapids._storage.keys import Source
from rapids.inspection.snapshots import pending
from tests.worker.helpers import GROUP, STREAM, DvOrder, make_emitter


def test_a_released_entry_is_shown_without_a_consumer() -> None:
    shown = pending(PendingRow(b"1-0", b"", -1, 3, None, None, None, 0))
    assert (shown.state, shown.consumer, shown.consumer_alive, shown.idle_ms) == ("held", None, False, None)
    assert shown.deliveries == 3


async def test_a_released_entry_is_taken_at_once(redis: Redis) -> None:
    await redis.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    entry_id = await make_emitter(redis).emit(DvOrder())
    await redis.xreadgroup(GROUP, "", {STREAM: ">"})
    commands = SharedPool(redis, STREAM)
    claimed = await claim(
        commands, Source(STREAM, GROUP), "worker", ids=[entry_id.encode()], min_idle_ms=3_600_000, due=0
    )
    assert claimed is not None
    assert [entry.entry_id.decode() for entry in claimed.entries] == [entry_id]
    assert claimed.entries[0].deliveries == 2
