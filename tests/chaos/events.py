"""The events of a run, and what each handler does with one: all of it decided by the event's number.

So what must become of every event is known without looking at the run.
"""

from __future__ import annotations

from typing import ClassVar

from rapids import BaseEvent
from tests.chaos.settings import CLAIM_MIN_IDLE_MS

MAX_DELIVERIES_EXCEEDED = "max_deliveries_exceeded"
NON_RETRYABLE = "non_retryable"


class ChaosJob(BaseEvent):
    event_type: ClassVar[str] = "chaos.job"
    number: int


class ChaosToxic(BaseEvent):
    """Kills the process that handles it."""

    event_type: ClassVar[str] = "chaos.toxic"
    number: int


JOB_HANDLERS = ("always", "flaky", "picky", "slow", "hopeless")
TOXIC_HANDLERS = ("always", "toxic")


def make_event(number: int) -> ChaosJob | ChaosToxic:
    kind = ChaosToxic if is_toxic(number) else ChaosJob
    return kind(id=event_id(number), number=number)


def event_id(number: int) -> str:
    return f"event-{number}"


def handlers_of(number: int) -> tuple[str, ...]:
    return TOXIC_HANDLERS if is_toxic(number) else JOB_HANDLERS


def is_toxic(number: int) -> bool:
    return number % 1_000 == 150


def flaky_failures(number: int) -> int:
    """How many deliveries `flaky` fails before it succeeds."""
    return number % 3 if number % 7 == 3 else 0


def is_refused(number: int) -> bool:
    """Whether `picky` says that trying again is no use."""
    return number % 50 == 11


def slowness(number: int) -> float:
    """Seconds `slow` takes: now and then much longer than the time after which a silent consumer counts as dead."""
    if number % 800 == 7:
        return 2.5 * CLAIM_MIN_IDLE_MS / 1000
    return number % 16 / 100 if number % 40 == 5 else 0.0


def is_hopeless(number: int) -> bool:
    """Whether `hopeless` fails on every delivery."""
    return number % 200 == 77


def expected_letters(number: int) -> dict[str, str]:
    """The dead letters the event must end as: handler to reason."""
    if is_toxic(number):  # a process that dies leaves no word about any handler of the entry
        return dict.fromkeys(TOXIC_HANDLERS, MAX_DELIVERIES_EXCEEDED)
    refused = {"picky": NON_RETRYABLE} if is_refused(number) else {}
    return refused | ({"hopeless": MAX_DELIVERIES_EXCEEDED} if is_hopeless(number) else {})
