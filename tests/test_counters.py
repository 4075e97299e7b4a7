"""Snapshots of counters, and the numbers behind them, without a server."""

from __future__ import annotations

import threading
from dataclasses import FrozenInstanceError
from itertools import groupby
from typing import Any

import pytest

from rapids import EventEmitter, EventRouter
from rapids._core.counter_state import MAX_EVENT_TYPES, MAX_MEASURED_TYPES, Counts, EventTypes, Times
from rapids._storage.groups import RawEntry
from rapids._storage.keys import Source
from rapids.counters import COUNTERS, HISTOGRAMS, OTHER, UNREADABLE, Counters, Sample

SOURCE = Source("orders", "billing")


def entry(*fields: bytes) -> RawEntry:
    return RawEntry(SOURCE, b"1-1", fields)


def of_type(event_type: bytes) -> RawEntry:
    return entry(b"event_type", event_type, b"data", b"{}")


def totals(counters: Counters) -> dict[str, float]:
    """What is not zero."""
    return {name: total for name in COUNTERS if (total := counters.total(name))}


# --- snapshots ------------------------------------------------------------------------------------------------------

SNAPSHOT = Counters(
    (
        Sample("handled", {"event_type": "a", "handler": "x"}, 1),
        Sample("handled", {"event_type": "a", "handler": "y"}, 2),
        Sample("handled", {"event_type": "b", "handler": "x"}, 4),
        Sample("kept", {}, 8),
    )
)


@pytest.mark.parametrize(
    ("labels", "total"), [({}, 7), ({"event_type": "a"}, 3), ({"handler": "x"}, 5), ({"handler": "z"}, 0)]
)
def test_a_total_is_the_sum_over_what_has_these_labels(labels: dict[str, str], total: int) -> None:
    assert SNAPSHOT.total("handled", **labels) == total


def test_a_counter_or_a_label_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"^name must be one of delivered, .*, not 'handeld'"):
        SNAPSHOT.total("handeld")
    with pytest.raises(ValueError, match=r"^labels of 'acked' must be some of stream, group, not 'handler'"):
        SNAPSHOT.total("acked", handler="x")


@pytest.mark.parametrize("made", [EventRouter(stream="orders", group="billing"), EventEmitter(stream="orders")])
def test_a_snapshot_does_not_change(made: Any) -> None:
    with pytest.raises(FrozenInstanceError):
        made.counters.samples = ()
    for sample in made.counters:
        with pytest.raises(TypeError):
            sample.labels["stream"] = "other"


def test_every_sample_is_of_a_counter_with_its_labels_and_there_from_the_start() -> None:
    samples = list(EventRouter(stream="orders", group="billing").counters)

    assert {sample.name for sample in samples} == {
        *("ignored", "acked", "kept", "handed_back", "lease_lost", "lost", "gaps", "outages", "outage_seconds")
    }
    for sample in samples:
        assert sample.value == 0
        assert tuple(sample.labels) == COUNTERS[sample.name].labels
        assert (sample.labels["stream"], sample.labels["group"]) == ("orders", "billing")


def test_samples_are_names_labels_and_values_those_of_a_counter_together() -> None:
    counts = Counts("orders", "billing")
    for number in range(3):
        counts.of_type(f"type.{number}").failed["charge"] += 1
        counts.delivered([of_type(b"type.%d" % number)])

    names = [name for name, labels, value in counts.counters() if labels and value >= 0]
    assert len([name for name, _ in groupby(names)]) == len(set(names)) > 2


def test_a_counter_says_what_it_is() -> None:
    for name, counter in COUNTERS.items():
        assert counter.name == name
        assert counter.unit
        assert counter.about[0].isupper()
        assert counter.labels[0] == "stream"
    assert COUNTERS["outage_seconds"].unit == "seconds"


# --- event types ----------------------------------------------------------------------------------------------------


def test_any_number_of_event_types_takes_no_more_memory_than_a_thousand() -> None:
    counts = Counts("orders", "billing")
    counts.delivered([of_type(b"hostile.%d" % number) for number in range(5_000)])

    kinds = {sample.labels["event_type"] for sample in counts.counters() if sample.name == "delivered"}
    assert len(kinds) == MAX_EVENT_TYPES + 1
    assert counts.counters().total("delivered") == 5_000
    assert counts.counters().total("delivered", event_type=OTHER) == 4_000
    assert counts.counters().total("delivered", event_type="hostile.7") == 1


def test_a_type_that_is_counted_apart_stays_so() -> None:
    counts = Counts("orders", "billing")
    for _ in range(2):
        counts.delivered([of_type(b"order.placed"), *(of_type(b"hostile.%d" % number) for number in range(2_000))])
    assert counts.counters().total("delivered", event_type="order.placed") == 2


@pytest.mark.parametrize(
    "fields",
    [
        (),
        (b"data", b"{}"),
        (b"event_type", b""),
        (b"event_type", b"\xff"),
        (b"event_type", b"x" * 100_000),
        (b"event_type", b"new", b"event_type", b"new"),
        (b"no_event_type", b"something"),
    ],
)
def test_a_type_that_cannot_be_read_has_a_label_of_its_own(fields: tuple[bytes, ...]) -> None:
    counts = Counts("orders", "billing")
    counts.delivered([of_type(b"order.placed"), entry(*fields)])
    assert counts.counters().total("delivered", event_type=UNREADABLE) == 1


