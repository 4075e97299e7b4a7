"""The settlement rules as a pure model, and the ledger."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
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
    Wait,
    settle,
    without_entry,
)

WHY = Failure("ValueError", "why")
HANDLERS = ("pay", "ship", "audit", "mail")
FRESH = Ledger()


def dead(handler: str, attempts: AttemptLog = NO_ATTEMPTS) -> Dead:
    return Dead(handler, Reason.NON_RETRYABLE, WHY, attempts)


def retry(handler: str, delay: float = 2.0, attempts: AttemptLog = NO_ATTEMPTS) -> RetryAt:
    return RetryAt(handler, delay, WHY, attempts)


def silent(*deliveries: int) -> AttemptLog:
    """Deliveries without a record."""
    return AttemptLog.of(*map(Attempt, deliveries))


def outcome_of(handler: str) -> st.SearchStrategy[Outcome]:
    return st.one_of(
        st.just(Done(handler)),
        st.builds(Dead, st.just(handler), st.sampled_from(Reason), st.just(WHY)),
        st.builds(RetryAt, st.just(handler), st.floats(0, 3600), st.just(WHY), spends=st.booleans()),
        st.just(Released(handler)),
    )


# --- one delivery, by example ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dead_letters", [True, False])
@pytest.mark.parametrize("outcomes", [[], [Done("pay")], [Done("pay"), Done("ship")]])
def test_when_every_handler_is_done_the_entry_is_acked(outcomes: list[Outcome], dead_letters: bool) -> None:
    assert settle(outcomes, FRESH, 1, dead_letters=dead_letters) == Ack()


def test_a_dead_handler_gives_a_letter_and_the_last_one_acks() -> None:
    assert settle([Done("pay"), dead("ship")], FRESH, 1, dead_letters=True) == Ack((dead("ship"),))


def test_a_partial_failure_is_kept_and_the_ledger_remembers_the_others() -> None:
    settled = settle([Done("pay"), retry("ship", 4), dead("mail"), retry("audit", 2)], FRESH, 1, dead_letters=True)

    waits = (Wait("audit", 1, 2), Wait("ship", 1, 4))
    assert settled == Keep(2, Ledger(frozenset({"pay"}), frozenset({"mail"}), 1, waits=waits), (dead("mail"),))


def test_handlers_finished_on_an_earlier_delivery_stay_finished() -> None:
    earlier = Ledger(frozenset({"pay"}), frozenset({"mail"}), 1)

    settled = settle([Done("ship"), retry("audit")], earlier, 2, dead_letters=True)

    waits, attempts = (Wait("audit", 2, 2),), (("audit", silent(1)),)
    assert settled == Keep(2, Ledger(frozenset({"pay", "ship"}), frozenset({"mail"}), 2, frozenset(), waits, attempts))
    assert settled.ledger.finished == {"pay", "ship", "mail"}


def test_without_a_queue_an_exhausted_entry_is_parked_never_acked() -> None:
    settled = settle([Done("pay"), dead("ship")], FRESH, 1, dead_letters=False)

    assert settled == Park(Ledger(frozenset({"pay"}), recorded=1, gave_up=frozenset({"ship"})), (dead("ship"),))


def test_without_a_queue_an_entry_is_parked_only_after_all_handlers_finished() -> None:
    first = settle([dead("ship"), retry("pay")], FRESH, 1, dead_letters=False)
    assert first == Keep(2, Ledger(recorded=1, gave_up=frozenset({"ship"}), waits=(Wait("pay", 1, 2),)))

    assert settle([Done("pay")], first.ledger, 2, dead_letters=False) == Park(
        Ledger(frozenset({"pay"}), recorded=2, gave_up=frozenset({"ship"}))
    )


def test_a_handler_that_died_without_a_queue_gets_its_letter_later() -> None:
    first = settle([dead("ship"), retry("pay")], FRESH, 1, dead_letters=False)
    assert isinstance(first, Keep)

    later = settle([Done("pay")], first.ledger, 2, dead_letters=True)

    assert isinstance(later, Ack)
    assert [letter.handler for letter in later.letters] == ["ship"]
    assert "when there was no dead-letter stream" in later.letters[0].failure.message


def test_a_late_letter_is_written_once_though_others_wait_on() -> None:
    first = settle([dead("ship"), retry("pay")], FRESH, 1, dead_letters=False)
    assert isinstance(first, Keep)

    second = settle([retry("pay")], first.ledger, 2, dead_letters=True)

    assert isinstance(second, Keep)
    assert [letter.handler for letter in second.letters] == ["ship"]
    assert second.ledger == Ledger(dead=frozenset({"ship"}), recorded=2, waits=(Wait("pay", 2, 2),))
    assert settle([Done("pay")], second.ledger, 3, dead_letters=True) == Ack()


def test_an_ack_with_letters_names_finished_handlers_in_case_the_lease_is_lost() -> None:
    settled = settle([Done("pay"), dead("ship")], Ledger(frozenset({"audit"})), 2, dead_letters=True)

    assert isinstance(settled, Ack)
    assert settled.ledger.done == {"audit", "pay"}


def test_an_entry_that_never_ran_is_released_without_spending_a_delivery() -> None:
    settled = settle([Done("pay"), Released("ship")], FRESH, 3, dead_letters=True)

    assert settled == Release(Ledger(frozenset({"pay"}), frozenset(), 2, attempts=(("ship", silent(1, 2)),)))


def test_a_letter_is_written_even_when_the_entry_is_released() -> None:
    settled = settle([dead("pay"), Released("ship")], FRESH, 1, dead_letters=True)

    assert settled == Release(Ledger(frozenset(), frozenset({"pay"}), 0), (dead("pay"),))


def test_a_failure_counts_although_another_handler_was_interrupted() -> None:
    settled = settle([retry("pay", 8), Released("ship")], FRESH, 2, dead_letters=True)

    attempts = (("pay", silent(1)), ("ship", silent(1)))
    assert settled == Keep(0, Ledger(recorded=2, waits=(Wait("pay", 2, 8), Wait("ship", 1)), attempts=attempts))
    assert isinstance(settled, Keep)
    assert settled.ledger.deliveries_of("ship", 3) == 2
    assert settled.ledger.deliveries_of("pay", 3) == 3


def test_a_long_wait_of_one_handler_is_kept_though_another_is_retried_sooner() -> None:
    first = stored(settle([retry("mail", 3600), retry("pay", 1)], FRESH, 1, dead_letters=True), now_ms=0)
    assert first.waits_for("mail", 1_000)
    assert not first.waits_for("pay", 1_000)

    second = settle([Done("pay")], first, 2, dead_letters=True, now_ms=1_000)

    assert second == Keep(3599, Ledger(frozenset({"pay"}), recorded=2, waits=(Wait("mail", 1, due_ms=3_600_000),)))
    assert isinstance(second, Keep)
    assert second.ledger.deliveries_of("mail", 3) == 2, "it did not run at the second delivery"


def test_deliveries_on_which_a_process_died_count_for_every_handler_it_ran() -> None:
    ledger = stored(settle([retry("mail", 3600), retry("pay", 1)], FRESH, 1, dead_letters=True), now_ms=0)
    assert ledger.deliveries_of("pay", 4) == 4

    later = settle([retry("pay")], ledger, 4, dead_letters=True, now_ms=1_000)

    assert isinstance(later, Keep)
    assert later.ledger.waits == (Wait("mail", 1, due_ms=3_600_000), Wait("pay", 4, 2))


def test_a_wait_that_the_handler_asked_for_spends_no_delivery() -> None:
    asked = RetryAt("pay", 1, WHY, spends=False)
    ledger = stored(settle([asked, retry("mail", 1)], FRESH, 1, dead_letters=True), now_ms=0)
    assert (ledger.deliveries_of("pay", 2), ledger.deliveries_of("mail", 2)) == (1, 2)

    ledger = stored(settle([asked, retry("mail", 1)], ledger, 2, dead_letters=True, now_ms=1_000), now_ms=1_000)
    assert (ledger.deliveries_of("pay", 3), ledger.deliveries_of("mail", 3)) == (1, 3)
    assert ledger.deliveries_of("pay", 4) == 2, "a process that died in between counts"


def test_releasing_an_entry_that_waited_keeps_its_count() -> None:
    ledger = stored(settle([retry("mail", 3600), retry("pay", 1)], FRESH, 1, dead_letters=True), now_ms=0)
    back = ledger.released(3, 1_000)  # one delivery in between was never settled: it counts

    assert back.deliveries_of("pay", 3) == ledger.deliveries_of("pay", 3) == 3
    assert back.deliveries_of("mail", 3) == 2
    only_pay = Ledger(recorded=1, waits=ledger.waits[1:])
    assert settle([Released("pay")], only_pay, 3, dead_letters=True, now_ms=1_000) == Release(
        Ledger(recorded=2, waits=(Wait("pay", 2, due_ms=1_000),), attempts=(("pay", silent(2)),))
    )


def test_an_unreadable_entry_is_one_letter_without_a_handler() -> None:
    unreadable = Dead("", Reason.DESERIALIZATION_ERROR, WHY)

    assert settle([unreadable], FRESH, 1, dead_letters=True) == Ack((unreadable,))
    assert settle([unreadable], FRESH, 1, dead_letters=False) == Park(
        Ledger(recorded=1, gave_up=frozenset({""})), (unreadable,)
    )


def stored(settlement: Settlement, *, now_ms: int) -> Ledger:
    """The ledger as it is found later: the settling script makes times of the delays."""
    assert isinstance(settlement, Keep | Release)
    waits = tuple(
        replace(wait, delay=0.0, due_ms=now_ms + round(wait.delay * 1000)) if wait.due_ms is None else wait
        for wait in settlement.ledger.waits
    )
    return Ledger.load(replace(settlement.ledger, waits=waits).dump())


# --- one delivery, in general ---------------------------------------------------------------------------------------


@given(data=st.data(), dead_letters=st.booleans(), deliveries=st.integers(1, 100))
def test_the_order_in_which_handlers_end_changes_nothing_but_the_order_of_letters(
    data: st.DataObject, dead_letters: bool, deliveries: int
) -> None:
    outcomes = [data.draw(outcome_of(handler)) for handler in HANDLERS[:3]]

    def settled(order: tuple[Outcome, ...]) -> Any:
        made = settle(order, FRESH, deliveries, dead_letters=dead_letters)
        letters = frozenset(getattr(made, "letters", ()) or getattr(made, "failures", ()))
        return type(made), getattr(made, "delay", None), getattr(made, "ledger", None), letters

    assert len({settled(order) for order in itertools.permutations(outcomes)}) == 1


@given(data=st.data(), deliveries=st.integers(1, 100))
def test_all_unfinished_handlers_of_a_trimmed_entry_are_dead(data: st.DataObject, deliveries: int) -> None:
    outcomes = [data.draw(outcome_of(handler)) for handler in HANDLERS]
    settlement = settle(outcomes, FRESH, deliveries, dead_letters=True)

    left = without_entry(settlement)

    unfinished = {outcome.handler for outcome in outcomes if not isinstance(outcome, Done)}
    assert sorted(letter.handler for letter in left.letters) == sorted(unfinished)
    assert without_entry(left) is left


def test_the_ledger_of_a_trimmed_entry_to_be_released_names_dead_handlers() -> None:
    before = stored(settle([retry("mail", 3600), Done("pay")], FRESH, 1, dead_letters=True), now_ms=0)

    assert [letter.handler for letter in without_entry(Release(before.released(2, 1_000))).letters] == ["mail"]
    assert [letter.handler for letter in without_entry(Release(FRESH)).letters] == [""], "no handler had begun"


def test_a_trimmed_entry_to_be_parked_leaves_nothing() -> None:
    assert without_entry(settle([dead("pay")], FRESH, 1, dead_letters=False)) == Ack()


# --- the life of an entry, as a model -------------------------------------------------------------------------------


@given(data=st.data(), dead_letters=st.booleans())
def test_no_handler_is_lost_repeated_or_reported_twice(data: st.DataObject, dead_letters: bool) -> None:
    """Redeliver an entry, running only what its ledger does not hold, until it is settled for good."""
    done: list[str] = []
    gave_up: list[str] = []
    letters: list[str] = []
    ledger, deliveries, now = FRESH, 0, 0
    not_before = dict.fromkeys(HANDLERS, 0)
    counted = dict.fromkeys(HANDLERS, 0)
    settled: Settlement | None = None
    for _ in range(12):
        deliveries += 1
        running = [
            handler for handler in HANDLERS if handler not in ledger.finished and not ledger.waits_for(handler, now)
        ]
        assert all(not_before[handler] <= now for handler in running), "a handler ran before its time"
        assert all(ledger.deliveries_of(handler, deliveries) == counted[handler] + 1 for handler in running)
        outcomes = [data.draw(outcome_of(handler)) for handler in running]
        done += [outcome.handler for outcome in outcomes if isinstance(outcome, Done)]
        gave_up += [outcome.handler for outcome in outcomes if isinstance(outcome, Dead)]
        unfinished = [outcome for outcome in outcomes if isinstance(outcome, RetryAt | Released)]

        settled = settle(outcomes, ledger, deliveries, dead_letters=dead_letters, now_ms=now)

        for outcome in outcomes:
            if isinstance(outcome, RetryAt):
                not_before[outcome.handler] = now + round(outcome.delay * 1000)
                counted[outcome.handler] += outcome.spends
            elif isinstance(outcome, Released):
                not_before[outcome.handler] = now
        waiting = {handler for handler in HANDLERS if handler not in {*done, *gave_up}}
        match settled:
            case Ack():
                letters += [letter.handler for letter in settled.letters]
                assert not waiting
                assert dead_letters or not gave_up
                break
            case Park():
                assert not waiting
                assert gave_up
                assert not dead_letters
                assert settled.ledger.finished == set(HANDLERS)
                break
            case Keep():
                letters += [letter.handler for letter in settled.letters]
                due = min(not_before[handler] for handler in waiting)
                assert settled.delay * 1000 == pytest.approx(max(due - now, 0), abs=1)
                assert settled.ledger.recorded == deliveries
            case Release():
                letters += [letter.handler for letter in settled.letters]
                assert unfinished
                assert {outcome.handler for outcome in unfinished if isinstance(outcome, Released)} == waiting
                deliveries -= 1  # it did not count
                assert settled.ledger.recorded == deliveries
        ledger = stored(settled, now_ms=now)  # as the consumer that takes the entry next finds it
        now = max(now, min(not_before[handler] for handler in waiting))
        assert ledger.done == set(done)
        assert (ledger.dead if dead_letters else ledger.gave_up) == set(gave_up)

    assert len(done) == len(set(done)), "a handler that had finished ran again"
    assert letters == (gave_up if dead_letters else []), "each handler that gave up has one letter"
    assert not set(done) & set(gave_up)
    if isinstance(settled, Ack | Park):
        assert {*done, *gave_up} == set(HANDLERS)


# --- the ledger -----------------------------------------------------------------------------------------------------

names = st.frozensets(st.text(st.characters(codec="utf-8"), max_size=20), max_size=5)


@given(done=names, dead=names, waiting=names, recorded=st.integers(0, 2**53))
def test_a_ledger_comes_back_as_it_was_dumped(
    done: frozenset[str], dead: frozenset[str], waiting: frozenset[str], recorded: int
) -> None:
    waits = tuple(Wait(handler, 3, due_ms=1_701_234_567_890) for handler in sorted(waiting))
    ledger = Ledger(done, dead, recorded, gave_up=dead, waits=waits)
    assert Ledger.load(ledger.dump()) == ledger


def test_the_same_ledger_gives_the_same_bytes() -> None:
    assert Ledger(frozenset("abc"), frozenset("xy"), 3).dump() == Ledger(frozenset("cba"), frozenset("yx"), 3).dump()


@pytest.mark.parametrize("nothing", [None, b""])
def test_no_ledger_is_an_empty_one(nothing: bytes | None) -> None:
    assert Ledger.load(nothing) == Ledger() == Ledger(frozenset(), frozenset(), 0)
