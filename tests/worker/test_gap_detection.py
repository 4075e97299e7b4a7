"""Samples of a stream, without a server: which entries are missing between two, when one is taken, who reports."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from rapids._core.counter_state import Counts
from rapids._core.settings import RouterSettings
from rapids._storage import read_positions
from rapids._storage.groups import RawEntry
from rapids._storage.keys import Source
from rapids._storage.read_positions import Sample
from rapids._worker.losses import Gap, Gaps, gap_in, is_being_cut, unread_share
from tests.worker.gap_reports import ReportedGaps, reported_gaps, warnings
from tests.worker.helpers import (
    GROUP,
    STREAM,
)

# --- what a sample shows --------------------------------------------------------------------------------------------

EVEN = Sample(
    length=100,
    added=100,
    first="1-0",
    last="100-0",
    last_assigned="100-0",
    delivered="10-0",
    read=10,
    lag=90,
    next="11-0",
    later=None,
    is_whole=False,
    is_trimmed=False,
)
"""A hundred entries, ten of them read."""

CUT = replace(EVEN, length=60, first="41-0", next="41-0")
"""The same, of which forty were cut away."""


def uncounted(sample: Sample, later: str | None = None) -> Sample:
    """The same as Redis 6.2 reports it, or any server of a group whose position it does not know."""
    return replace(sample, added=None, read=None, lag=None, later=later)


WHOLE = replace(EVEN, first=None, next=None, is_whole=True)
"""The same as a server that counts reports it while the entry read last is there: it reads no entry for an id."""

NOTHING_READ = replace(EVEN, delivered="0-0", next="1-0", read=None, lag=None)
EMPTY = replace(CUT, length=0, first=None, last=None, next=None)


@pytest.mark.parametrize(
    ("sample", "before", "gap"),
    [
        (EVEN, None, None),
        (WHOLE, None, None),
        (replace(WHOLE, length=20), EVEN, None),
        (CUT, WHOLE, Gap("10-0", "41-0", 30)),
        (replace(CUT, read=None), WHOLE, None),  # where it began before is not known
        (replace(CUT, read=None, first="150-0"), WHOLE, Gap("10-0", "150-0", None)),
        (CUT, None, Gap("10-0", "41-0", 30)),
        (CUT, EVEN, Gap("10-0", "41-0", 30)),
        (replace(CUT, read=40), None, None),  # deleted long before it was there
        (replace(CUT, delivered="41-0", next="42-0", read=11), EVEN, None),  # it has read past it
        (replace(CUT, delivered="40-0", read=40), None, None),  # cut away up to where it has read
        (EMPTY, None, Gap("10-0", None, 90)),
        (replace(EMPTY, delivered="100-0", read=100), EVEN, None),
        # Where the server does not count: only what was seen unread before and is not there any more is certain.
        (uncounted(CUT), None, None),
        (uncounted(CUT), uncounted(EVEN), Gap("10-0", "41-0", None)),
        (uncounted(replace(CUT, first="12-0", next="12-0", delivered="11-0")), uncounted(EVEN), None),
        (
            uncounted(replace(CUT, delivered="20-0")),
            uncounted(EVEN, later="21-0"),
            Gap("20-0", "41-0", None),
        ),
        (uncounted(replace(CUT, delivered="20-0")), uncounted(EVEN), None),
        (
            uncounted(replace(CUT, first="150-0", next="150-0", delivered="20-0", last="160-0")),
            uncounted(EVEN),
            Gap("20-0", "150-0", None),
        ),
        (uncounted(EMPTY), uncounted(EVEN), Gap("10-0", None, None)),
        (uncounted(replace(EMPTY, delivered="100-0")), uncounted(EVEN), None),
        # A new group has no count; what was trimmed since is counted too.
        (replace(NOTHING_READ, length=60, first="41-0", next="41-0"), NOTHING_READ, Gap("0-0", "41-0", 40)),
        (replace(NOTHING_READ, length=60, first="41-0", next="41-0"), None, None),
        (replace(CUT, read=None), replace(EVEN, read=None), Gap("10-0", "41-0", None)),
    ],
)
def test_missing_entries_are_found_between_two_samples(sample: Sample, before: Sample | None, gap: Gap | None) -> None:
    assert gap_in(sample, before) == gap


def test_a_gap_that_an_old_server_does_not_count_is_not_reported_again() -> None:
    assert gap_in(CUT, EVEN, 20) == Gap("10-0", "41-0", 10)
    assert gap_in(CUT, None, 30) is None


@pytest.mark.parametrize(
    ("sample", "share"),
    [
        (EVEN, 0.9),
        (WHOLE, 0.9),
        (CUT, 1.0),
        (EMPTY, 0.0),
        (replace(EVEN, delivered="100-0", next=None, lag=0), 0.0),
        (replace(EVEN, lag=1_000), 1.0),
        (uncounted(replace(EVEN, first="0-1", delivered="75-0", next="76-0")), 0.25),
        (uncounted(replace(EVEN, last="1-5", delivered="1-3", next="1-4")), 0.0),
    ],
)
def test_the_unread_share_of_a_stream_is_computed(sample: Sample, share: float) -> None:
    assert unread_share(sample) == share


@pytest.mark.parametrize(
    ("sample", "is_cut"),
    [
        (EVEN, False),
        (replace(EVEN, first="2-0"), True),
        (replace(EVEN, first="2-0", is_trimmed=True), False),
        (replace(EVEN, first="2-0", length=1_000_000), True),
        (replace(CUT, length=0, first=None), False),
    ],
)
def test_a_stream_that_is_kept_to_a_length_is_recognized(sample: Sample, is_cut: bool) -> None:
    assert is_being_cut(sample, EVEN) is is_cut


def test_a_stream_that_is_much_shorter_than_before_was_cut_once_only() -> None:
    long = replace(EVEN, length=10_000)
    assert not is_being_cut(replace(long, first="2-0", length=9_000), long)
    assert is_being_cut(replace(long, first="2-0", length=9_900), long)
    assert not is_being_cut(long, replace(long, first=None))


@pytest.mark.parametrize(
    ("sample", "is_cut"),
    [
        (WHOLE, False),
        (replace(WHOLE, added=101), True),
        (replace(WHOLE, added=101, is_trimmed=True), False),
        (replace(WHOLE, length=0), False),
        (replace(WHOLE, added=None), False),
    ],
)
def test_a_stream_that_is_kept_to_a_length_is_recognized_by_counts(sample: Sample, is_cut: bool) -> None:
    assert is_being_cut(sample, WHOLE) is is_cut


# --- when it is sampled, and who reports ----------------------------------------------------------------------------


@pytest.fixture
def reported(caplog: pytest.LogCaptureFixture) -> Iterator[ReportedGaps]:
    with caplog.at_level(logging.INFO, "rapids"):
        yield partial(reported_gaps, caplog)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch, counted: Counts) -> Gaps:
    """One that is given samples as they are, as the answers of a server, and takes none for reasons of time."""
    monkeypatch.setattr(read_positions, "sample_in", lambda sample: sample)
    settings = RouterSettings(stream=STREAM, group=GROUP)
    context: Any = SimpleNamespace(sources=[SOURCE], settings=settings, log={}, counts=counted)
    return Gaps(context)


@pytest.fixture
def counted() -> Counts:
    return Counts(STREAM, GROUP)


SOURCE = Source(STREAM, GROUP)
LONG = replace(EVEN, length=5_000, added=5_000, lag=4_990)


def entries(*ids: str) -> list[RawEntry]:
    return [RawEntry(SOURCE, entry_id.encode(), ()) for entry_id in ids]


def test_the_first_read_is_preceded_by_a_sample_and_the_next_is_not(watch: Gaps) -> None:
    assert watch.ahead()
    watch.sampled([LONG])
    watch.read(entries("11-0"))
    assert not watch.ahead()


@pytest.mark.parametrize(
    ("sample", "is_at_risk"),
    [
        (LONG, False),  # it lags, and the stream is not trimmed
        (replace(LONG, added=9_000), True),
        (replace(LONG, added=9_000, lag=2_499), False),
        (replace(LONG, added=9_000, lag=2_500), True),
        (replace(LONG, length=1_000, lag=10), True),  # so short that it may be gone at once
        (replace(LONG, length=1_001, lag=10), False),
        (uncounted(LONG), False),
    ],
)
def test_a_stream_at_risk_is_sampled_before_every_read(watch: Gaps, sample: Sample, is_at_risk: bool) -> None:
    watch.sampled([sample])
    assert bool(watch.ahead()) is is_at_risk
    watch.read(entries("11-0"))
    assert bool(watch.ahead()) is is_at_risk
    watch.sampled([sample])
    watch.read(())  # between an empty read and the next one, no consumer sees new entries
    assert bool(watch.ahead()) is is_at_risk


def test_a_stream_whose_last_entry_was_deleted_is_not_sampled_before_every_read(watch: Gaps) -> None:
    """A sample would end the reads of the other consumers, and their samples this one's."""
    short = replace(LONG, length=1_000)
    watch.sampled([replace(short, last_assigned="101-0")])
    assert not watch.ahead()
    watch.sampled([replace(short, last_assigned="101-0", delivered="101-0")])
    assert watch.ahead()


