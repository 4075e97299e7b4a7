"""What became of each handler, and what that makes of the entry: two closed sets and the rules between them.

Plain values and plain functions: the retry and settlement rules are all here, and none of them does I/O.
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, TypeAlias, cast

import orjson

from rapids._core.attempt_log import NO_ATTEMPTS, AttemptLog
from rapids._core.failures import Failure

__all__ = [
    "Ack",
    "Dead",
    "Done",
    "Failure",
    "HandBack",
    "Keep",
    "Ledger",
    "Outcome",
    "Park",
    "Reason",
    "Released",
    "RetryAt",
    "Settlement",
    "Wait",
    "settle",
    "without_entry",
]


class Reason(StrEnum):
    """Why a dead letter was written."""

    MAX_DELIVERIES_EXCEEDED = "max_deliveries_exceeded"
    DESERIALIZATION_ERROR = "deserialization_error"
    NON_RETRYABLE = "non_retryable"


@dataclass(frozen=True, slots=True)
class Done:
    """The handler returned."""

    handler: str


@dataclass(frozen=True, slots=True)
class RetryAt:
    """The handler failed and is to run again, `delay` seconds from now."""

    handler: str
    delay: float
    failure: Failure
    attempts: AttemptLog = NO_ATTEMPTS
    """Its failed attempts on this delivery."""


@dataclass(frozen=True, slots=True)
class Dead:
    """The handler failed for good. `handler` is empty where no handler was reached."""

    handler: str
    reason: Reason
    failure: Failure
    attempts: AttemptLog = NO_ATTEMPTS
    """Its failed attempts: on this delivery, and in a dead letter all of them."""


@dataclass(frozen=True, slots=True)
class Released:
    """The handler was interrupted, or never started: that is no failure."""

    handler: str
    attempts: AttemptLog = NO_ATTEMPTS
    """Its failed attempts on this delivery, before it was interrupted."""


Outcome: TypeAlias = Done | RetryAt | Dead | Released


@dataclass(frozen=True, slots=True)
class Wait:
    """A handler of a kept entry that is to run again: not before its own time, whatever the others do."""

    handler: str
    spent: int
    """Deliveries that count against `max_deliveries` so far. Those on which it did not run count for others only."""
    delay: float = 0.0
    """Seconds from now, for one that is not stored yet."""
    due_ms: int | None = None
    """When it is due, by the server's clock (milliseconds), for one that was read."""

    def dump(self) -> dict[str, int]:
        """As it is stored; the settling script turns a delay into a time."""
        when = {"delay": round(self.delay * 1000)} if self.due_ms is None else {"due": self.due_ms}
        return {"spent": self.spent, **when}


