"""Rolling out, rolling back, and what each leaves for the other."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from rapids import DeadLetterQueue
from tests.mixed_fleet.fleet import DLQ, GROUP, STREAM, Fleet, Kind, Service
from tests.support import eventually
from tests.worker.helpers import consumers, settled

BOTH_WAYS = pytest.mark.parametrize(("first", "second"), [("old", "new"), ("new", "old")])


async def all_settled(fleet: Fleet) -> None:
    await eventually(lambda: settled(fleet.redis, STREAM, GROUP))


@BOTH_WAYS
async def test_the_next_process_continues_at_the_position_of_the_group(fleet: Fleet, first: Kind, second: Kind) -> None:
    start = {"old": fleet.old, "new": fleet.new}
    emitter = await fleet.new(group="emitters", handlers={})
    before = await start[first]()
    await emitter.tasks(*range(20))
    await eventually(lambda: len(before.done()) == 20)
    await all_settled(fleet)
    await before.stop()
    await emitter.tasks(*range(20, 40))

    after = await start[second]()
    await eventually(lambda: len(after.done()) == 20)

    assert after.done() == list(range(20, 40))
    assert before.done() == list(range(20))


@BOTH_WAYS
async def test_a_rollout_under_load_loses_nothing(fleet: Fleet, first: Kind, second: Kind) -> None:
    """One after another is stopped, and one of the other kind started for it."""
    start = {"old": fleet.old, "new": fleet.new}
    emitter = await fleet.new(group="emitters", handlers={})
    serving = [await start[first]() for _ in range(3)]
    await emitter.tasks(*range(300), wait=False, star="sleep:0.005")
    for step in range(3):
        await eventually(lambda step=step: len(fleet.done()) > 60 * step)
        await serving.pop(0).stop()
        serving.append(await start[second]())
    await eventually(lambda: len(fleet.done()) == 300)
    await all_settled(fleet)

    assert set(fleet.done()) == set(range(300))
    assert await fleet.letters() == []
    # An old one settles what the last new one released at its stop, and does not know the other keys of it.
    left = set() if second == "new" else {f"{{{STREAM}}}:rapids:{part}:{GROUP}" for part in ("ledger", "due")}
    assert await fleet.kept_in_other_keys() <= left


async def test_an_old_one_that_stops_leaves_what_it_had_to_be_reclaimed(fleet: Fleet) -> None:
    """It interrupts the running handler at once, and gives nothing back."""
    old = await fleet.old()
    await old.tasks(*range(5), old="sleep:60", as_list=True)
    await eventually(old.began)
    await old.stop()
    assert await fleet.pending() == {old.name: 5}

    new = await fleet.new()
    await eventually(lambda: len(new.done()) == 5)

    assert old.done() == []


async def test_entries_that_a_new_process_releases_are_taken_by_an_old_one(fleet: Fleet) -> None:
    """After its idle time. No delivery is counted for a released entry."""
    new = await fleet.new(shutdown_timeout=0.2)
    ids = await new.tasks(*range(5), new="sleep:60", as_list=True)
    await eventually(new.began)
    await new.stop()
    assert await fleet.pending() == {"rapids:waiting": 5}
    assert {await fleet.deliveries(entry_id) for entry_id in ids} == {0}

    old = await fleet.old()
    await eventually(lambda: len(old.done()) == 5)
    await all_settled(fleet)

    assert sorted(old.done()) == list(range(5))


async def test_the_keys_a_new_process_leaves_harm_no_old_one_and_serve_the_next(fleet: Fleet, redis: Redis) -> None:
    """A retry, which an old one takes; a replay, which it does not see; and what is kept in other keys."""
    new = await fleet.new(redelivery_backoff=60.0)
    await new.tasks(1, new="refuse")
    await new.tasks(2, new="fail")
    await eventually(fleet.letters)
    await eventually(fleet.kept_in_other_keys)
    await new.stop()
    [letter] = (await DeadLetterQueue(redis, DLQ).list()).items
    await DeadLetterQueue(redis, DLQ).replay(letter.id)

    old = await fleet.old()
    await old.tasks(3)
    await all_settled(fleet)

    assert sorted(old.done()) == [2, 3]
    await old.stop()
    back = await fleet.new()
    await eventually(back.began)
    assert (back.began(), back.reports("began")[0]["handler"]) == ([1], "work")


async def test_ledgers_of_entries_an_old_one_settled_are_deleted_by_the_next_new_one(fleet: Fleet) -> None:
    new = await fleet.new(redelivery_backoff=3.0)
    await new.tasks(1, new="fail")
    await eventually(fleet.kept_in_other_keys)
    await new.stop()
    old = await fleet.old()
    await all_settled(fleet)
    assert await fleet.kept_in_other_keys() != set()

    await fleet.new(consumer_ttl=1)
    await eventually(lambda: is_clean(fleet))

    assert old.done() == [1]


async def is_clean(fleet: Fleet) -> bool:
    return await fleet.kept_in_other_keys() == set()


@BOTH_WAYS
async def test_the_next_one_under_the_same_name_takes_up_what_was_pending_at_once(
    fleet: Fleet, first: Kind, second: Kind
) -> None:
    """As in a container whose host name stays: with the same name there is no idle time to wait for."""
    start = {"old": fleet.old, "new": fleet.new}
    before = await start[first](name="worker", claim_min_idle_ms=60_000)
    await before.tasks(*range(3), **{first: "sleep:60"}, as_list=True)
    await eventually(before.began)
    await before.kill()

    after = await start[second](name="worker", claim_min_idle_ms=60_000)
    await eventually(lambda: len(after.done()) == 3)
    await all_settled(fleet)

    assert after.done() == [0, 1, 2]


async def test_two_processes_with_one_name_run_each_others_entries(fleet: Fleet) -> None:
    """An old one does not say that it holds its name: names must differ."""
    old = await fleet.old(name="worker", claim_min_idle_ms=60_000)
    await old.tasks(1, old="sleep:60")
    await eventually(old.began)

    new = await fleet.new(name="worker", claim_min_idle_ms=60_000)
    await eventually(lambda: new.done() == [1])


async def test_by_default_names_are_not_the_same(fleet: Fleet) -> None:
    """Host name and process id, by both."""
    services = [await fleet.old(names_itself=True), await fleet.new(names_itself=True)]
    await services[0].tasks(*range(100), star="sleep:0.01")
    await all_settled(fleet)

    assert set(await consumers(fleet.redis, STREAM, GROUP)) == {service.name for service in services}


# --- an old one that starts again ------------------------------------------------------------------------------------


async def test_an_old_one_that_starts_from_the_latest_skips_what_the_group_had_not_read(fleet: Fleet) -> None:
    """It sets the whole group to the stream's end whenever it starts. A new one never does."""
    service = await fleet.old(group_start_id="$")
    await service.stop()
    emitter = await fleet.new(group="emitters", handlers={})
    await emitter.tasks(1)

    again = await fleet.new(group_start_id="$")
    await eventually(lambda: again.done() == [1])
    await again.stop()

    await emitter.tasks(2)
    await fleet.old(group_start_id="$")
    await emitter.tasks(3)
    await eventually(lambda: 3 in fleet.done())
    assert 2 not in fleet.done()