def test_a_type_is_found_wherever_it_stands() -> None:
    counts = Counts("orders", "billing")
    counts.delivered([of_type(b"order.placed"), entry(b"data", b"{}", b"event_type", b"order.placed")])
    assert counts.counters().total("delivered", event_type="order.placed") == 2


def test_a_type_is_never_longer_than_an_events_may_be_and_always_fit_to_be_written() -> None:
    types = EventTypes(lambda name: name)
    assert types.of("x" * 10_000) == OTHER
    assert types.of("\ud800") == types.of("\ud800") == "\\ud800"
    assert types.all() == [OTHER, "\\ud800"]


def test_unknown_handler_names_are_counted_under_one_label() -> None:
    counts = Counts("orders", "billing")
    counts.know_handlers(["charge"])
    assert [counts.handler(name) for name in ("charge", "", "hostile", "hostile2")] == ["charge", "", OTHER, OTHER]


# --- what others count ----------------------------------------------------------------------------------------------


def test_losses_are_counted_by_when_and_so_are_those_of_unknown_size() -> None:
    counts = Counts("orders", "billing")
    counts.lost(3)
    counts.lost(None)
    counts.lost(2, "pending", entry_ids=("1-1", "1-2"))

    counters = counts.counters()
    assert counters.total("lost") == 5
    assert counters.total("lost", when="unread") == 3
    assert counters.total("lost", when="pending") == 2
    assert counters.total("gaps") == 3


def test_outage_seconds_grow_during_an_outage_and_stay() -> None:
    now = 100.0
    counts = Counts("orders", "billing", clock=lambda: now)

    def seconds() -> tuple[float, float]:
        return counts.counters().total("outages"), counts.counters().total("outage_seconds")

    assert counts.outage_ended() == 0
    assert seconds() == (0, 0)
    counts.outage_started("reading", OSError())
    now += 7
    counts.outage_started("settling", OSError())  # the same outage
    assert seconds() == (1, 7)
    now += 3
    assert counts.outage_ended() == 10
    now += 50
    assert seconds() == (1, 10)
    counts.outage_started("reading", OSError())
    now += 5
    assert seconds() == (2, 15)
    assert counts.outage_ended() == 5
    assert seconds() == (2, 15)


def test_a_snapshot_may_be_taken_in_another_thread_while_events_are_counted() -> None:
    counts, stop, failures = Counts("orders", "billing"), threading.Event(), list[BaseException]()

    def scrape() -> None:
        last = 0.0
        try:
            while not stop.is_set():
                total = counts.counters().total("failed")
                assert total >= last
                last = total
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        for number in range(20_000):
            counts.of_type(f"type.{number % 900}").failed[f"handler{number % 50}"] += 1
    finally:
        stop.set()
        thread.join()

    assert failures == []
    assert totals(counts.counters()) == {"failed": 20_000}


# --- histograms -----------------------------------------------------------------------------------------------------


def test_a_time_is_in_the_range_that_ends_with_its_bound_or_above_all() -> None:
    times, bounds = Times("handling"), HISTOGRAMS["handling"].bounds
    for seconds in (0.0, bounds[0], bounds[0] + 1e-9, bounds[-1], bounds[-1] + 1, 1e9):
        times.add(seconds)
    assert times.counts == [2, 1, *[0] * (len(bounds) - 3), 1, 2]
    assert times.sum == pytest.approx(sum((bounds[0], bounds[0], bounds[-1], bounds[-1] + 1, 1e9)))


def test_a_hundred_thousand_event_types_have_no_more_histograms_than_a_hundred() -> None:
    counts = Counts("orders", "billing")
    for number in range(100_000):
        of_type = counts.of_type(f"hostile.{number}")
        counts.begun(of_type, b"1000-0", 1.25)
        counts.times_of(of_type).of_handler("charge").add(0.5)

    measured = counts.counters().distributions
    assert len(measured) == 2 * (MAX_MEASURED_TYPES + 1)
    assert sum(sum(one.counts) for one in measured) == 200_000
    [others] = [one for one in measured if one.labels["event_type"] == OTHER and one.name == "delay"]
    assert sum(others.counts) == 100_000 - MAX_MEASURED_TYPES
    assert others.sum == pytest.approx(0.25 * sum(others.counts))


def test_an_entry_of_the_future_did_not_wait() -> None:
    counts = Counts("orders", "billing")
    counts.begun(counts.of_type("order.placed"), b"5000-3", 1.0)  # the server's clock was set back
    [delay] = counts.counters().distributions
    assert (delay.counts[0], delay.sum) == (1, 0.0)


def test_a_histogram_says_what_it_is() -> None:
    for name, histogram in HISTOGRAMS.items():
        assert (histogram.name, histogram.unit) == (name, "seconds")
        assert histogram.bounds == tuple(sorted(set(histogram.bounds)))
        assert histogram.about[0].isupper()