@dataclass(frozen=True, slots=True)
class Ledger:
    """Which handlers of a kept entry have finished, so that only the others run again, and when."""

    done: frozenset[str] = frozenset()
    dead: frozenset[str] = frozenset()
    """Those that failed for good and have their dead letter."""
    recorded: int = 0
    """The delivery count at the last settlement."""
    gave_up: frozenset[str] = frozenset()
    """Those that failed for good while there was no dead-letter stream."""
    waits: tuple[Wait, ...] = ()
    """Those that are to run again, by name."""
    attempts: tuple[tuple[str, AttemptLog], ...] = ()
    """The failed attempts of those that are not finished or gave up, by name."""

    @property
    def finished(self) -> frozenset[str]:
        return self.done | self.dead | self.gave_up

    def waits_for(self, handler: str, now_ms: int) -> bool:
        """Whether it is too early for this handler at `now_ms` (milliseconds, the server's clock)."""
        return any(wait.handler == handler and (wait.due_ms or 0) > now_ms for wait in self.waits)

    def due(self, now_ms: int) -> list[str]:
        """Who waited until `now_ms` (milliseconds, the server's clock), or less, and is not finished."""
        finished = self.finished
        return [one.handler for one in self.waits if (one.due_ms or 0) <= now_ms and one.handler not in finished]

    def deliveries_of(self, handler: str, deliveries: int) -> int:
        """How many deliveries of the entry count for this handler, when the entry's own count is `deliveries`.

        Those since the last settlement all do: on the ones nobody settled, a process died with it.
        """
        spent = next((wait.spent for wait in self.waits if wait.handler == handler), self.recorded)
        return spent + deliveries - self.recorded

    def attempts_before(self, handler: str, deliveries: int) -> AttemptLog:
        """A handler's failed attempts before the entry's `deliveries`-th delivery, on which it runs or could have run:
        those that are recorded, and the deliveries that count for it although nobody said what came of them."""
        known = dict(self.attempts).get(handler, NO_ATTEMPTS)
        is_known = known or not handler or any(wait.handler == handler for wait in self.waits)
        unsettled = AttemptLog.unrecorded(max(self.recorded, 0) + 1 if is_known else 1, deliveries - 1)
        return known.then(unsettled) if unsettled else known

    def handed_back(self, deliveries: int, now_ms: int) -> "Ledger":
        """The same, so that the entry's `deliveries`-th delivery, taken at `now_ms`, has not counted for anybody."""
        unsettled = deliveries - 1 - self.recorded
        waits = tuple(
            wait if self.waits_for(wait.handler, now_ms) else replace(wait, spent=wait.spent + unsettled)
            for wait in self.waits
        )
        begun = {wait.handler for wait in self.waits} | dict(self.attempts).keys()
        logs = dict(self.attempts) | {
            handler: self.attempts_before(handler, deliveries)
            for handler in begun - self.finished
            if not self.waits_for(handler, now_ms)
        }
        return replace(self, recorded=deliveries - 1, waits=waits, attempts=_by_name(logs))

    def under(self, names: Mapping[str, str]) -> "Ledger":
        """The same ledger, each handler under its present name. `names` is from aliases to present names."""
        done, dead, gave_up = (
            frozenset(names.get(name, name) for name in handlers) for handlers in (self.done, self.dead, self.gave_up)
        )
        waits: dict[str, Wait] = {}
        # Processes with different names may have left two for one handler: the one that has spent more counts.
        for wait in sorted(self.waits, key=lambda one: (one.spent, one.due_ms or 0)):
            name = names.get(wait.handler, wait.handler)
            waits[name] = replace(wait, handler=name)
        logs: dict[str, AttemptLog] = {}
        for name, log in sorted(self.attempts, key=lambda one: one[0] not in names):  # those under aliases first
            present = names.get(name, name)
            logs[present] = logs.get(present, NO_ATTEMPTS).then(log)
        return replace(
            self,
            done=done,
            dead=dead,
            gave_up=gave_up,
            waits=tuple(waits[name] for name in sorted(waits)),
            attempts=_by_name(logs),
        )

    def dump(self) -> bytes:
        """The ledger as it is stored: JSON, since the settling script reads it too."""
        names = {"done": sorted(self.done), "dead": sorted(self.dead), "gave_up": sorted(self.gave_up)}
        waits = {wait.handler: wait.dump() for wait in self.waits}
        # None of them is empty: in a script, an empty list and an empty object are the same.
        attempts = {"attempts": {handler: log.rows() for handler, log in self.attempts}} if self.attempts else {}
        return orjson.dumps({"n": self.recorded, **names, "waits": waits, **attempts})

    @classmethod
    def load(cls, raw: bytes | None) -> "Ledger":
        """The stored ledger; an empty one for None."""
        if not raw:
            return NO_LEDGER
        stored: dict[str, Any] = orjson.loads(raw)
        done, dead, gave_up = (frozenset[str](stored[kind]) for kind in ("done", "dead", "gave_up"))
        waits: dict[str, Any] = stored.get("waits") or {}
        waiting = tuple(_wait(name, waits[name]) for name in sorted(waits))
        return cls(done, dead, int(stored["n"]), gave_up, waiting, _read_logs(stored.get("attempts")))


