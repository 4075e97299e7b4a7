"""kill -9 between every two commands of a replay: the letter is dead or replayed, and in the end replayed once."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.cluster.conftest import Place
from tests.cluster.replay_processes import Ended, Job, replay
from tests.cluster.replay_service import ReplayService
from tests.servers.client import connected

pytestmark = pytest.mark.slow

NUMBER = 10_000
OTHER_DATA = {"number": NUMBER}


async def test_a_letter_is_replayed_once_though_its_replay_is_killed_between_any_two_commands(
    place: Place,
) -> None:
    async with connected(place.url) as redis:
        service = ReplayService(redis, place.dlq)
        cuts = [(*cut, data) for data in (None, OTHER_DATA) for cut in await cuts_of(service, place, data)]
        letter_ids = await service.letters(len(cuts))

        jobs = [Job(place.url, place.dlq, one, *cut) for one, cut in zip(letter_ids, cuts, strict=True)]
        assert await replay(jobs) == [Ended("killed")] * len(cuts)

        listed, times = await service.listed(), await service.times_replayed()
        states = {one: (await service.queue.get(one)).state for one in letter_ids}
        assert listed == {one for one in letter_ids if states[one] == "dead"}
        assert {one for one in letter_ids if states[one] == "replayed"} <= set(times)
        assert set(times.values()) == {1}
        assert set(states.values()) == {"dead", "replayed"}, "some were killed too early, and some too late"

        ended = await replay([replace(job, killed_at=0) for job in jobs])
        assert [one.how for one in ended] == ["replayed"] * len(cuts)
        assert await service.times_replayed() == dict.fromkeys(letter_ids, 1)
        assert await service.listed() == set()
        await service.handle_replays()
        numbers = [number if cut[2] is None else NUMBER for number, cut in enumerate(reversed(cuts))]
        assert service.handled == Counter([0, 1, NUMBER, NUMBER, *numbers])


async def cuts_of(service: ReplayService, place: Place, data: dict[str, int] | None) -> list[tuple[int, bool]]:
    """Where a replay can be killed: at which command, and whether before it is sent or after it was answered."""
    for letter_id in await service.letters(2):  # at the first time the server has yet to be given the scripts
        [whole] = await replay([Job(place.url, place.dlq, letter_id, data=data)])
        assert whole.how == "replayed"
    return [(number, answered) for number in range(1, whole.commands + 1) for answered in (False, True)]
