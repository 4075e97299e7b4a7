"""Entries of any bytes among good ones: every good one is handled, every bad one kept as it is, and nothing stops."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from rapids._storage.client.connections import SharedPool, call
from rapids._wire.letter_format import original_fields
from tests.support import eventually
from tests.worker.helpers import (
    DLQ,
    STREAM,
    DvOrder,
    add,
    as_text,
    check_keys,
    fields_of,
    letters,
    make_emitter,
    make_router,
    running,
    until_settled,
)

GOOD = fields_of(DvOrder(number=1))
ORDER = b"dv.order"


def with_(**changes: bytes | None) -> list[bytes]:
    """A good entry with some fields changed, or left out."""
    fields = GOOD | {name.encode(): value for name, value in changes.items()}
    return [part for name, value in fields.items() if value is not None for part in (name, value)]


DEEP = b'{"number":' + b"[" * 100_000 + b"]" * 100_000 + b"}"

JUNK = {
    "random bytes": [b"\x80\xff", b"\x00\xfe"],
    "empty names": [b"", b""],
    "no event type": with_(event_type=None),
    "event type of bytes": with_(event_type=b"\xff"),
    "event type empty": with_(event_type=b""),
    "data no JSON": with_(data=b"{"),
    "data no object": with_(data=b"[1]"),
    "data bytes": with_(data=b'{"number":"\xff"}'),
    "data deep": with_(data=DEEP),
    "data huge": with_(data=b"x" * 2_000_000),
    "data escaping": with_(data=b'{"number":1}, "id": "x"'),
    "data wrong type": with_(data=b'{"number":"seven"}'),
    "no data": with_(data=None),
    "no id": with_(id=None),
    "timestamp nonsense": with_(timestamp=b"yesterday"),
    "metadata no JSON": with_(metadata=b"}{"),
    "metadata a list": with_(metadata=b"[]"),
    "metadata escaping": with_(metadata=b'{},"id":"x"'),
    "correlation bytes": with_(correlation_id=b"\xff"),
    "repeated": [*with_(), b"event_type", ORDER],
    "many fields": [*with_(), *(part for number in range(5_000) for part in (b"f", b"%d" % number))],
}


@pytest.mark.parametrize("raw", JUNK.values(), ids=JUNK.keys())
async def test_a_bad_entry_among_good_ones_becomes_a_dead_letter(redis: Redis, raw: list[bytes]) -> None:
    router, seen = make_router(redis), []

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)

    async with running(router):
        await make_emitter(redis).emit(DvOrder(number=1))
        entry_id = await add(redis, raw)
        await make_emitter(redis).emit(DvOrder(number=2))
        await until_settled(redis)

    assert seen == [1, 2]
    [letter] = await letters(redis)
    assert (letter[b"reason"], letter[b"handler"]) == (b"deserialization_error", b"")
    assert letter[b"original_msg_id"] == entry_id.encode()
    assert letter[b"error_type"] == b"rapids.exceptions.DeserializationError"
    assert len(letter[b"error"]) <= 4_096 * 4
    assert original_fields([part for pair in letter.items() for part in pair]) == raw
    await check_keys(redis)


async def test_unknown_fields_do_no_harm(redis: Redis) -> None:
    router, seen = make_router(redis), []

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)

    async with running(router):
        await add(redis, [*with_(), b"traceparent", b"00-1-2-01", b"\xff", b"\xff"])
        await add(redis, with_(schema_version=None, metadata=None, correlation_id=None, causation_id=None))
        await until_settled(redis)
    assert seen == [1, 1]


names = st.sampled_from([*GOOD, b"traceparent", b"replay_of", b"", b"\xff"]) | st.binary(max_size=8)
values = st.sampled_from([ORDER, b"dv.payment", b"{}", b'{"number":3}', b"", b"1"]) | st.binary(max_size=60)


@st.composite
def entries(draw: st.DrawFn) -> list[bytes]:
    """Anything from bytes to nearly a good entry."""
    pairs = draw(st.lists(st.tuples(names, values), min_size=1, max_size=8))
    if draw(st.booleans()):
        kept = draw(st.sets(st.sampled_from(list(GOOD)), min_size=6))
        pairs = [(name, value) for name, value in GOOD.items() if name in kept] + pairs[:2]
    return [part for pair in pairs for part in pair]


class OneRouter:
    """A router that runs through all examples of a test, in an event loop of its own."""

    def __init__(self, url: str) -> None:
        self.runner = asyncio.Runner()
        self.seen: list[Any] = []
        self.runner.run(self._open(url))

    async def _open(self, url: str) -> None:
        self.redis = Redis.from_url(url)
        self.router = make_router(self.redis, batch_size=50, dlq_maxlen=None)

        @self.router.on(DvOrder)
        async def handle(event: DvOrder) -> None:
            self.seen.append(event.text)

        self.task = asyncio.create_task(self.router.start())
        await eventually(lambda: self.router.running)

    def close(self) -> None:
        self.runner.run(self._close())
        self.runner.close()

    async def _close(self) -> None:
        await self.router.stop()
        await self.task
        await self.redis.aclose()


@pytest.fixture
def one_router(redis_url: str) -> Iterator[OneRouter]:
    one = OneRouter(redis_url)
    yield one
    one.close()


def test_entries_of_any_bytes_are_processed(one_router: OneRouter) -> None:
    number = 0

    @settings(suppress_health_check=list(HealthCheck))
    @given(st.lists(entries(), min_size=1, max_size=15))
    def check(junk: list[list[bytes]]) -> None:
        nonlocal number
        number += 1
        one_router.runner.run(between_good_ones(junk, number))

    async def between_good_ones(junk: list[list[bytes]], number: int) -> None:
        redis, emitter = one_router.redis, make_emitter(one_router.redis)
        await redis.xtrim(STREAM, maxlen=0, approximate=False)
        await redis.xtrim(DLQ, maxlen=0, approximate=False)
        added: dict[str, list[bytes]] = {}
        for index, raw in enumerate(junk):
            await emitter.emit(DvOrder(text=f"{number}/{index}"))
            added[await add(redis, raw)] = raw
        await emitter.emit(DvOrder(text=f"{number}/last"))
        await until_settled(redis)

        good = [text for text in one_router.seen if text.startswith(f"{number}/")]
        assert good == [*(f"{number}/{index}" for index in range(len(junk))), f"{number}/last"]
        for _, letter in await call(SharedPool(redis, DLQ), "XRANGE", DLQ, "-", "+"):
            values = dict(zip(letter[::2], letter[1::2], strict=True))
            assert original_fields(letter) == added.pop(as_text(values[b"original_msg_id"]))
        for raw in added.values():  # the rest could be read, or was of a type without a handler
            types = [value for name, value in zip(raw[::2], raw[1::2], strict=True) if name == b"event_type"]
            assert len(types) == 1

    check()


@pytest.mark.parametrize("fields", [10_000, 60_000])
async def test_an_entry_of_very_many_fields_becomes_a_dead_letter(redis: Redis, fields: int) -> None:
    router = make_router(redis)

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None: ...

    junk = [f"f{number}".encode() for number in range(2 * fields - 4)]
    async with running(router):
        await add(redis, [b"event_type", DvOrder.event_type.encode(), b"data", b"{", *junk])
        await until_settled(redis)
    assert len(await letters(redis)) == 1
