"""Outcomes of handlers, settlements of entries, and the rules that make one settlement of the outcomes.

All retry and settlement rules are here, as plain values and plain functions without I/O.
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, TypeAlias, cast

import orjson

from rapids._core.attempt_log import NO_ATTEMPTS, AttemptLog
from rapids._core.failures import Failure
from rapids.hooks import TraceContext

__all__ = [
    "Ack",
    "Dead",
    "Done",
    "Failure",
    "Keep",
    "Ledger",
    "Outcome",
    "Park",
    "Reason",
    "Release",
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
    spends: bool = True
    """Whether this delivery counts towards `max_deliveries`. It does not if the handler asked for the wait."""


@dataclass(frozen=True, slots=True)
class Dead:
    """The handler failed for good. `handler` is empty if no handler was reached."""

    handler: str
    reason: Reason
    failure: Failure
    attempts: AttemptLog = NO_ATTEMPTS
    """Its failed attempts on this delivery; in a dead letter, all its failed attempts."""
    error: BaseException | None = field(default=None, compare=False, repr=False)
    """What the handler raised, for the log."""
    run: TraceContext | None = field(default=None, compare=False, repr=False)
    """The context of its last run, if there is a telemetry."""


@dataclass(frozen=True, slots=True)
class Released:
    """The handler was interrupted, or never started. This is no failure."""

    handler: str
    attempts: AttemptLog = NO_ATTEMPTS
    """Its failed attempts on this delivery, before it was interrupted."""


Outcome: TypeAlias = Done | RetryAt | Dead | Released


@dataclass(frozen=True, slots=True)
class Wait:
    """A handler of a kept entry that is to run again, but not before its own time."""

    handler: str
    spent: int
    """Deliveries that count towards `max_deliveries` so far. Those on which it did not run count only for others."""
    delay: float = 0.0
    """Seconds from now, for a wait that is not stored yet."""
    due_ms: int | None = None
    """When it is due, by the server's clock (milliseconds), for a wait that was read from storage."""

    def dump(self) -> dict[str, int]:
        """The wait as it is stored. The settlement script changes a delay to a time."""
        when = {"delay": round(self.delay * 1000)} if self.due_ms is None else {"due": self.due_ms}
        return {"spent": self.spent, **when}