def test_a_gap_stays_open_until_a_read_passes_it(watch: Gaps) -> None:
    empty = uncounted(EMPTY)
    watch.sampled([uncounted(EVEN)])
    for _ in range(2):
        watch.sampled([empty])
        assert watch.open == Gap("10-0", None, None)
        watch.read(())
        assert watch.open is None
    watch.sampled([replace(empty, length=1, first="101-0", last="101-0", last_assigned="101-0", next="101-0")])
    assert watch.open == Gap("10-0", "101-0", None)
    watch.read(entries("101-0"))
    watch.sampled([replace(empty, length=1, first="101-0", last="101-0", last_assigned="101-0", delivered="101-0")])
    assert watch.open is None


def test_without_a_count_a_stream_is_cut_if_its_first_entry_changed(watch: Gaps) -> None:
    watch.sampled([uncounted(LONG)])
    watch.sampled([uncounted(replace(LONG, first="2-0"))])
    watch.sampled([uncounted(replace(LONG, first="2-0"))])
    assert watch.ahead()


def test_the_consumer_that_gets_the_first_entry_after_a_gap_reports_it(watch: Gaps, reported: Any) -> None:
    watch.sampled([CUT])
    watch.read(entries("42-0", "43-0"))  # another consumer was given 41-0
    assert reported() == []
    watch.sampled([CUT])
    watch.read(())
    watch.read(entries("41-0"))
    assert reported() == []
    watch.sampled([CUT])
    watch.read(entries("41-0", "42-0"))
    watch.read(entries("41-0"))
    assert reported() == [("10-0", "41-0", 30)]