# --- consumers that are gone ----------------------------------------------------------------------------------------


async def test_a_new_one_removes_an_old_consumer_that_is_gone_and_owns_nothing(fleet: Fleet) -> None:
    old = await fleet.old()
    await old.tasks(1)
    await all_settled(fleet)
    await old.stop()
    await fleet.new(consumer_ttl=1)

    await eventually(lambda: is_missing(fleet, old))


async def test_a_new_one_removes_no_old_consumer_that_owns_something(fleet: Fleet) -> None:
    owner = await fleet.old(claim_min_idle_ms=60_000)
    await owner.tasks(1, old="sleep:60")
    await eventually(owner.began)
    gone = await fleet.old(claim_min_idle_ms=60_000)
    await gone.tasks(2)
    await eventually(gone.done)
    await gone.stop()
    await fleet.new(consumer_ttl=2, claim_min_idle_ms=60_000)

    await eventually(lambda: is_missing(fleet, gone))

    assert await fleet.pending() == {owner.name: 1}


@pytest.mark.parametrize("block_ms", [0, 100])
async def test_an_old_consumer_that_looks_gone_still_gets_what_comes(fleet: Fleet, block_ms: int) -> None:
    """It owns nothing when it is removed, and its read makes it again.

    So looks one whose `block_ms` is longer than `consumer_ttl`, and before Redis 7.2 any on a quiet stream.
    """
    old = await fleet.old(block_ms=block_ms)
    await old.tasks(0)
    await all_settled(fleet)
    pruner = await fleet.new(consumer_ttl=1 if block_ms == 0 else 0.01)
    await eventually(lambda: is_missing(fleet, old))
    await pruner.stop()

    emitter = await fleet.new(group="emitters", handlers={})
    await emitter.tasks(*range(1, 10))

    await eventually(lambda: len(old.done()) == 10)
    await all_settled(fleet)


async def is_missing(fleet: Fleet, service: Service) -> bool:
    return service.name not in await consumers(fleet.redis, STREAM, GROUP)
