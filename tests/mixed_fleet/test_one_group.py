"""Both kinds in one group at the same time: each event is handled, no matter which one dies or fails."""

from __future__ import annotations

import signal

import pytest
from redis.asyncio import Redis

from tests.mixed_fleet.fleet import GROUP, STREAM, Fleet, Kind
from tests.support import eventually
from tests.worker.helpers import settled

BOTH_WAYS = pytest.mark.parametrize(("first", "second"), [("old", "new"), ("new", "old")])


async def all_settled(fleet: Fleet, timeout: float = 30.0) -> None:
    await eventually(lambda: settled(fleet.redis, STREAM, GROUP), timeout)


async def test_under_load_nothing_is_lost_and_nothing_repeated(fleet: Fleet) -> None:
    services = [await fleet.old(claim_min_idle_ms=20_000), await fleet.new(claim_min_idle_ms=20_000)]
    services += [await fleet.old(claim_min_idle_ms=20_000), await fleet.new(claim_min_idle_ms=20_000, concurrency=20)]

    count = 500
    for at, service in enumerate(services):
        await service.tasks(*range(at * count, (at + 1) * count), wait=False, star="sleep:0.001")
    await eventually(lambda: len(fleet.done()) == len(services) * count)
    await all_settled(fleet)

    assert set(fleet.done()) == set(range(len(services) * count))
    assert {number for number, times in fleet.done().items() if times > 1} == set()
    assert all(service.done() for service in services), "one of them did nothing"
    assert await fleet.letters() == []


async def test_under_load_and_kills_nothing_is_lost(fleet: Fleet) -> None:
    """Duplicates are what was in flight with those that were killed: a batch of ten, or what runs concurrently."""
    emitter = await fleet.new(handlers={}, group="emitters")
    kills, count = 6, 900
    alive = [await fleet.old(), await fleet.new(), await fleet.old(), await fleet.new()]
    for part in range(kills):
        await emitter.tasks(*range(part * 150, (part + 1) * 150), star="sleep:0.002")
        victim = alive.pop(0)
        await eventually(lambda victim=victim: victim.done())
        await victim.kill()
        alive.append(await (fleet.old() if victim.kind == "old" else fleet.new()))
    await eventually(lambda: len(fleet.done()) == count)
    await all_settled(fleet)

    assert set(fleet.done()) == set(range(count))
    assert sum(fleet.done().values()) - count <= kills * 10
    assert await fleet.letters() == []
    assert await fleet.kept_in_other_keys() == set()


@BOTH_WAYS
async def test_entries_of_a_killed_process_are_taken_over(fleet: Fleet, first: Kind, second: Kind) -> None:
    start = {"old": fleet.old, "new": fleet.new}
    victim = await start[first]()
    await victim.tasks(*range(10), **{first: "sleep:60"})
    await eventually(victim.began)
    heir = await start[second]()
    await victim.kill()

    await eventually(lambda: len(heir.done()) == 10)
    await all_settled(fleet)

    assert sorted(heir.done()) == list(range(10))


@BOTH_WAYS
async def test_an_entry_that_fails_in_one_is_delivered_to_the_other(fleet: Fleet, first: Kind, second: Kind) -> None:
    start = {"old": fleet.old, "new": fleet.new}
    patience = {"new": {"redelivery_backoff": 60.0}, "old": {"claim_min_idle_ms": 60_000}}
    failing = await start[first](**patience[first])
    await failing.tasks(1, **{first: "fail"})
    await eventually(failing.began)
    rescuer = await start[second]()

    await eventually(lambda: rescuer.done() == [1])
    await all_settled(fleet)

    assert await fleet.letters() == []


async def test_deliveries_of_both_count_together(fleet: Fleet) -> None:
    """Three in the old one, then two in the new one: that makes five, and a letter."""
    old = await fleet.old(claim_min_idle_ms=200)
    await old.tasks(1, star="fail")
    await eventually(lambda: len(old.began()) == 3)
    await old.kill()
    new = await fleet.new(claim_min_idle_ms=200)

    [letter] = await eventually(fleet.letters)

    assert len(new.began()) == 2
    assert letter[b"deliveries"] == b"5"
    assert letter[b"handler"] == b"work"
    assert letter[b"reason"] == b"max_deliveries_exceeded"


