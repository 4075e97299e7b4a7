"""Events that do not arrive, however often they are asked for: named, and then letters that the server writes."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from rapids import DeadLetterQueue
from rapids._storage import settlement
from rapids._storage.keys import Source
from rapids._wire.letter_format import original_fields
from rapids._worker import fetcher
from rapids.exceptions import NonRetryableError
from tests.redis.proxy import Proxy, proxy_to
from tests.support import eventually
from tests.worker.helpers import (
    DLQ,
    GROUP,
    STREAM,
    DvOrder,
    add,
    fields_of,
    letters,
    make_emitter,
    make_router,
    pending,
    running,
    until_settled,
)

FAR_LEASE = 3_600_000


@pytest.fixture(autouse=True)
def short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "FETCH_PAUSE", 0.05)


def never_arrives(proxy: Proxy) -> None:
    """No answer that contains `lost;` arrives."""
    proxy.lost_words += [b"lost;"] * 1_000


REGULAR = [part for pair in fields_of(DvOrder(number=1, text="lost;")).items() for part in pair]
SHAPES = {
    "regular": REGULAR,
    "more fields": [*REGULAR, b"handler", b"of nobody", b"data", b"other"],
    "another order": [*REGULAR[2:], *REGULAR[:2]],
    "hostile": [b"data", b"lost;\x00\xff", b"data", b""],
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("concurrency", [1, 3])
async def test_an_event_that_never_arrives_ends_as_a_letter_and_its_neighbours_run(
    redis: Redis, redis_url: str, caplog: pytest.LogCaptureFixture, shape: str, concurrency: int
) -> None:
    fields = SHAPES[shape]
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url) as through:
        router = make_router(through, claim_min_idle_ms=FAR_LEASE, concurrency=concurrency)
        seen, health = list[int](), list[str]()

        @router.on(DvOrder)
        async def handle(event: DvOrder) -> None:
            seen.append(event.number)

        never_arrives(proxy)
        async with running(router):
            entry_id = await add(redis, fields)
            await make_emitter(redis).emit([DvOrder(number=2), DvOrder(number=3)])
            await eventually(lambda: sorted(seen) == [2, 3])
            while not await letters(redis):
                health.append((await router.health()).message)
            await until_settled(redis)
        [letter] = await letters(redis)
    assert any(f"1 entries cannot be fetched: {entry_id}" in message for message in health)
    assert f"entry {entry_id} cannot be fetched, although Redis answers: attempt 1 of 5" in caplog.text
    assert letter[b"original_msg_id"] == entry_id.encode()
    assert (letter[b"reason"], letter[b"handler"], letter[b"deliveries"]) == (b"non_retryable", b"", b"1")
    assert b"could not be fetched in 5 attempts" in letter[b"error"]
    [read] = (await DeadLetterQueue(redis, DLQ).list()).items
    assert read.entry_id == entry_id
    assert original_fields([part for pair in letter.items() for part in pair]) == fields
    own = {name: value for name, value in letter.items() if value and name not in fields}
    assert set(own) >= {b"original_msg_id", b"original_stream", b"original_group", b"failed_at", b"consumer"}
    assert (b"original_fields" in letter) == (shape != "regular")


async def test_a_replay_that_never_arrives_ends_as_a_letter_of_its_handler(redis: Redis, redis_url: str) -> None:
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url) as through:
        router = make_router(through, claim_min_idle_ms=FAR_LEASE)

        @router.on(DvOrder)
        async def handle(event: DvOrder) -> None:
            raise NonRetryableError("no")

        async with running(router):
            entry_id = await make_emitter(redis).emit(DvOrder(number=1, text="lost;"))
            await eventually(lambda: letters(redis))
            queue = DeadLetterQueue(redis, DLQ)
            [first] = (await queue.list()).items
            never_arrives(proxy)
            await queue.replay(first.id)
            await eventually(lambda: _has_letter(redis, b"could not be fetched"))
        [second] = (await queue.list()).items
        assert (second.handler, second.entry_id, second.replay_of) == (first.handler, entry_id, first.id)
        assert (second.data, second.replay_count) == (first.data, 1)


async def _has_letter(redis: Redis, error: bytes) -> bool:
    return any(error in letter[b"error"] for letter in await letters(redis))


async def test_an_event_that_never_arrives_is_parked_without_a_dead_letter_stream(redis: Redis, redis_url: str) -> None:
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url) as through:
        router = make_router(through, claim_min_idle_ms=FAR_LEASE, dlq_stream=None)

        @router.on(DvOrder)
        async def handle(event: DvOrder) -> None: ...

        never_arrives(proxy)
        async with running(router):
            entry_id = await make_emitter(redis).emit(DvOrder(number=1, text="lost;"))
            await eventually(lambda: redis.hexists(Source(STREAM, GROUP).parked, entry_id))
        assert [row["consumer"] for row in await pending(redis)] == [b"rapids:parked"]


async def test_a_letter_of_a_large_event_does_not_send_it_again(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settlement, "SENT_BYTES", 1_000)
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url) as through:
        router = make_router(through)

        @router.on(DvOrder)
        async def handle(event: DvOrder) -> None:
            if event.number == 1:
                await redis.xdel(STREAM, entry_ids[1])
            raise NonRetryableError("no")

        texts, entry_ids = ["large;" * 200, "trimmed;" * 200], list[str]()
        proxy.words = (b"large;", b"trimmed;")
        entry_ids += await make_emitter(redis).emit([DvOrder(number=n, text=text) for n, text in enumerate(texts)])
        async with running(router):
            await until_settled(redis)
            await eventually(lambda: _has_count(redis, 2))
        large, trimmed = await letters(redis)
        assert large[b"data"] == b'{"number":0,"text":"%s"}' % texts[0].encode()
        assert trimmed[b"data"] == b'{"number":1,"text":"%s"}' % texts[1].encode()
        assert proxy.requests_with_words == 1, "only that of the entry that is no longer in the stream"
        assert b"original_fields" not in large


async def _has_count(redis: Redis, count: int) -> bool:
    return len(await letters(redis)) == count
