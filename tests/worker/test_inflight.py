"""The records of held entries, without a server: which states they take, and what each means for their leases."""

from __future__ import annotations

import pytest

from rapids._core.counter_state import Counts
from rapids._storage.groups import RawEntry
from rapids._storage.keys import Source
from rapids._worker.inflight import HeldEntry, Inflight, State

SOURCE = Source("orders", "billing")
REPLAYS = SOURCE.replays()
OPEN = (State.QUEUED, State.IN_LANE, State.RUNNING)


def entry(number: int, source: Source = SOURCE, deliveries: int = 1) -> RawEntry:
    return RawEntry(source, b"%d-0" % number, (b"event_type", b"order"), deliveries)


@pytest.fixture
def counts() -> Counts:
    return Counts("orders", "billing")


@pytest.fixture
def inflight(counts: Counts) -> Inflight:
    return Inflight([SOURCE, REPLAYS], counts, lease_seconds=10)


def counted(counts: Counts, name: str) -> float:
    return sum(sample.value for sample in counts.counters() if sample.name == name)


def read(inflight: Inflight, *numbers: int, since: float = 0.0) -> list[HeldEntry]:
    return inflight.add_new(SOURCE, [entry(number) for number in numbers], since=since)


def test_a_read_entry_is_held_queued_and_counted(inflight: Inflight, counts: Counts) -> None:
    held = read(inflight, 1, 2)

    assert [one.state for one in held] == [State.QUEUED, State.QUEUED]
    assert inflight.get(SOURCE, b"1-0") is held[0]
    assert inflight.ids(SOURCE) == [b"1-0", b"2-0"]
    assert (len(inflight), counted(counts, "delivered")) == (2, 2)


def test_a_held_entry_is_not_added_twice(inflight: Inflight, counts: Counts) -> None:
    [first] = read(inflight, 1)

    [second] = read(inflight, 1, 2)

    assert second.entry.entry_id == b"2-0"
    assert inflight.get(SOURCE, b"1-0") is first
    assert counted(counts, "delivered") == 2


def test_one_id_in_two_sources_is_two_entries(inflight: Inflight) -> None:
    read(inflight, 1)
    inflight.add_new(REPLAYS, [entry(1, REPLAYS)], since=0.0)

    assert inflight.drop_all(REPLAYS, [b"1-0"]) == 1
    assert len(inflight) == 1


@pytest.mark.parametrize("state", OPEN)
def test_a_later_delivery_takes_the_place_of_an_earlier_one(inflight: Inflight, state: State) -> None:
    [earlier] = read(inflight, 1)
    earlier.enter(state)

    [later] = inflight.add_claimed([entry(1, deliveries=2)], since=1.0)

    assert (earlier.state, later.state) == (State.LOST, State.QUEUED)
    inflight.drop(earlier)
    assert inflight.get(SOURCE, b"1-0") is later


@pytest.mark.parametrize("state", [State.ACKNOWLEDGING, State.SETTLING])
def test_a_delivery_that_is_settled_now_is_not_lost_to_a_later_one(inflight: Inflight, state: State) -> None:
    [earlier] = read(inflight, 1)
    earlier.enter(state)

    [later] = inflight.add_claimed([entry(1, deliveries=2)], since=1.0)

    assert earlier.state is state
    inflight.drop(earlier)  # its answer comes last
    assert inflight.get(SOURCE, b"1-0") is later


def test_a_lost_entry_stays_lost(inflight: Inflight, counts: Counts) -> None:
    [held] = read(inflight, 1)

    assert inflight.lose(held)
    assert not inflight.lose(held)
    held.enter(State.RUNNING)

    assert held.state is State.LOST
    assert (len(inflight), counted(counts, "lease_lost")) == (0, 1)


def test_all_entries_can_be_lost_at_once(inflight: Inflight, counts: Counts) -> None:
    held = [*read(inflight, 1, 2), *inflight.add_new(REPLAYS, [entry(3, REPLAYS)], since=0.0)]

    inflight.lose_all()

    assert {one.state for one in held} == {State.LOST}
    assert (len(inflight), counted(counts, "lease_lost")) == (0, 3)


def test_a_lease_lasts_from_when_it_was_known_to_be_ours(inflight: Inflight) -> None:
    first, second = read(inflight, 1, 2, since=100.0)

    assert inflight.lease_lasts(first, 109.9)
    assert not inflight.lease_lasts(first, 110.0)

    inflight.renewed(SOURCE, [b"1-0", b"9-0"], 105.0)

    assert inflight.lease_lasts(first, 110.0)
    assert not inflight.lease_lasts(second, 110.0)
    assert inflight.freshest_lease == 105.0


def test_the_lease_of_a_lost_entry_does_not_last(inflight: Inflight) -> None:
    [held] = read(inflight, 1, since=100.0)
    inflight.lose(held)

    assert not inflight.lease_lasts(held, 100.0)
    assert inflight.freshest_lease == float("-inf")


def test_an_entry_that_is_being_settled_is_not_open(inflight: Inflight) -> None:
    held = read(inflight, *range(5))
    for one, state in zip(held, (*OPEN, State.ACKNOWLEDGING, State.SETTLING), strict=True):
        one.enter(state)

    found = inflight.open(SOURCE, [*inflight.ids(SOURCE), b"9-0"])

    assert [one.state for one in found] == list(OPEN)


def test_dropping_says_how_many_were_held(inflight: Inflight) -> None:
    read(inflight, 1, 2, 3)

    assert inflight.drop_all(SOURCE, [b"1-0", b"2-0", b"9-0"]) == 2
    assert inflight.ids(SOURCE) == [b"3-0"]
