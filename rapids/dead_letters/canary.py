"""Canaries: an operation replays in steps that grow, and waits for the outcomes of each before the next."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias, cast, get_args

from rapids._core.checks import fraction, positive_seconds
from rapids._core.json_schema import with_json_schema

__all__ = [
    "MAX_STEPS",
    "Canary",
    "CanaryFailure",
    "CanaryProgress",
    "CanaryStep",
    "FailureOutcome",
    "Stop",
    "Verdict",
    "begun_after",
    "first_sizes",
    "read_canary",
    "size_after",
    "verdict",
    "write_canary",
]

FACTOR, MAX_SIZE = 5, 3_125
"""Each step has so many times the letters of the one before it, until a step has the maximum."""

MAX_STEPS = 20
"""How many steps are kept, and shown."""

FailureOutcome: TypeAlias = Literal["failed_again", "parked", "unknown"]
Stop: TypeAlias = Literal["failed_again", "overdue"]
Verdict: TypeAlias = Literal["send", "wait", "passed", "failed_again", "overdue"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """Replay 1 letter, then 5, 25, 125, 625, and then 3,125 at a time. After each step, wait for the outcomes.

    Raises `ValueError` or `TypeError` for an invalid value.
    """

    share: float = 0.1
    """The share of a step's replays that may fail again, from 0 to 1. If more of them do, the operation pauses."""
    wait: float = 3_600.0
    """Seconds to wait for outcomes after the last replay of a step. After that, the operation pauses."""

    def __post_init__(self) -> None:
        fraction("share", self.share)
        positive_seconds("wait", self.wait)


@with_json_schema
@dataclass(frozen=True, slots=True)
class CanaryStep:
    """A step of a canary. All but its number are counts of letters."""

    step: int
    """The number of the step, from 1."""
    size: int
    """How many letters it is to replay."""
    sent: int
    """How many of them were replayed."""
    handled: int
    """Replays that were acknowledged and left no letter."""
    failed_again: int
    """Replays that left a letter or were parked, and those whose outcome cannot be known."""
    waiting: int
    """Replays that have no outcome yet."""


@dataclass(frozen=True, slots=True)
class CanaryFailure:
    """A replay that failed again. `DeadLetterQueue.failed_again` reads its letters."""

    letter_id: str
    """The letter that was replayed."""
    outcome: FailureOutcome
    """`failed_again`: it left a new letter. `parked`: it failed for good in a group without a dead-letter stream.
    `unknown`: the archive no longer has the letter, or the stream of the replays was deleted."""
    new_letter_id: str
    """The first letter that it left; empty if it left none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryProgress(Canary):
    """The canary of an operation, as it was at one moment."""

    steps: tuple[CanaryStep, ...]
    """The last 20 steps, the current one last."""
    failed_again: int
    """Replays that failed again, in all steps."""
    why: str
    """What it waits for, or why it has stopped. The text is hostile input: groups and people are named in it."""
    stopped: Stop | None
    """Why the operation has paused by itself, or, if nothing was left to replay, has ended so: more than the share
    failed again, or outcomes did not come in time."""
    failures: tuple[CanaryFailure, ...]
    """The first five failures of the current step."""


def verdict(step: CanaryStep, share: float, *, is_last: bool, is_overdue: bool) -> Verdict:
    """What follows from the outcomes of a step. `is_last`: no letters are left to replay."""
    size = step.sent if is_last else step.size
    if size and step.failed_again / size > share:
        return "failed_again"
    if step.sent < size:
        return "send"
    if not step.waiting:
        return "passed"
    return "overdue" if is_overdue else "wait"


def size_after(size: int) -> int:
    """The size of the step after a step that has passed."""
    return min(size * FACTOR, MAX_SIZE)


def first_sizes(total: int) -> tuple[int, ...]:
    """The sizes of the first steps for so many letters; the last one has what is left."""
    sizes, size = list[int](), 1
    while total > 0 and len(sizes) < MAX_STEPS:
        sizes.append(min(size, total))
        total, size = total - size, size_after(size)
    return tuple(sizes)


def write_canary(canary: Canary) -> str:
    """As JSON, in ASCII."""
    return json.dumps({"share": canary.share, "wait": canary.wait})


def begun_after(canary: CanaryProgress, done: int, size: int) -> dict[str, str | int]:
    """The fields of an operation when the next step begins, after so many letters were replayed in all."""
    kept = [list(asdict(one).values()) for one in canary.steps[-(MAX_STEPS - 1) :]]
    return {
        "canary_step": canary.steps[-1].step + 1,
        "canary_size": size,
        "canary_from": done,
        "canary_handled": 0,
        "canary_failed": 0,
        "canary_failed_before": canary.failed_again,
        "canary_steps": json.dumps(kept),
        "canary_failures": "",
        "canary_stopped": "",
        "canary_why": "",
    }


def read_canary(stored: Mapping[str, str], left: int | None) -> CanaryProgress:
    """The canary of an operation from its fields. `left`: how many letters it has still to process, if known."""

    def number(name: str) -> int:
        return int(stored[name] or 0)

    size, sent = number("canary_size") or 1, int(stored["done"]) - number("canary_from")
    size = size if left is None else max(min(size, sent + left), 1)
    handled, failed = number("canary_handled"), number("canary_failed")
    current = CanaryStep(number("canary_step") or 1, size, sent, handled, failed, max(sent - handled - failed, 0))
    ended = [CanaryStep(*cast(list[int], row)) for row in json.loads(stored["canary_steps"] or "[]")]
    failures = json.loads(stored["canary_failures"] or "[]")
    stopped = cast(Stop, stored["canary_stopped"]) if stored["canary_stopped"] in get_args(Stop) else None
    return CanaryProgress(
        **json.loads(stored["canary"]),
        steps=(*ended, current),
        failed_again=number("canary_failed_before") + failed,
        why=stored["canary_why"] if stopped or stored["state"] == "running" else "",
        stopped=stopped,
        failures=tuple(CanaryFailure(*cast(tuple[str, FailureOutcome, str], row)) for row in failures),
    )
