"""kill -9 between every two commands of a replay: the letter is dead or replayed, and in the end replayed once."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis

from rapids import DeadLetterQueue, EventEmitter, EventRouter, NonRetryableError, current_delivery
from rapids.storage.keys import Source
from tests.cluster.conftest import Place
from tests.cluster.replaying import Ended, Job, replay
from tests.servers.connecting import connected
from tests.support import eventually
from tests.worker.helpers import GROUP, STREAM, DvOrder, make_router, running, until_settled

REPLAYS = Source(STREAM, GROUP).replays().stream


class Bank:
    """A service whose one handler refuses every order, and takes it when it is replayed."""

    def __init__(self, redis: Redis, dlq: str) -> None:
        self._redis, self._dlq = redis, dlq
        self.handled = Counter[int]()
        """How often each order was, as a replay, by its number."""

    @property
    def queue(self) -> DeadLetterQueue:
        return DeadLetterQueue(self._redis, self._dlq)

    async def letters(self, count: int) -> list[str]:
        """The ids of so many new letters."""
        async with self._running():
            await EventEmitter(self._redis, STREAM).emit([DvOrder(number=number) for number in range(count)])
            await until_settled(self._redis)
        return [letter.id for letter in (await self.queue.list(limit=500)).items]

    async def handle_replays(self) -> None:
        """Handle what was replayed, to the end."""
        async with self._running():
            await eventually(lambda: self._nothing_left())

    async def times_replayed(self) -> Counter[str]:
        """How often each letter was, by its id."""
        return Counter(fields[b"replay_of"].decode() for _, fields in await self._redis.xrange(REPLAYS))

    async def listed(self) -> set[str]:
        return {letter.id for letter in (await self.queue.list(limit=500)).items}

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[EventRouter]:
        router = make_router(self._redis, dlq_stream=self._dlq, batch_size=100, dlq_maxlen=None)

        @router.on(DvOrder)
        async def charge(event: DvOrder) -> None:
            delivery = current_delivery()
            if delivery is None or delivery.replay_of is None:
                raise NonRetryableError("the bank is closed")
            self.handled[event.number] += 1

        async with running(router):
            yield router

    async def _nothing_left(self) -> bool:
        return await self._redis.xlen(REPLAYS) == 0


async def test_a_replay_killed_between_any_two_commands_is_dead_or_replayed_and_in_the_end_replayed_once(
    place: Place,
) -> None:
    async with connected(place.url) as redis:
        bank = Bank(redis, place.dlq)
        for letter_id in await bank.letters(2):  # at the first time the server has yet to be given the scripts
            [whole] = await replay([Job(place.url, place.dlq, letter_id)])
            assert whole.how == "replayed"
        cuts = [(number, answered) for number in range(1, whole.commands + 1) for answered in (False, True)]
        letter_ids = await bank.letters(len(cuts))

        jobs = [Job(place.url, place.dlq, one, *cut) for one, cut in zip(letter_ids, cuts, strict=True)]
        assert await replay(jobs) == [Ended("killed")] * len(cuts)

        listed, times = await bank.listed(), await bank.times_replayed()
        states = {one: (await bank.queue.get(one)).state for one in letter_ids}
        assert listed == {one for one in letter_ids if states[one] == "dead"}
        assert {one for one in letter_ids if states[one] == "replayed"} <= set(times)
        assert set(times.values()) == {1}
        assert set(states.values()) == {"dead", "replayed"}, "some were killed too early, and some too late"

        ended = await replay([Job(place.url, place.dlq, one) for one in letter_ids])
        assert [one.how for one in ended] == ["replayed"] * len(cuts)
        assert await bank.times_replayed() == dict.fromkeys(letter_ids, 1)
        assert await bank.listed() == set()
        await bank.handle_replays()
        assert bank.handled == Counter([0, 1, *range(len(cuts))])