def test_a_gap_that_redis_7_0_does_not_show_is_reported_once(watch: Gaps, reported: Any, counted: Counts) -> None:
    watch.sampled([CUT])
    watch.read(entries("41-0", "42-0"))
    again = replace(CUT, length=20, first="81-0", next="81-0", delivered="42-0", read=12)
    watch.sampled([again])
    watch.read(entries("81-0"))
    again = replace(again, delivered="100-0", read=32)
    watch.sampled([replace(again, next=None)])
    watch.sampled(
        [replace(again, added=200, length=50, first="151-0", next="151-0", last="200-0", last_assigned="200-0")]
    )
    watch.read(entries("151-0"))
    assert [estimated for _, _, estimated in reported()] == [30, 38, 50]
    assert counted.counters().total("lost", when="unread") == 30 + 38 + 50
    assert counted.counters().total("gaps") == 3


def test_a_lagging_group_of_an_uncut_stream_is_not_warned(
    watch: Gaps, reported: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        watch.sampled([LONG])
    assert warnings(caplog) == []
    for first in ("2-0", "3-0"):
        watch.sampled([replace(LONG, added=9_000, first=first)])
    assert len(warnings(caplog)) == 1
    watch.sampled([replace(LONG, added=9_000, first="4-0", lag=2_000)])
    watch.sampled([replace(LONG, added=9_000, first="5-0")])
    assert len(warnings(caplog)) == 2, "it had caught up in between"


def test_nothing_is_reported_for_a_group_that_was_lost_or_set_back(watch: Gaps, reported: Any) -> None:
    for between in (None, replace(uncounted(EVEN), delivered="5-0", next="6-0")):
        watch.sampled([uncounted(replace(EVEN, delivered="50-0", next="51-0"))])
        watch.sampled([between])
        watch.sampled([uncounted(replace(CUT, first="6-0", next="6-0", delivered="5-0"))])
        watch.read(entries("6-0"))
    assert reported() == []
