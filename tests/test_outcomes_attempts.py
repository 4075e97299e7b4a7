"""What settling makes of failed attempts: kept with the entry while a handler is to run again, then in its letter."""

from __future__ import annotations

from dataclasses import replace

import orjson
from hypothesis import given
from hypothesis import strategies as st

from rapids._core.attempt_log import NO_ATTEMPTS, Attempt, AttemptLog
from rapids._core.outcomes import (
    Ack,
    Dead,
    Done,
    Failure,
    Keep,
    Ledger,
    Outcome,
    Park,
    Reason,
    Release,
    Released,
    RetryAt,
    Settlement,
    settle,
    without_entry,
)

WHY = Failure("ValueError", "why")
FRESH = Ledger()


def failed(*tries: tuple[int, int] | int) -> AttemptLog:
    """Attempts as (delivery, attempt), or a delivery by itself: the first attempt on it."""
    numbers = [(one, 1) if isinstance(one, int) else one for one in tries]
    return AttemptLog.of(*(Attempt(*number, None, "worker", "ValueError", "why") for number in numbers))


def silent(*deliveries: int) -> AttemptLog:
    return AttemptLog.of(*map(Attempt, deliveries))


def retry(handler: str, *tries: tuple[int, int] | int, delay: float = 0.0) -> RetryAt:
    return RetryAt(handler, delay, WHY, failed(*tries))


def dead(handler: str, *tries: tuple[int, int] | int) -> Dead:
    return Dead(handler, Reason.NON_RETRYABLE, WHY, failed(*tries))


def stored(settlement: Settlement, *, now_ms: int = 0) -> Ledger:
    """The ledger as it is found later."""
    waits = tuple(
        replace(wait, delay=0.0, due_ms=now_ms + round(wait.delay * 1000)) if wait.due_ms is None else wait
        for wait in settlement.ledger.waits  # type: ignore[union-attr]
    )
    return Ledger.load(replace(settlement.ledger, waits=waits).dump())


def letters_of(settlement: Settlement) -> dict[str, AttemptLog]:
    assert isinstance(settlement, Ack | Keep | Release)
    return {letter.handler: letter.attempts for letter in settlement.letters}


def test_a_letter_has_every_failed_attempt_the_last_one_included() -> None:
    first = stored(settle([retry("pay", (1, 1), (1, 2)), Done("ship")], FRESH, 1, dead_letters=True))
    second = stored(settle([retry("pay", 2)], first, 2, dead_letters=True))

    third = settle([dead("pay", 3)], second, 3, dead_letters=True)

    assert letters_of(third) == {"pay": failed((1, 1), (1, 2), (2, 1), (3, 1))}


def test_each_handler_has_its_own_attempts() -> None:
    first = stored(settle([retry("pay", 1), retry("mail", 1)], FRESH, 1, dead_letters=True))
    assert dict(first.attempts) == {"pay": failed(1), "mail": failed(1)}

    second = settle([dead("pay", 2), retry("mail", 2)], first, 2, dead_letters=True)

    assert letters_of(second) == {"pay": failed(1, 2)}
    assert dict(stored(second).attempts) == {"mail": failed(1, 2)}
    assert stored(settle([Done("pay"), retry("mail", 2)], first, 2, dead_letters=True)).attempts == (
        ("mail", failed(1, 2)),
    )


def test_an_unrecorded_delivery_is_marked_as_such() -> None:
    first = stored(settle([retry("pay", 2)], FRESH, 2, dead_letters=True))

    later = settle([dead("pay", 5)], first, 5, dead_letters=True)

    expected = AttemptLog(silent(1).kept + failed(2).kept + silent(3, 4).kept + failed(5).kept)
    assert letters_of(later) == {"pay": expected}
    assert [attempt.recorded for attempt in expected.kept] == [False, True, False, False, True]


def test_a_letter_of_a_handler_that_did_not_run_has_its_earlier_deliveries() -> None:
    assert letters_of(settle([dead("pay")], FRESH, 4, dead_letters=True)) == {"pay": silent(1, 2, 3)}


def test_deliveries_for_other_handlers_only_are_not_among_them() -> None:
    first = stored(settle([retry("mail", 1, delay=3600), retry("pay", 1)], FRESH, 1, dead_letters=True))
    second = stored(settle([retry("pay", 2)], first, 2, dead_letters=True), now_ms=1_000)

    third = settle([dead("mail", 3), dead("pay", 3)], second, 3, dead_letters=True, now_ms=3_600_000)

    assert letters_of(third) == {"mail": failed(1, 3), "pay": failed(1, 2, 3)}


def test_an_interrupted_delivery_keeps_what_had_failed_on_it_and_its_number_comes_again() -> None:
    back = settle([Released("pay", failed((1, 1), (1, 2)))], FRESH, 1, dead_letters=True)
    assert isinstance(back, Release)

    later = settle([dead("pay", 1)], stored(back), 1, dead_letters=True)

    assert letters_of(later) == {"pay": failed((1, 1), (1, 2), (1, 1))}


def test_an_entry_released_before_it_ran_keeps_its_attempts() -> None:
    first = stored(settle([retry("mail", 1, delay=3600), retry("pay", 1)], FRESH, 1, dead_letters=True))

    back = Ledger.load(first.released(3, 1_000).dump())  # the second delivery is not recorded

    assert dict(back.attempts) == {"mail": failed(1), "pay": AttemptLog(failed(1).kept + silent(2).kept)}
    assert letters_of(settle([dead("pay", 3)], back, 3, dead_letters=True, now_ms=1_000)) == {
        "pay": AttemptLog(failed(1).kept + silent(2).kept + failed(3).kept)
    }