async def test_an_old_one_repeats_all_handlers_of_an_event_and_a_new_one_what_failed(fleet: Fleet) -> None:
    both = {"handlers": {"one": "FleetTask", "two": "FleetTask"}}
    new = await fleet.new(**both, redelivery_backoff=0.01)
    await new.tasks(1, new_two="fail")
    await eventually(lambda: len(new.began()) >= 4)
    await new.kill()

    assert new.done() == [1]
    old = await fleet.old(**both, claim_min_idle_ms=50)
    await all_settled(fleet)

    assert old.done() == [1, 1]


@BOTH_WAYS
async def test_a_process_without_a_handler_for_a_type_acknowledges_it(fleet: Fleet, first: Kind, second: Kind) -> None:
    """So a group's services learn of a new type all together, or not while they are mixed."""
    start = {"old": fleet.old, "new": fleet.new}
    ignorant = await start[first](handlers={"other": "FleetParcel"})
    await ignorant.tasks(1)
    await all_settled(fleet)
    other = await start[second]()
    await other.tasks(2)
    await eventually(lambda: 2 in other.done() or await_acked(fleet))

    assert 1 not in fleet.done()


async def await_acked(fleet: Fleet) -> bool:
    return await settled(fleet.redis, STREAM, GROUP)


async def test_a_lease_that_is_renewed_is_not_stolen(fleet: Fleet) -> None:
    """A new one renews three times in its own `claim_min_idle_ms`: an old one with the same setting sees it at work."""
    new = await fleet.new()
    await new.tasks(1, star="sleep:4")
    await eventually(new.began)
    old = await fleet.old()

    await eventually(new.done)

    assert old.began() == []


async def test_an_old_one_with_a_shorter_idle_time_steals_what_a_new_one_works_on(fleet: Fleet, redis: Redis) -> None:
    new = await fleet.new(claim_min_idle_ms=60_000)
    await new.tasks(1, new="sleep:60")
    await eventually(new.began)
    old = await fleet.old(claim_min_idle_ms=500)

    await eventually(lambda: old.done() == [1])


async def test_a_new_one_takes_what_an_old_one_still_works_on_after_its_idle_time(fleet: Fleet) -> None:
    """An old one renews nothing: the last of its batch is idle while it works on the others."""
    old = await fleet.old()
    await old.tasks(*range(5), old="sleep:2", as_list=True)
    await eventually(old.began)
    await fleet.new()
    await eventually(lambda: len(fleet.done()) == 5 and sum(fleet.done().values()) > 5)
    await all_settled(fleet)

    assert set(fleet.done()) == set(range(5))


async def test_with_an_idle_time_longer_than_a_batch_takes_nothing_is_repeated(fleet: Fleet) -> None:
    old = await fleet.old(claim_min_idle_ms=20_000)
    await old.tasks(*range(5), old="sleep:0.5", as_list=True)
    await eventually(old.began)
    await fleet.new(claim_min_idle_ms=20_000)
    await eventually(lambda: len(fleet.done()) == 5)
    await all_settled(fleet)

    assert set(fleet.done().values()) == {1}


async def test_a_suspended_process_is_not_waited_for(fleet: Fleet) -> None:
    old = await fleet.old()
    new = await fleet.new(claim_min_idle_ms=500)
    await new.tasks(*range(20), old="sleep:0.3", wait=False)
    await eventually(old.began)
    old.signal(signal.SIGSTOP)
    await eventually(lambda: set(new.done()) | set(old.done()) == set(range(20)))
    await all_settled(fleet)
    old.signal(signal.SIGCONT)
    await old.tasks(21)
    await eventually(lambda: 21 in fleet.done())
