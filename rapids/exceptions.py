"""All errors that Rapids raises on purpose. Each is a `RapidsError`.

Constructor arguments become attributes of the same name, so logs and tests do not need to parse messages. Errors can be
pickled (their `args` are the constructor's arguments).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import overload

from pydantic import ValidationError

from rapids._core.checks import seconds as seconds_option
from rapids._core.redis_errors import reason

__all__ = [
    "DeserializationError",
    "DuplicateEventTypeError",
    "EditRefusedError",
    "EmitError",
    "GroupNotFoundError",
    "HandlerTimeoutError",
    "LetterNotFoundError",
    "LetterStateError",
    "MaxRetriesExceededError",
    "NonRetryableError",
    "NotConfiguredError",
    "OperationNotFoundError",
    "OperationRunningError",
    "OperationStateError",
    "ParseProblem",
    "RapidsError",
    "RedisUnavailableError",
    "RetryAfter",
    "SerializationError",
    "StreamNotFoundError",
    "json_pointer",
    "pointer_parts",
    "reason",
]


@dataclass(frozen=True, slots=True)
class ParseProblem:
    """One problem of an event's data. Its texts are untrusted input, like the letter's."""

    location: tuple[str | int, ...]
    """Field names and list indexes; empty for the event as a whole. Of a longer location the first 32, then `…`."""
    message: str
    """At most 500 characters. Pydantic's own messages do not repeat input; messages of your validators may."""
    type: str
    """The kind of problem: Pydantic's name for it (`missing`), or the class name of another error."""

    @property
    def pointer(self) -> str:
        """The location as a JSON Pointer (RFC 6901)."""
        return json_pointer(self.location)


def json_pointer(location: Iterable[str | int]) -> str:
    """A location as a JSON Pointer (https://www.rfc-editor.org/rfc/rfc6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in location)


def pointer_parts(pointer: str) -> tuple[str, ...]:
    """The parts of a JSON Pointer: names, and list indexes as text."""
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])


class RapidsError(Exception):
    """The base of all errors that Rapids raises on purpose."""


class NotConfiguredError(RapidsError, RuntimeError):
    """An emitter or router was used before it was given what it needs. The message says what to call."""


class RedisUnavailableError(RapidsError, ConnectionError):
    """Redis could not be reached at start-up. During later outages Rapids retries, and raises nothing."""


class DuplicateEventTypeError(RapidsError, TypeError):
    """Two different classes claim one `event_type`."""


class EmitError(RapidsError):
    """An emit failed after its retries.

    `event_type` and `event_id` are those of the first event that failed; `attempts` is the number of tries. The id of
    each event of the emit is in exactly one of `stored` (Redis confirmed it), `not_stored` (Redis refused it, or it was
    never sent) and `unknown` (it was sent and the answer was lost: it may or may not be in the stream).
    """

    def __init__(
        self,
        event_type: str,
        event_id: str,
        stream: str,
        attempts: int,
        cause: BaseException,
        stored: tuple[str, ...] = (),
        not_stored: tuple[str, ...] = (),
        unknown: tuple[str, ...] = (),
    ) -> None:
        super().__init__(event_type, event_id, stream, attempts, cause, stored, not_stored, unknown)
        self.event_type = event_type
        self.event_id = event_id
        self.stream = stream
        self.attempts = attempts
        self.cause = cause
        self.stored = stored
        self.not_stored = not_stored
        self.unknown = unknown

    def __str__(self) -> str:
        tries = "1 attempt" if self.attempts == 1 else f"{self.attempts} attempts"
        what = f"{self.event_type!r} (id {self.event_id}) to {self.stream!r}"
        text = f"could not emit {what} after {tries}: {reason(self.cause)}"
        if self.unknown:
            text += f"; unknown whether stored: {', '.join(self.unknown)}"
        if self.stored:
            text += f"; stored: {len(self.stored)}, not stored: {len(self.not_stored)}"
        return text


class SerializationError(RapidsError, ValueError):
    """An event holds a value that JSON cannot hold; `field` says where. Nothing was sent."""

    def __init__(self, event_type: str, field: str, reason: str) -> None:
        super().__init__(event_type, field, reason)
        self.event_type = event_type
        self.field = field
        self.reason = reason

    def __str__(self) -> str:
        return f"event {self.event_type!r} cannot be written as JSON: field {self.field!r}: {self.reason}"


class DeserializationError(RapidsError):
    """An entry could not be read as an event. `event_type` is empty if the type could not be read either."""

    def __init__(self, event_type: str, message: str) -> None:
        super().__init__(event_type, message)
        self.event_type = event_type
        self.message = message

    def __str__(self) -> str:
        return f"cannot read an event of type {self.event_type!r}: {self.message}"


class EditRefusedError(RapidsError, ValueError):
    """The changed data for a replay of a dead letter are not valid for its event class. Nothing was changed.

    `problems` are the first 100 problems, each with its location; `problem_count` is the number of all problems.
    """

    def __init__(self, event_type: str, problems: tuple[ParseProblem, ...], problem_count: int) -> None:
        super().__init__(event_type, problems, problem_count)
        self.event_type = event_type
        self.problems = problems
        self.problem_count = problem_count

    def __str__(self) -> str:
        shown = [f"{problem.pointer or 'data'}: {problem.message}" for problem in self.problems[:10]]
        if self.problem_count > len(shown):
            shown.append(f"and {self.problem_count - len(shown)} more")
        return f"the changed data are not valid for the event type {self.event_type!r}: {'; '.join(shown)}"


class HandlerTimeoutError(RapidsError, TimeoutError):
    """A handler ran longer than its `timeout` (seconds).

    A `TimeoutError` that the handler itself raised is not a `HandlerTimeoutError`.
    """

    def __init__(self, handler_name: str, timeout: float, event_id: str) -> None:
        super().__init__()
        # Not by `super().__init__`: an OSError would use the first two arguments as errno and strerror.
        self.args: tuple[object, ...] = (handler_name, timeout, event_id)
        self.handler_name = handler_name
        self.timeout = timeout
        self.event_id = event_id

    def __str__(self) -> str:
        return f"handler {self.handler_name!r} exceeded its time-out of {self.timeout:g} s on event {self.event_id}"


class MaxRetriesExceededError(RapidsError):
    """A handler's quick retries are used up for this delivery; `last_error` is what the last attempt raised."""

    def __init__(self, handler_name: str, max_attempts: int, event_id: str, last_error: BaseException) -> None:
        super().__init__(handler_name, max_attempts, event_id, last_error)
        self.handler_name = handler_name
        self.max_attempts = max_attempts
        self.event_id = event_id
        self.last_error = last_error

    def __str__(self) -> str:
        tries = "1 attempt" if self.max_attempts == 1 else f"{self.max_attempts} attempts"
        return (
            f"handler {self.handler_name!r} failed on event {self.event_id} after {tries}: "
            f"{type(self.last_error).__name__}: {without_input(self.last_error)}"
        )