def test_deliveries_before_a_release_are_in_the_letter() -> None:
    back = Ledger.load(FRESH.released(3, 0).dump())

    assert letters_of(settle([dead("pay", 3)], back, 3, dead_letters=True)) == {
        "pay": AttemptLog(silent(1, 2).kept + failed(3).kept)
    }


def test_a_parked_entry_keeps_its_attempts_for_a_late_letter() -> None:
    first = settle([dead("ship", 1), retry("pay", 1)], FRESH, 1, dead_letters=False)
    parked = settle([Done("pay")], stored(first), 2, dead_letters=False)
    assert isinstance(parked, Park)
    assert dict(stored(parked).attempts) == {"ship": failed(1)}

    late = settle([Done("pay")], stored(first), 2, dead_letters=True)

    assert letters_of(late) == {"ship": failed(1)}
    assert late.ledger.attempts == ()


def test_the_letters_of_a_trimmed_entry_have_its_attempts() -> None:
    first = stored(settle([retry("pay", 1), retry("mail", 1, delay=3600)], FRESH, 1, dead_letters=True))
    kept = settle([retry("pay", 2)], first, 2, dead_letters=True)

    assert letters_of(without_entry(kept)) == {"pay": failed(1, 2), "mail": failed(1)}
    assert letters_of(without_entry(Release(first.released(2, 0)))) == {"pay": failed(1), "mail": failed(1)}


def test_an_entry_that_cannot_be_read_has_the_attempt_to_read_it() -> None:
    unreadable = Dead("", Reason.DESERIALIZATION_ERROR, WHY, failed(2))

    assert letters_of(settle([unreadable], FRESH, 2, dead_letters=True))[""] == AttemptLog(
        silent(1).kept + failed(2).kept
    )


def test_attempts_are_bounded_however_often_a_handler_fails() -> None:
    ledger = FRESH
    for delivery in range(1, 201):
        ledger = stored(
            settle([retry("pay", *((delivery, n) for n in range(1, 4)))], ledger, delivery, dead_letters=True)
        )

    ((_, log),) = ledger.attempts
    assert (len(log.kept), log.left_out) == (20, 600 - 20)
    assert [(one.delivery, one.attempt) for one in log.kept[:6]] == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (196, 1)]


# --- with other versions --------------------------------------------------------------------------------------------

OLDER = {"n": 2, "done": ["ship"], "dead": [], "gave_up": [], "waits": {"pay": {"spent": 2, "due": 1_701_234_567_890}}}


def test_deliveries_an_older_version_recorded_are_left_out() -> None:
    ledger = Ledger.load(orjson.dumps(OLDER))

    assert letters_of(settle([dead("pay", 3)], ledger, 3, dead_letters=True)) == {"pay": failed(3)}


def test_a_ledger_has_what_an_older_version_reads_and_one_thing_more() -> None:
    ledger = replace(Ledger.load(orjson.dumps(OLDER)), attempts=(("pay", failed(1, 2)),))

    dumped = orjson.loads(ledger.dump())

    assert dumped.pop("attempts") == {
        "pay": [[1, 1, 0, "worker", "ValueError", "why"], [2, 1, 0, "worker", "ValueError", "why"]]
    }
    assert dumped == OLDER


def test_a_ledger_without_attempts_is_as_an_older_version_writes_it() -> None:
    assert orjson.loads(Ledger.load(orjson.dumps(OLDER)).dump()) == OLDER


# --- the life of an entry, as a model -------------------------------------------------------------------------------

HANDLERS = ("pay", "ship", "mail")
KINDS = ("done", "dead", "retry", "released")


@given(data=st.data())
def test_every_letter_has_each_failed_attempt_of_its_handler_once(data: st.DataObject) -> None:
    """Redeliver an entry to handlers that fail, are interrupted, or die with their process."""
    expected = dict.fromkeys(HANDLERS, NO_ATTEMPTS)
    ledger, deliveries, unsettled, now = FRESH, 0, list[int](), 0
    for _ in range(10):
        deliveries += 1
        if data.draw(st.integers(0, 3)) == 0:
            unsettled.append(deliveries)
            continue
        outcomes = list[Outcome]()
        for handler in HANDLERS:
            if handler in ledger.finished or ledger.waits_for(handler, now):
                continue
            kind, tries = data.draw(st.sampled_from(KINDS)), failed((deliveries, 1), (deliveries, 2))
            if kind != "done":
                expected[handler] = expected[handler].then(silent(*unsettled)).then(tries)
            match kind:
                case "done":
                    outcomes.append(Done(handler))
                case "dead":
                    outcomes.append(Dead(handler, Reason.NON_RETRYABLE, WHY, tries))
                case "retry":
                    outcomes.append(RetryAt(handler, data.draw(st.integers(0, 3)), WHY, tries))
                case _:
                    outcomes.append(Released(handler, tries))
        settled = settle(outcomes, ledger, deliveries, dead_letters=True, now_ms=now)
        for handler, log in letters_of(settled).items():
            assert log == expected[handler]
        if isinstance(settled, Ack):
            return
        assert isinstance(settled, Keep | Release)
        if isinstance(settled, Release):
            deliveries -= 1
        ledger, unsettled = stored(settled, now_ms=now), []
        now += round(settled.delay * 1000) if isinstance(settled, Keep) else 0
        assert dict(ledger.attempts) == {
            handler: expected[handler] for handler in HANDLERS if expected[handler] and handler not in ledger.finished
        }