def _wait(handler: str, stored: dict[str, int]) -> Wait:
    return Wait(handler, stored["spent"], stored.get("delay", 0) / 1000, stored.get("due"))


def _read_logs(stored: object) -> tuple[tuple[str, AttemptLog], ...]:
    """What older versions do not write, and nothing depends on: whatever is wrong with it, it is none."""
    rows = cast(dict[str, object], stored) if isinstance(stored, dict) else {}
    return _by_name({handler: AttemptLog.read(rows[handler]) for handler in rows})


def _by_name(logs: Mapping[str, AttemptLog]) -> tuple[tuple[str, AttemptLog], ...]:
    return tuple((handler, logs[handler]) for handler in sorted(logs) if logs[handler])


NO_LEDGER = Ledger()


@dataclass(frozen=True, slots=True)
class Ack:
    """Every handler has finished: write the letters, then acknowledge."""

    letters: tuple[Dead, ...] = ()
    ledger: Ledger = field(default=NO_LEDGER, compare=False)
    """Who is done, with letters to write: if the lease is lost, that much is still told to whoever has the entry."""


@dataclass(frozen=True, slots=True)
class Keep:
    """Some handlers run again in `delay` seconds; the ledger keeps the others from it."""

    delay: float
    ledger: Ledger
    letters: tuple[Dead, ...] = ()
    if_trimmed: tuple[Dead, ...] = field(default=(), compare=False)
    """Of those that are to run again, in case the entry is not in the stream any more."""


@dataclass(frozen=True, slots=True)
class Park:
    """A handler gave up and there is no dead-letter queue: the entry stays pending and is not run again."""

    ledger: Ledger
    failures: tuple[Dead, ...] = field(default_factory=tuple[Dead, ...])


@dataclass(frozen=True, slots=True)
class HandBack:
    """The process stops: any consumer may take the entry at once, and the delivery does not count."""

    ledger: Ledger
    letters: tuple[Dead, ...] = ()
    if_trimmed: tuple[Dead, ...] = field(default=(), compare=False)
    """Of those that are to run again, in case the entry is not in the stream any more."""


Settlement: TypeAlias = Ack | Keep | Park | HandBack

ACK = Ack()


def settle(
    outcomes: Iterable[Outcome], ledger: Ledger, deliveries: int, *, dead_letters: bool, now_ms: int = 0
) -> Settlement:
    """What the outcomes of one delivery make of its entry.

    `ledger` is what was known before this delivery, `deliveries` its count, `now_ms` when it was taken (milliseconds,
    the server's clock; needed only where the ledger has handlers that wait). With `dead_letters` off, a handler that
    gave up parks the entry once no other handler has anything left to do.
    """
    outcomes = tuple(outcomes)
    logs = _logs(ledger, outcomes, deliveries)
    done, dead, waiting, released = set[str](), list[Dead](), list[RetryAt](), set[str]()
    for outcome in outcomes:
        match outcome:
            case Done():
                done.add(outcome.handler)
            case Dead():
                dead.append(replace(outcome, attempts=logs[outcome.handler]))
            case RetryAt():
                waiting.append(outcome)
            case Released():
                released.add(outcome.handler)
    if dead_letters:
        dead += [_late_letter(handler, logs.get(handler, NO_ATTEMPTS)) for handler in sorted(ledger.gave_up)]
    after = _after(ledger, done, {letter.handler for letter in dead}, deliveries, dead_letters=dead_letters)
    after = replace(after, attempts=_by_name({name: logs[name] for name in logs.keys() - after.done - after.dead}))
    waits = _waits(ledger, waiting, released, after.finished, deliveries)
    letters = tuple(dead) if dead_letters else ()
    failures = {retry.handler: retry.failure for retry in waiting}
    if waits and any(wait.handler not in released for wait in waits):
        delay = min(_left(wait, now_ms) for wait in waits)
        return Keep(delay, replace(after, waits=waits), letters, _if_trimmed(waits, failures, logs))
    if released:
        before = ledger.handed_back(deliveries, now_ms)
        left = tuple(wait for wait in before.waits if wait.handler in released)
        after = replace(after, recorded=before.recorded, waits=left)
        return HandBack(after, letters, _if_trimmed(waits, failures, logs))
    if after.gave_up:
        return Park(after, tuple(dead))
    return Ack(letters, after) if letters else ACK


