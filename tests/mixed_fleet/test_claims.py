"""An old service claims whatever was idle for its `claim_min_idle_ms`, also what waits for a retry, or is parked."""

from __future__ import annotations

from tests.mixed_fleet.fleet import DLQ, GROUP, STREAM, Fleet
from tests.support import eventually
from tests.worker.helpers import settled

WAITING, PARKED = "rapids:waiting", "rapids:parked"
TWO = {"one": "FleetTask", "two": "FleetTask"}


async def all_settled(fleet: Fleet) -> None:
    await eventually(lambda: settled(fleet.redis, STREAM, GROUP))


async def kept(fleet: Fleet, entry_id: str, by: str = WAITING) -> None:
    await eventually(lambda: is_held(fleet, entry_id, by))


async def is_held(fleet: Fleet, entry_id: str, by: str) -> bool:
    return await fleet.holder(entry_id) == by


async def test_an_old_one_takes_what_waits_longer_than_its_idle_time(fleet: Fleet) -> None:
    """It knows no due times. The delivery counts, and every handler is run again."""
    new = await fleet.new(handlers=TWO)
    [entry_id] = await new.tasks(1, new_two="later:3600")
    await kept(fleet, entry_id)
    old = await fleet.old(handlers=TWO)

    await all_settled(fleet)

    assert new.done() == [1]
    assert old.done() == [1, 1]


async def test_an_entry_that_an_old_one_took_and_finished_does_not_run_again(fleet: Fleet) -> None:
    new = await fleet.new(handlers=TWO)
    [entry_id] = await new.tasks(1, new_two="later:3")
    await kept(fleet, entry_id)
    old = await fleet.old(handlers=TWO, claim_min_idle_ms=200)
    await eventually(lambda: old.done() == [1, 1])
    await new.tasks(2)

    await eventually(lambda: is_forgotten(fleet))
    await all_settled(fleet)

    assert fleet.began()[1] == 4


async def is_forgotten(fleet: Fleet) -> bool:
    return await fleet.kept_in_other_keys() == set()


async def test_an_entry_that_an_old_one_took_and_failed_keeps_its_ledger(fleet: Fleet) -> None:
    new = await fleet.new(handlers=TWO, redelivery_backoff=3.0)
    [entry_id] = await new.tasks(1, new_two="fail", old="fail")
    await kept(fleet, entry_id)
    old = await fleet.old(handlers=TWO, claim_min_idle_ms=200, max_deliveries=100)
    await eventually(old.began)
    await old.kill()

    [letter] = await eventually(fleet.letters)

    assert new.done() == [1], "the handler that had finished ran again"
    assert letter[b"handler"] == b"two"
    assert await fleet.kept_in_other_keys() == set()


async def test_an_old_one_with_an_idle_time_above_all_waits_leaves_the_waiting_alone(fleet: Fleet) -> None:
    new = await fleet.new(redelivery_backoff=0.7, max_deliveries=4)
    [entry_id] = await new.tasks(1, new="fail")
    await kept(fleet, entry_id)
    old = await fleet.old(claim_min_idle_ms=10_000)

    [letter] = await eventually(fleet.letters)

    assert (new.began(), old.began()) == ([1] * 4, [])
    assert letter[b"deliveries"] == b"4"


async def test_an_old_one_kept_from_claiming_altogether_leaves_the_waiting_alone(fleet: Fleet) -> None:
    """The way to have `RetryAfter` for hours in a mixed fleet."""
    new = await fleet.new()
    [entry_id] = await new.tasks(1, new="later:4")
    await kept(fleet, entry_id)
    old = await fleet.old(claim_min_idle_ms=24 * 3_600_000)

    await eventually(lambda: len(new.began()) == 2)

    assert old.began() == []


async def test_an_old_one_takes_what_is_parked_and_drops_it_if_it_has_no_dead_letter_stream(fleet: Fleet) -> None:
    new = await fleet.new(dlq_stream=None)
    [entry_id] = await new.tasks(1, star="fail")
    await kept(fleet, entry_id, PARKED)
    old = await fleet.old(dlq_stream=None)

    await all_settled(fleet)

    assert old.began() == []
    assert "dropping failed message" in old.complaints
    assert await fleet.redis.exists(DLQ) == 0


async def test_an_old_one_with_a_dead_letter_stream_makes_a_letter_of_what_is_parked(fleet: Fleet) -> None:
    new = await fleet.new(dlq_stream=None, consumer_ttl=1)
    [entry_id] = await new.tasks(1, star="fail")
    await kept(fleet, entry_id, PARKED)
    await fleet.old()

    await all_settled(fleet)

    [letter] = await fleet.letters()
    assert letter[b"original_msg_id"] == entry_id.encode()
    assert letter[b"reason"] == b"max_deliveries_exceeded"
    await eventually(lambda: is_forgotten(fleet))