@dataclass(frozen=True, slots=True)
class Ledger:
    """Which handlers of a kept entry have finished, which others run again, and when."""

    done: frozenset[str] = frozenset()
    dead: frozenset[str] = frozenset()
    """Handlers that failed for good and have their dead letter."""
    recorded: int = 0
    """The delivery count at the last settlement."""
    gave_up: frozenset[str] = frozenset()
    """Handlers that failed for good while there was no dead-letter stream."""
    waits: tuple[Wait, ...] = ()
    """Handlers that are to run again, by name."""
    attempts: tuple[tuple[str, AttemptLog], ...] = ()
    """The failed attempts of handlers that have not finished or gave up, by name."""

    @property
    def finished(self) -> frozenset[str]:
        return self.done | self.dead | self.gave_up

    def waits_for(self, handler: str, now_ms: int) -> bool:
        """Whether it is too early for this handler at `now_ms` (milliseconds, the server's clock)."""
        return any(wait.handler == handler and (wait.due_ms or 0) > now_ms for wait in self.waits)

    def due(self, now_ms: int) -> list[str]:
        """The unfinished handlers whose wait has ended at `now_ms` (milliseconds, the server's clock)."""
        finished = self.finished
        return [one.handler for one in self.waits if (one.due_ms or 0) <= now_ms and one.handler not in finished]

    def deliveries_of(self, handler: str, deliveries: int) -> int:
        """How many deliveries of the entry count for this handler, if the entry's own count is `deliveries`.

        All deliveries since the last settlement count: an unsettled delivery means that a process died during it.
        """
        spent = next((wait.spent for wait in self.waits if wait.handler == handler), self.recorded)
        return spent + deliveries - self.recorded

    def attempts_before(self, handler: str, deliveries: int) -> AttemptLog:
        """A handler's failed attempts before the entry's `deliveries`-th delivery, on which it runs or could have run:
        the recorded attempts, and the deliveries that count for it although their result was not recorded."""
        known = dict(self.attempts).get(handler, NO_ATTEMPTS)
        is_known = known or not handler or any(wait.handler == handler for wait in self.waits)
        unsettled = AttemptLog.unrecorded(max(self.recorded, 0) + 1 if is_known else 1, deliveries - 1)
        return known.then(unsettled) if unsettled else known

    def released(self, deliveries: int, now_ms: int) -> "Ledger":
        """The ledger if the entry's `deliveries`-th delivery, taken at `now_ms`, does not count for any handler."""
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
        # Processes with different names may have stored two waits for one handler: the one that spent more counts.
        for wait in sorted(self.waits, key=lambda one: (one.spent, one.due_ms or 0)):
            name = names.get(wait.handler, wait.handler)
            waits[name] = replace(wait, handler=name)
        logs: dict[str, AttemptLog] = {}
        for name, log in sorted(self.attempts, key=lambda one: one[0] not in names):  # logs under aliases first
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
        """The ledger as it is stored: JSON, since the settlement script reads it too."""
        names = {"done": sorted(self.done), "dead": sorted(self.dead), "gave_up": sorted(self.gave_up)}
        waits = {wait.handler: wait.dump() for wait in self.waits}
        # Empty fields are left out: in a script, an empty list and an empty object are the same.
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
        waiting = tuple(
            Wait(name, wait["spent"], wait.get("delay", 0) / 1000, wait.get("due"))
            for name, wait in sorted(waits.items())
        )
        # Older versions do not write attempts, and no rule needs them: bad data counts as none.
        attempts = stored.get("attempts")
        rows = cast(dict[str, object], attempts) if isinstance(attempts, dict) else {}
        logs = _by_name({handler: AttemptLog.read(rows[handler]) for handler in rows})
        return cls(done, dead, int(stored["n"]), gave_up, waiting, logs)


def _by_name(logs: Mapping[str, AttemptLog]) -> tuple[tuple[str, AttemptLog], ...]:
    return tuple((handler, logs[handler]) for handler in sorted(logs) if logs[handler])


NO_LEDGER = Ledger()


@dataclass(frozen=True, slots=True)
class Ack:
    """Every handler has finished: write the letters, then acknowledge."""

    letters: tuple[Dead, ...] = ()
    ledger: Ledger = field(default=NO_LEDGER, compare=False)
    """With letters to write, the finished handlers: if the lease is lost, they are still recorded for the new owner."""


@dataclass(frozen=True, slots=True)
class Keep:
    """Some handlers run again in `delay` seconds; the ledger prevents another run of the others."""

    delay: float
    ledger: Ledger
    letters: tuple[Dead, ...] = ()
    if_trimmed: tuple[Dead, ...] = field(default=(), compare=False)
    """Dead outcomes of the handlers that are to run again, in case the entry was trimmed from the stream."""


@dataclass(frozen=True, slots=True)
class Park:
    """A handler failed for good and there is no dead-letter stream: the entry stays pending and is not run again."""

    ledger: Ledger
    failures: tuple[Dead, ...] = field(default_factory=tuple[Dead, ...])


@dataclass(frozen=True, slots=True)
class Release:
    """The entry is released, since the process stops or the group is paused: any consumer may take it at once, and the
    delivery does not count."""

    ledger: Ledger
    letters: tuple[Dead, ...] = ()
    if_trimmed: tuple[Dead, ...] = field(default=(), compare=False)
    """Dead outcomes of the handlers that are to run again, in case the entry was trimmed from the stream."""


Settlement: TypeAlias = Ack | Keep | Park | Release

ACK = Ack()

NO_DLQ_THEN = (
    "failed for good at an earlier delivery, when there was no dead-letter stream; the log of that time has the error"
)
"""The error text of a dead letter that is written long after the failure."""