def without_entry(settlement: Settlement) -> Ack:
    """What to make of an entry that was trimmed from the stream while its payload is held: nothing can deliver it
    again, so whatever was to run again is dead.

    Only where there is a dead-letter stream.
    """
    match settlement:
        case Keep(ledger=ledger, letters=letters, if_trimmed=left):
            return Ack((*letters, *left), ledger)
        case HandBack(ledger=ledger, letters=letters, if_trimmed=left):
            left = left or _if_trimmed(ledger.waits, {}, dict(ledger.attempts)) or (_trimmed("", None, NO_ATTEMPTS),)
            return Ack((*letters, *left), ledger)
        case Park():
            return ACK
        case Ack():
            return settlement


def _if_trimmed(
    waits: Iterable[Wait], failures: Mapping[str, Failure], logs: Mapping[str, AttemptLog]
) -> tuple[Dead, ...]:
    return tuple(
        _trimmed(wait.handler, failures.get(wait.handler), logs.get(wait.handler, NO_ATTEMPTS)) for wait in waits
    )


def _trimmed(handler: str, failure: Failure | None, attempts: AttemptLog) -> Dead:
    """For a handler that cannot run again; an empty name stands for all of the group's."""
    why = "it cannot be delivered again, as it was trimmed from the stream"
    if failure is None:
        return Dead(handler, Reason.NON_RETRYABLE, Failure("", f"not handled, and {why}"), attempts)
    failure = replace(failure, message=f"{failure.message} ({why})")
    return Dead(handler, Reason.NON_RETRYABLE, failure, attempts)


def _logs(ledger: Ledger, outcomes: Iterable[Outcome], deliveries: int) -> dict[str, AttemptLog]:
    """All failed attempts, this delivery's included, by handler."""
    return dict(ledger.attempts) | {
        outcome.handler: ledger.attempts_before(outcome.handler, deliveries).then(outcome.attempts)
        for outcome in outcomes
        if not isinstance(outcome, Done)
    }


def _waits(
    ledger: Ledger, failed: Iterable[RetryAt], released: Iterable[str], finished: Container[str], deliveries: int
) -> tuple[Wait, ...]:
    """Who is to run again: who failed, who did not run since it was too early, and at once who was interrupted."""
    waits = {wait.handler: wait for wait in ledger.waits if wait.handler not in finished}
    for retry in failed:
        waits[retry.handler] = Wait(retry.handler, ledger.deliveries_of(retry.handler, deliveries), retry.delay)
    for handler in released:
        waits[handler] = Wait(handler, ledger.deliveries_of(handler, deliveries) - 1)
    return tuple(waits[handler] for handler in sorted(waits))


def _left(wait: Wait, now_ms: int) -> float:
    return wait.delay if wait.due_ms is None else max(wait.due_ms - now_ms, 0) / 1000


def _after(ledger: Ledger, done: set[str], dead: set[str], deliveries: int, *, dead_letters: bool) -> Ledger:
    if dead_letters:
        return Ledger(ledger.done | done, ledger.dead | dead, deliveries)
    return Ledger(ledger.done | done, ledger.dead, deliveries, ledger.gave_up | dead)


def _late_letter(handler: str, attempts: AttemptLog) -> Dead:
    """For a handler that gave up before the group was given a dead-letter stream: its error is in the log only."""
    why = "failed for good at an earlier delivery, when there was no dead-letter stream; the log of then tells why"
    return Dead(handler, Reason.MAX_DELIVERIES_EXCEEDED, Failure("", why), attempts)
