"""Any bytes in a stream, with good entries between: the good are handled, the bad are dead letters, byte for byte.

What decoding makes of any bytes is tested in `tests/wire`, and single cases of replays in `tests/dead_letters`; here it
all goes through a running router.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import model_validator
from redis.asyncio import Redis

from rapids import BaseEvent, DeadLetterQueue, EventRouter
from rapids._wire.encoding import encode
from rapids._wire.letter_format import original_fields
from rapids.backoff import constant
from tests.model.bad_input import (
    Flat,
    MoReading,
    bad_entries,
    flat,
    good_fields,
    hostile_names,
    nobodys_entries,
    values,
)
from tests.model.profiles import by_profile, slow_examples
from tests.worker.helpers import add, as_text, letters, running, until_settled

pytestmark = pytest.mark.slow

STREAM, GROUP, DLQ = "mo:bad", "mo-bad", "mo:bad-letters"

PROFILE = settings(
    slow_examples(quick=15, deep=60, thorough=1_000),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],  # huge entries are the point
)
PATIENCE = by_profile(quick=300, deep=600, thorough=1_800)


class Bench:
    """A running router, and what its handler got."""

    def __init__(self, redis: Redis, **options: Any) -> None:
        self.redis = redis
        self.seen: Counter[Any] = Counter()
        self.router = EventRouter(
            redis, stream=STREAM, group=GROUP, dlq_stream=DLQ, block_ms=50, redelivery_backoff=constant(0.01), **options
        )
        self.queue = DeadLetterQueue(redis, DLQ)

    async def append(self, raw: Sequence[bytes]) -> str:
        return await add(self.redis, raw, STREAM)

    async def settled(self) -> None:
        await until_settled(self.redis, STREAM, GROUP)

    async def letters(self) -> dict[str, Any]:
        """For each entry the fields of its letter."""
        found = await letters(self.redis, DLQ)
        by_entry = {letter[b"original_msg_id"].decode(): letter for letter in found}
        assert len(by_entry) == len(found), "an entry has more than one letter"
        return by_entry

    async def empty(self) -> None:
        self.seen.clear()
        await self.redis.xtrim(STREAM, maxlen=0, approximate=False)
        await self.redis.delete(DLQ)


kinds = st.one_of(
    st.tuples(st.just("bad"), bad_entries()),
    st.tuples(st.just("bad"), bad_entries()),
    st.tuples(st.just("nobody's"), nobodys_entries()),
)


async def check_mixture(bench: Bench, mixture: Sequence[tuple[str, Flat]]) -> None:
    bad: dict[str, Flat] = {}
    for number, (kind, raw) in enumerate(mixture):
        await bench.append(flat(good_fields(number)))
        entry_id = await bench.append(raw)
        if kind == "bad":
            bad[entry_id] = raw
    await bench.append(flat(good_fields(len(mixture))))
    await bench.settled()

    assert bench.seen == Counter(range(len(mixture) + 1))
    letters = await bench.letters()
    assert set(letters) == set(bad)
    for entry_id, letter in letters.items():
        assert original_fields([part for pair in letter.items() for part in pair]) == bad[entry_id]
        read = await bench.queue.get(letter[b"letter_id"].decode())
        assert (read.reason, read.handler, read.stream) == ("deserialization_error", "", STREAM)
        assert (read.group, read.entry_id, read.replay_of) == (GROUP, entry_id, None)


@pytest.mark.timeout(PATIENCE)
def test_good_entries_among_bad_ones(redis_url: str) -> None:
    with asyncio.Runner() as runner:
        redis = Redis.from_url(redis_url)
        bench = Bench(redis)

        @bench.router.on(MoReading)
        async def handle(event: MoReading) -> None:
            bench.seen[event.number] += 1

        @PROFILE
        @given(mixture=st.lists(kinds, min_size=1, max_size=8))
        def check(mixture: list[tuple[str, Flat]]) -> None:
            runner.run(check_mixture(bench, mixture))
            runner.run(bench.empty())

        work = running(bench.router)
        runner.run(work.__aenter__())
        try:
            check()
        finally:
            runner.run(work.__aexit__(None, None, None))
            runner.run(redis.aclose())


# --- replayed once a migration can read it --------------------------------------------------------------------------


def invoice_of(version: int) -> type[BaseEvent]:
    """The class as it is deployed first, which cannot read what an older service wrote, and as it is fixed."""
    if version == 2:

        class MoInvoice(BaseEvent):
            schema_version: ClassVar[int] = 2
            cents: int

    else:

        class MoInvoice(BaseEvent):  # type: ignore[no-redef]
            schema_version: ClassVar[int] = 3
            cents: int

            @model_validator(mode="before")
            @classmethod
            def _migrate(cls, data: dict[str, Any]) -> dict[str, Any]:
                if data.pop("_schema_version", 3) < 2:
                    euros, _, cents = str(data.pop("total")).partition(".")
                    data["cents"] = int(euros) * 100 + int(cents)
                return data

    return MoInvoice


def old_invoice(number: int, cents: int, extra: list[tuple[bytes, bytes]]) -> Flat:
    raw = dict(good_fields(number)) | {
        b"event_type": b"mo.invoice",
        b"schema_version": b"1",
        b"data": b'{"total": "%d.%02d"}' % divmod(cents, 100),
    }
    ours = [(name, value) for name, value in dict(extra).items() if name not in raw]
    return flat([*ours[:2], *raw.items(), *ours[2:]])


def bench_of(redis: Redis, invoice: type[Any]) -> Bench:
    bench = Bench(redis)

    @bench.router.on(invoice, name="book")
    async def book(event: Any) -> None:
        bench.seen[event.cents] += 1

    return bench


async def check_migration(redis: Redis, old: dict[int, list[tuple[bytes, bytes]]]) -> None:
    invoice = invoice_of(2)
    before = bench_of(redis, invoice)
    async with running(before.router):
        raw = {
            await before.append(old_invoice(at, cents, extra)): cents for at, (cents, extra) in enumerate(old.items())
        }
        await before.append(encode(invoice(cents=-1), correlation_id=None, causation_id=None))
        await before.settled()
    found = await before.letters()
    assert set(found) == set(raw)
    assert before.seen == {-1: 1}

    after = bench_of(redis, invoice_of(3))
    async with running(after.router):
        for letter in found.values():
            await after.queue.replay(as_text(letter[b"letter_id"]))
        replays = f"{{{STREAM}}}:rapids:replay:{GROUP}"
        await until_settled(redis, replays, GROUP)
    assert after.seen == Counter(raw.values())
    assert await after.letters() == {}
    assert await redis.xlen(replays) == 0
    await after.empty()


extras = st.lists(st.tuples(hostile_names, values), max_size=4)


@pytest.mark.timeout(PATIENCE)
def test_letters_are_replayed_once_a_migration_can_read_them(redis_url: str) -> None:
    with asyncio.Runner() as runner:
        redis = Redis.from_url(redis_url)

        @slow_examples(quick=5, deep=15, thorough=200)
        @given(old=st.dictionaries(st.integers(0, 10**9), extras, min_size=1, max_size=5))
        def check(old: dict[int, list[tuple[bytes, bytes]]]) -> None:
            runner.run(check_migration(redis, old))

        try:
            check()
        finally:
            runner.run(redis.aclose())