def settle(
    outcomes: Iterable[Outcome], ledger: Ledger, deliveries: int, *, dead_letters: bool, now_ms: int = 0
) -> Settlement:
    """The settlement of an entry for the outcomes of one delivery.

    `ledger` is the ledger before this delivery, `deliveries` the delivery count, `now_ms` the time when the entry was
    taken (milliseconds, the server's clock; needed only if handlers in the ledger wait). Without `dead_letters`, a
    handler that failed for good parks the entry when no other handler has anything left to do.
    """
    outcomes = tuple(outcomes)
    logs = dict(ledger.attempts) | {  # all failed attempts by handler, including this delivery's
        outcome.handler: ledger.attempts_before(outcome.handler, deliveries).then(outcome.attempts)
        for outcome in outcomes
        if not isinstance(outcome, Done)
    }
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
        # They failed for good before the group had a dead-letter stream: only the log has their error.
        late = Failure("", NO_DLQ_THEN)
        dead += [
            Dead(handler, Reason.MAX_DELIVERIES_EXCEEDED, late, logs.get(handler, NO_ATTEMPTS))
            for handler in sorted(ledger.gave_up)
        ]
    failed = {letter.handler for letter in dead}
    if dead_letters:
        after = Ledger(ledger.done | done, ledger.dead | failed, deliveries)
    else:
        after = Ledger(ledger.done | done, ledger.dead, deliveries, ledger.gave_up | failed)
    after = replace(after, attempts=_by_name({name: logs[name] for name in logs.keys() - after.done - after.dead}))
    waits = _waits(ledger, waiting, released, after.finished, deliveries)
    letters = tuple(dead) if dead_letters else ()
    failures = {retry.handler: retry.failure for retry in waiting}
    if waits and any(wait.handler not in released for wait in waits):
        delay = min(wait.delay if wait.due_ms is None else max(wait.due_ms - now_ms, 0) / 1000 for wait in waits)
        return Keep(delay, replace(after, waits=waits), letters, _if_trimmed(waits, failures, logs))
    if released:
        before = ledger.released(deliveries, now_ms)
        left = tuple(wait for wait in before.waits if wait.handler in released)
        after = replace(after, recorded=before.recorded, waits=left)
        return Release(after, letters, _if_trimmed(waits, failures, logs))
    if after.gave_up:
        return Park(after, tuple(dead))
    return Ack(letters, after) if letters else ACK


def without_entry(settlement: Settlement) -> Ack:
    """The settlement of an entry that was trimmed from the stream while its payload is held: it cannot be delivered
    again, so handlers that were to run again are dead.

    Only if there is a dead-letter stream.
    """
    match settlement:
        case Keep(ledger=ledger, letters=letters, if_trimmed=left):
            return Ack((*letters, *left), ledger)
        case Release(ledger=ledger, letters=letters, if_trimmed=left):
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
    """The outcome of a handler that cannot run again; an empty name stands for all handlers of the group."""
    why = "it cannot be delivered again, as it was trimmed from the stream"
    if failure is None:
        return Dead(handler, Reason.NON_RETRYABLE, Failure("", f"not handled, and {why}"), attempts)
    failure = replace(failure, message=f"{failure.message} ({why})")
    return Dead(handler, Reason.NON_RETRYABLE, failure, attempts)


def _waits(
    ledger: Ledger, failed: Iterable[RetryAt], released: Iterable[str], finished: Container[str], deliveries: int
) -> tuple[Wait, ...]:
    """The handlers to run again: those that failed, those that were not due yet, and at once those interrupted."""
    waits = {wait.handler: wait for wait in ledger.waits if wait.handler not in finished}
    for retry in failed:
        spent = ledger.deliveries_of(retry.handler, deliveries) - (not retry.spends)
        waits[retry.handler] = Wait(retry.handler, spent, retry.delay)
    for handler in released:
        waits[handler] = Wait(handler, ledger.deliveries_of(handler, deliveries) - 1)
    return tuple(waits[handler] for handler in sorted(waits))
