"""Group commit: emits that arrive while a write is under way go out together in the next one, each for itself."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from pydantic import model_serializer
from redis.asyncio import Redis

from rapids import BaseEvent, EventEmitter
from rapids.dead_letters import DeadLetterQueue
from rapids.exceptions import EmitError, NotConfiguredError
from tests.redis.proxy import Proxy, proxy_to
from tests.support import eventually

STREAM = "gc:events"
encoded: list[int] = []


class GcSent(BaseEvent):
    number: int = 0
    text: str = ""

    @model_serializer(mode="wrap")
    def _note(self, handler: Any) -> Any:
        encoded.append(self.number)
        return handler(self)


@pytest.fixture
async def proxy(redis_url: str) -> AsyncIterator[Proxy]:
    encoded.clear()
    async with proxy_to(redis_url) as proxy:
        yield proxy


@pytest.fixture
async def emitter(proxy: Proxy) -> AsyncIterator[EventEmitter]:
    """Connected, through the proxy."""
    async with Redis.from_url(proxy.url) as through:
        emitter = EventEmitter(through, STREAM, retry_delay=0.001)
        await emitter.emit(GcSent(number=-1))
        yield emitter
        await emitter.drain()


async def numbers(redis: Redis) -> list[int]:
    return [orjson.loads(fields[b"data"])["number"] for _, fields in await redis.xrange(STREAM)][1:]


def emit(emitter: EventEmitter, *numbers: int, text: str = "") -> list[asyncio.Task[str]]:
    return [asyncio.create_task(emitter.emit(GcSent(number=number, text=text))) for number in numbers]


async def held_up(proxy: Proxy, emitter: EventEmitter) -> list[asyncio.Task[str]]:
    """One emit whose write is under way until the proxy lets it through."""
    proxy.hold_up(b"XADD")
    first = emit(emitter, 0)
    await eventually(lambda: proxy.holds)
    return first


async def test_emits_during_a_write_go_out_together_in_the_next_one_in_order(
    proxy: Proxy, emitter: EventEmitter, redis: Redis
) -> None:
    first = await held_up(proxy, emitter)
    rest = emit(emitter, *range(1, 400))
    await asyncio.sleep(0)
    before = proxy.requests
    proxy.let_through()
    ids = await asyncio.gather(*first, *rest)
    assert proxy.requests - before <= 3  # a packet may come in pieces
    assert await numbers(redis) == list(range(400))
    assert ids == [entry_id.decode() for entry_id, _ in (await redis.xrange(STREAM))[1:]]


async def test_an_emit_alone_costs_one_round_trip(proxy: Proxy, emitter: EventEmitter) -> None:
    for number in range(5):
        before = proxy.requests
        await emitter.emit(GcSent(number=number))
        assert proxy.requests - before == 1


async def test_cancelling_one_emit_does_not_disturb_others(proxy: Proxy, emitter: EventEmitter, redis: Redis) -> None:
    under_way, queued = await held_up(proxy, emitter), emit(emitter, *range(1, 10))
    await asyncio.sleep(0)
    for task in [*under_way, *queued[::2]]:
        task.cancel()
    await asyncio.wait([*under_way, *queued[::2]])
    assert all(task.cancelled() for task in [*under_way, *queued[::2]])
    proxy.let_through()
    await asyncio.gather(*queued[1::2])
    assert await numbers(redis) == [0, *range(2, 10, 2)]  # the one that was being written is stored


async def test_a_command_that_is_refused_fails_its_own_emit_only(
    proxy: Proxy, emitter: EventEmitter, redis: Redis
) -> None:
    first = await held_up(proxy, emitter)
    rest = emit(emitter, 1, 2, 3)
    listed = asyncio.create_task(emitter.emit([GcSent(number=4), GcSent(number=5)]))
    await asyncio.sleep(0)

    def second_and_last_are_refused(reply: bytes) -> bytes:
        answers = [b"$" + each for each in reply.split(b"$")[1:]]
        answers[1] = answers[4] = b"-ERR not this one\r\n"
        return b"".join(answers)

    proxy.rewrite_reply_to(b"XADD", second_and_last_are_refused)  # of the next write: the one held up is past that
    proxy.let_through()
    await asyncio.gather(*first)
    results: list[Any] = await asyncio.gather(*rest, listed, return_exceptions=True)
    assert [isinstance(result, EmitError) for result in results] == [False, True, False, True]
    assert "not this one" in str(results[1])
    assert (len(results[3].stored), len(results[3].not_stored), results[3].unknown) == (1, 1, ())


async def test_emits_that_are_retried_do_not_delay_others(proxy: Proxy, emitter: EventEmitter, redis: Redis) -> None:
    first = await held_up(proxy, emitter)
    rest = emit(emitter, 1, 2, 3)
    await asyncio.sleep(0)
    proxy.rewrite_reply_to(
        b"XADD", lambda reply: b"".join([b"$" + each for each in reply.split(b"$")[1:-1]] + [b"-OOM for now\r\n"])
    )
    proxy.let_through()
    await asyncio.gather(*first, *rest)
    # In this test the server had stored it, whatever the proxy said: what counts is that it was sent again.
    assert await numbers(redis) == [0, 1, 2, 3, 3]


async def test_a_slow_server_makes_callers_wait_before_their_events_are_queued(
    proxy: Proxy, emitter: EventEmitter, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rapids._emit.group_commit.MAX_QUEUE", 10)
    first = await held_up(proxy, emitter)
    rest = emit(emitter, *range(1, 100))
    await asyncio.sleep(0)
    assert encoded == [-1, *range(11)]
    rest[50].cancel()
    proxy.let_through()
    await asyncio.gather(*first, *rest[:50], *rest[51:])
    assert await numbers(redis) == [number for number in range(100) if number != 51]


async def test_large_payloads_do_not_gather_in_one_packet(
    proxy: Proxy, emitter: EventEmitter, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rapids._emit.group_commit.MAX_WRITE_BYTES", 50_000)
    first = await held_up(proxy, emitter)
    rest = emit(emitter, *range(1, 21), text="x" * 20_000)
    await asyncio.sleep(0)
    before = proxy.requests
    proxy.let_through()
    await asyncio.gather(*first, *rest)
    assert proxy.requests - before >= 7
    assert await numbers(redis) == list(range(21))


async def test_writing_ends_with_the_last_emit_and_begins_again(emitter: EventEmitter) -> None:
    def writers() -> list[str]:
        return [task.get_name() for task in asyncio.all_tasks() if task.get_name().endswith(":writer")]

    for number in range(3):
        emitting = emit(emitter, number)
        await asyncio.sleep(0)
        assert writers() == [f"rapids:{STREAM}:writer"]
        await asyncio.gather(*emitting)
        await emitter.drain()
        assert writers() == []


async def test_a_cancelled_writer_leaves_no_caller_waiting(proxy: Proxy, emitter: EventEmitter) -> None:
    """As an event loop does that goes down."""
    under_way, queued = await held_up(proxy, emitter), emit(emitter, 1)
    await asyncio.sleep(0)
    [writer] = [task for task in asyncio.all_tasks() if task.get_name().endswith(":writer")]
    writer.cancel()
    results = await asyncio.gather(*under_way, *queued, return_exceptions=True)
    assert [type(result) for result in results] == [EmitError, EmitError]
    assert results[0].unknown  # type: ignore[union-attr]
    assert results[1].not_stored  # type: ignore[union-attr]
    proxy.let_through()
    await emitter.emit(GcSent(number=2))


def test_an_emitter_works_on_one_event_loop_after_another(redis_url: str) -> None:
    emitter = EventEmitter(stream=STREAM)

    async def serve(number: int) -> None:
        async with Redis.from_url(redis_url) as redis:
            emitter.configure(redis)
            await asyncio.gather(*emit(emitter, *range(20)))
            assert await redis.xlen(STREAM) == 20 * number

    for number in range(1, 4):
        asyncio.run(serve(number))


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_emitter_keeps_its_client_on_one_event_loop_after_another(redis_url: str) -> None:
    """The pool still has connections of the loops that have ended."""
    client = Redis.from_url(redis_url)
    emitter = EventEmitter(client, stream=STREAM)

    async def serve(number: int) -> None:
        await asyncio.gather(*emit(emitter, *range(20)))
        if number == 3:
            assert await client.xlen(STREAM) == 60
            await client.aclose()

    for number in range(1, 4):
        asyncio.run(serve(number))
    gc.collect()  # nobody closed the connections of the loops that have ended


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_dead_letter_queue_keeps_its_client_on_one_event_loop_after_another(redis_url: str) -> None:
    client = Redis.from_url(redis_url)
    queue = DeadLetterQueue(client, f"{STREAM}:dlq")

    async def count(*, is_last: bool) -> int:
        found = await asyncio.gather(*(queue.stats() for _ in range(5)))
        if is_last:
            await client.aclose()
        return sum(one.length for one in found)

    assert [asyncio.run(count(is_last=number == 3)) for number in range(1, 4)] == [0, 0, 0]
    gc.collect()  # nobody closed the connections of the loops that have ended


@pytest.mark.parametrize("is_bound_by", ["configuring", "emitting"])
async def test_an_emitter_in_use_refuses_another_running_event_loop(
    redis: Redis, redis_url: str, caplog: pytest.LogCaptureFixture, is_bound_by: str
) -> None:
    if is_bound_by == "configuring":
        emitter = EventEmitter(redis, stream=STREAM)
    else:
        emitter = await asyncio.to_thread(EventEmitter, redis, STREAM)  # as a module does at its import
        await emitter.emit(GcSent(number=0))

    under_way = [asyncio.create_task(emitter.emit(GcSent(number=number))) for number in range(1, 6)]
    await asyncio.sleep(0)
    with pytest.raises(NotConfiguredError, match=r"another event loop.*run_coroutine_threadsafe") as raised:
        await asyncio.to_thread(asyncio.run, emitter.emit(GcSent(number=99)))
    assert "anyio.from_thread.run" in str(raised.value)

    await asyncio.gather(*under_way)
    loop = asyncio.get_running_loop()

    def hand_over() -> str:
        return asyncio.run_coroutine_threadsafe(emitter.emit(GcSent(number=6)), loop).result(timeout=30)

    await asyncio.to_thread(hand_over)
    assert await redis.xlen(STREAM) == (6 if is_bound_by == "configuring" else 7)
    gc.collect()
    assert [record for record in caplog.records if record.name == "asyncio"] == []
