"""Failed attempts: how many are kept, what of each, and what is made of whatever else may be stored in their place."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapids._core.attempt_log import MAX_STORED, MESSAGE_LIMIT, NAME_LIMIT, NO_ATTEMPTS, Attempt, AttemptLog
from rapids._core.failures import Failure
from rapids._core.outcomes import Ledger

AT = datetime(2026, 1, 1, 12, 0, 0, 250_000, tzinfo=UTC)
DECLINED = Attempt(2, 3, AT, "worker-1", "shop.Declined", "no money")


def numbered(*deliveries: int) -> tuple[Attempt, ...]:
    return tuple(Attempt(delivery, 1, AT, "worker-1", "ValueError", f"no. {delivery}") for delivery in deliveries)


def bounded(attempts: tuple[Attempt, ...]) -> AttemptLog:
    """What is to be kept of all of them."""
    if len(attempts) <= 20:
        return AttemptLog(attempts)
    return AttemptLog(attempts[:5] + attempts[-15:], len(attempts) - 20)


# --- how many -------------------------------------------------------------------------------------------------------


def test_the_first_five_and_the_last_fifteen_attempts_are_kept() -> None:
    log = AttemptLog.of(*numbered(*range(1, 101)))

    assert [attempt.delivery for attempt in log.kept] == [*range(1, 6), *range(86, 101)]
    assert log.left_out == 80


def test_twenty_are_kept_whole() -> None:
    assert AttemptLog.of(*numbered(*range(20))) == AttemptLog(numbered(*range(20)))


@given(st.lists(st.integers(0, 45), max_size=8))
def test_the_kept_attempts_do_not_depend_on_how_they_are_grouped(sizes: list[int]) -> None:
    numbers = itertools.count(1)
    log, expected = NO_ATTEMPTS, list[Attempt]()
    for size in sizes:
        later = numbered(*itertools.islice(numbers, size))
        expected += later
        log = log.then(AttemptLog.of(*later))

    assert log == bounded(tuple(expected))


@given(st.integers(1, 60), st.integers(0, 60))
def test_unrecorded_deliveries_are_bounded_too(first: int, last: int) -> None:
    assert AttemptLog.unrecorded(first, last) == bounded(tuple(map(Attempt, range(first, last + 1))))


def test_very_many_unrecorded_deliveries_cost_nothing() -> None:
    assert AttemptLog.unrecorded(1, 2**50).left_out == 2**50 - 20


# --- what of each ---------------------------------------------------------------------------------------------------


def test_an_attempt_has_its_consumer_time_and_error() -> None:
    before = datetime.now(UTC)
    attempt = Attempt.of(Failure("ValueError", "why", "Traceback"), delivery=2, attempt=3, consumer="worker-1")

    assert attempt == Attempt(2, 3, attempt.at, "worker-1", "ValueError", "why")
    assert attempt.recorded
    assert attempt.at is not None
    assert abs((attempt.at - before).total_seconds()) < 60


def test_huge_texts_are_cut() -> None:
    attempt = Attempt.of(Failure("T" * 4_096, "x" * 4_096), delivery=1, attempt=1, consumer="c" * 100_000)

    assert (attempt.error_type, attempt.error) == ("T" * NAME_LIMIT, "x" * MESSAGE_LIMIT)
    assert attempt.consumer == "c" * NAME_LIMIT


def test_the_largest_that_is_kept_is_read() -> None:
    nul = "\x00" * 4_096
    worst = Attempt.of(Failure(nul, nul), delivery=2**53 - 1, attempt=2**53 - 1, consumer=nul)
    log = AttemptLog.of(*[worst] * 100)

    assert len(log.dump()) < MAX_STORED
    assert AttemptLog.load(log.dump()) == log


def test_a_consumer_whose_name_is_no_text_is_written_with_escapes() -> None:
    attempt = Attempt.of(Failure("ValueError", "why"), delivery=1, attempt=1, consumer="\ud800")

    assert AttemptLog.load(AttemptLog.of(attempt).dump()).kept == (attempt,)


# --- stored and read again ------------------------------------------------------------------------------------------

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
texts = st.text(st.characters(codec="utf-8"), max_size=30)
attempts = st.builds(
    Attempt,
    st.integers(0, 2**53 - 1),
    st.integers(1, 2**53 - 1),
    st.integers(1, 253_402_300_799_999).map(lambda ms: EPOCH + timedelta(milliseconds=ms)),
    *(texts, texts, texts),
) | st.builds(Attempt, st.integers(0, 2**53 - 1))


@given(st.lists(attempts, max_size=30))
def test_stored_attempts_are_read_back(kept: list[Attempt]) -> None:
    log = AttemptLog.of(*kept)
    assert AttemptLog.load(log.dump()) == log


def test_attempts_are_stored_in_few_bytes() -> None:
    assert AttemptLog.of(Attempt(1), DECLINED).dump() == (
        b'[[1],[2,3,1767268800250,"worker-1","shop.Declined","no money"]]'
    )
    assert orjson.loads(AttemptLog(numbered(*range(20)), 7).dump())[5] == 7


HOSTILE: list[Any] = [
    None,
    0,
    7,
    "x",
    {},
    {"1": 2},
    [],
    [None],
    [[]],
    [[[]]],
    [{}],
    [True],
    [[True]],
    [[-1]],
    [[1.5]],
    [["1"]],
    [2**60],
    [[2**60]],
    [[1, 1]],
    [[1, 1, 1, "c", "t"]],
    [[1, 1, 1, "c", "t", None]],
    [[1, 1, 1, "c", 7, "e"]],
    [[1, 1, None, "c", "t", "e"]],
    [[1, 0, 1, "c", "t", "e"]],
    [[1, 1, 1, ["c"], {"t": 1}, "e"]],
    [7] * 100_000,
    [[]] * 100_000,
]


@pytest.mark.parametrize("stored", HOSTILE, ids=lambda stored: repr(stored)[:30])
def test_any_other_stored_value_reads_as_no_attempts(stored: Any) -> None:
    assert AttemptLog.read(stored) == NO_ATTEMPTS
    assert AttemptLog.load(orjson.dumps(stored)) == NO_ATTEMPTS
    for attempts in (stored, {"pay": stored}):
        ledger = {"n": 1, "done": ["book"], "dead": [], "gave_up": [], "attempts": attempts}
        assert Ledger.load(orjson.dumps(ledger)) == Ledger(frozenset({"book"}), recorded=1)


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"x", b"\xff", b'["\\ud800"]', b"[" * 2_000, b"[" * 100_000 + b"]" * 100_000),
        b'{"a":' * 50_000,
        b"[[1]" + b" " * MAX_STORED + b"]",
        b"[[1e400]]",
        b"[[" + b"9" * 5_000 + b"]]",
    ],
    ids=lambda raw: repr(raw[:12]),
)
def test_unknown_or_too_large_json_reads_as_no_attempts(raw: bytes) -> None:
    assert AttemptLog.load(raw) == NO_ATTEMPTS


def test_too_many_attempts_are_cut_after_the_first_and_texts_are_shortened() -> None:
    row = [1, 1, 1, "c" * 1_000, "t" * 1_000, "e" * 1_000, "more", ["to", "come"]]

    log = AttemptLog.read([row] * 1_000)

    assert len(log.kept) <= 21
    assert {(len(one.consumer), len(one.error_type), len(one.error)) for one in log.kept} == {
        (NAME_LIMIT, NAME_LIMIT, MESSAGE_LIMIT)
    }


def test_an_attempt_with_an_impossible_time_is_read_without_it() -> None:
    (attempt,) = AttemptLog.read([[1, 1, 2**53 - 1, "c", "t", "e"]]).kept
    assert attempt == Attempt(1, 1, None, "c", "t", "e")


json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(texts, inner, max_size=3),
)


@given(json)
def test_any_json_is_read_as_some_attempts_that_can_be_stored_again(stored: Any) -> None:
    log = AttemptLog.read(stored)
    assert AttemptLog.load(log.dump()) == log