class NonRetryableError(RapidsError):
    """Another run of this handler on this event would not help: the event becomes a dead letter at once.

    A handler raises `NonRetryableError("why")`, alone or inside an `ExceptionGroup`. The form with
    `handler_name`, `cause` and `event_id` is that of rapids-streams.
    """

    @overload
    def __init__(self, why: str, /) -> None: ...
    @overload
    def __init__(self, handler_name: str, cause: BaseException, event_id: str) -> None: ...
    def __init__(self, handler_name: str, cause: BaseException | None = None, event_id: str = "") -> None:
        super().__init__(*((handler_name,) if cause is None else (handler_name, cause, event_id)))
        self.handler_name: str = "" if cause is None else handler_name
        self.cause = cause
        self.event_id = event_id

    def __str__(self) -> str:
        if self.cause is None:
            return str(self.args[0])
        kind = type(self.cause).__name__
        return f"handler {self.handler_name!r} cannot retry event {self.event_id}: {kind}: {without_input(self.cause)}"


class LetterNotFoundError(RapidsError, LookupError):
    """No dead letter has this id: it was never written, was trimmed by `dlq_maxlen`, or its retention has ended."""

    def __init__(self, letter_id: str) -> None:
        super().__init__(letter_id)
        self.letter_id = letter_id

    def __str__(self) -> str:
        return f"there is no dead letter {self.letter_id!r}"


class LetterStateError(RapidsError):
    """The dead letter is not in the state that the change needs: somebody changed it first. `state` is its state."""

    def __init__(self, letter_id: str, state: str, needed: str) -> None:
        super().__init__(letter_id, state, needed)
        self.letter_id = letter_id
        self.state = state
        self.needed = needed

    def __str__(self) -> str:
        return f"dead letter {self.letter_id!r} is {self.state}, this needs one that is {self.needed}"


class OperationNotFoundError(RapidsError, LookupError):
    """No operation on dead letters has this id: it was never started, or it ended long ago and was removed."""

    def __init__(self, operation_id: str) -> None:
        super().__init__(operation_id)
        self.operation_id = operation_id

    def __str__(self) -> str:
        return f"there is no operation {self.operation_id!r}"


class OperationRunningError(RapidsError):
    """Another operation of this kind has not ended on this dead-letter stream: only one may run at a time."""

    def __init__(self, kind: str, operation_id: str) -> None:
        super().__init__(kind, operation_id)
        self.kind = kind
        self.operation_id = operation_id

    def __str__(self) -> str:
        return f"operation {self.operation_id!r} of kind {self.kind!r} has not ended; cancel it, or wait for it"


class OperationStateError(RapidsError):
    """The operation has ended, so it cannot be paused, resumed or cancelled. `state` is its state."""

    def __init__(self, operation_id: str, state: str) -> None:
        super().__init__(operation_id, state)
        self.operation_id = operation_id
        self.state = state

    def __str__(self) -> str:
        return f"operation {self.operation_id!r} has ended: it is {self.state}"


class StreamNotFoundError(RapidsError, LookupError):
    """The stream does not exist (yet): no event was emitted to it, and no router has started on it."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.stream = stream

    def __str__(self) -> str:
        return f"there is no stream {self.stream!r}"


class GroupNotFoundError(RapidsError, LookupError):
    """The stream exists and does not have this consumer group (yet): no router of the group has started."""

    def __init__(self, stream: str, group: str) -> None:
        super().__init__(stream, group)
        self.stream = stream
        self.group = group

    def __str__(self) -> str:
        return f"stream {self.stream!r} has no group {self.group!r}"


class RetryAfter(RapidsError):
    """A handler raises it to be run again in `seconds`, whatever the backoff and its quick retries.

    It is a postponement: the delivery does not count towards `max_deliveries`. Inside an `ExceptionGroup` it does the
    same, and of several waits the longest holds.
    """

    def __init__(self, seconds: float, why: str = "") -> None:
        super().__init__(seconds_option("seconds", seconds), why)
        self.seconds = seconds
        self.why = why

    def __str__(self) -> str:
        return self.why or f"asked to be retried after {self.seconds:g} s"


def without_input(error: BaseException) -> str:
    """An error's text that is safe to log: Pydantic's own text quotes the refused input, usually part of a payload."""
    if not isinstance(error, ValidationError):
        return str(error)
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults)
