"""Plans: the event of an entry and the handlers to run, or the reason why none can run."""

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from rapids._core.counter_state import Counts, OfType
from rapids._core.failures import is_of_signal
from rapids._core.handlers import MEMO_LIMIT, Handler, Handlers, no_handler
from rapids._core.outcomes import NO_LEDGER, Dead, Failure, Ledger, Reason
from rapids._storage.groups import RawEntry
from rapids._wire.entry_format import (
    Fields,
    Replay,
    StoredEvent,
    decode,
    decode_regular,
    event_type_in,
    newer_version,
    regular_values,
)
from rapids._wire.letter_format import taken_apart
from rapids.events import BaseEvent, Event, get_event_class
from rapids.exceptions import NonRetryableError

__all__ = ["Nothing", "Plan", "Planner", "Unplannable"]

logger = logging.getLogger("rapids.worker")

MOST_UNWANTED = 1_000
"""How many types without a handler the log names."""


class Plan:
    """The event of an entry, and the handlers to run."""

    __slots__ = ("absent", "absent_because", "counts", "event", "fields", "handlers", "ledger", "replay")

    def __init__(
        self,
        event: Event,
        handlers: Sequence[Handler],
        fields: Fields,
        counts: OfType,
        ledger: Ledger = NO_LEDGER,
        replay: Replay | None = None,
        absent: Sequence[str] = (),
        absent_because: str = "",
    ) -> None:
        """`absent`: handlers that it needs and that this process cannot run for it, and why, if not because it does not
        have them for its type."""
        self.event = event
        self.handlers = handlers
        self.fields = fields
        self.counts = counts
        self.ledger = ledger
        self.replay = replay
        self.absent = absent
        self.absent_because = absent_because


@dataclass(frozen=True, slots=True)
class Unplannable:
    """An entry for which no handler can run, and why."""

    dead: Dead
    fields: Fields
    counts: OfType
    ledger: Ledger
    replay: Replay | None


class Nothing:
    """An entry that the group has no handler for."""


NOTHING = Nothing()

Planned: TypeAlias = Plan | Unplannable | Nothing


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of an event type, as long as it has this class."""

    event_type: str
    cls: type[BaseEvent]
    handlers: Sequence[Handler]
    counts: OfType
    version: bytes
    """The class's schema version, as entries have it."""


class Planner:
    """Makes plans for the entries of one group."""

    def __init__(
        self,
        handlers: Handlers,
        counts: Counts,
        log: Mapping[str, object],
        order_by: Callable[[Event], Hashable] | None = None,
    ) -> None:
        """`log`: the fields of every log record. `order_by`: from an event to its key."""
        self._handlers = handlers
        self._counts = counts
        self._log = log
        self._order_by = order_by
        self._unwanted: set[str] = set()
        """The types without a handler that the log has named."""
        self._known: dict[bytes, _Known] = {}

    def plan(self, entry: RawEntry) -> Planned:
        """The plan for an entry, which may hold any data. If it is invalid, the plan leads to a dead letter."""
        if entry.ledger is None and not entry.source.is_replay and (values := regular_values(entry.fields)) is not None:
            known = self._known.get(values[0])
            if known is None or get_event_class(known.event_type) is not known.cls:
                known = self._learn(values[0])  # for the first time, or its class was defined again
            if known is not None:
                if not known.handlers:
                    return NOTHING
                is_known = values[1] == known.version or newer_version(known.cls, entry.fields) is None
                if is_known and (event := decode_regular(known.cls, values)) is not None:
                    return Plan(event, known.handlers, entry.fields, known.counts)
        return self._plan_with_care(entry)

    def key_of(self, planned: Planned) -> tuple[Hashable, Planned]:
        """The key of an entry, None if it needs no order; and the plan. `order_by` is the user's code."""
        if not isinstance(planned, Plan) or self._order_by is None or planned.absent_because:
            return None, planned
        try:
            key = self._order_by(planned.event)
            hash(key)
        except BaseException as error:
            if is_of_signal(error):
                raise
            dead = Dead("", Reason.NON_RETRYABLE, Failure.of(error))
            return None, Unplannable(dead, planned.fields, planned.counts, planned.ledger, planned.replay)
        return key, planned

    def _learn(self, raw_type: bytes) -> "_Known | None":
        """What is known of a type that has a class. If too many types are known, all are forgotten."""
        try:
            event_type = raw_type.decode()
        except UnicodeDecodeError:
            return None
        cls = get_event_class(event_type)
        if cls is None:
            return None
        if len(self._known) >= MEMO_LIMIT:
            self._known.clear()
        handlers, counts = self._handlers.for_type(event_type), self._counts.of_type(event_type)
        counts.expect(handler.name for handler in handlers)
        if not handlers:
            self._tell_unwanted(event_type)
        known = self._known[raw_type] = _Known(event_type, cls, handlers, counts, b"%d" % cls.schema_version)
        return known

    def _tell_unwanted(self, event_type: str) -> None:
        """Say once for each type that its events are acknowledged unhandled. A stream may hold any number of types."""
        if event_type in self._unwanted or len(self._unwanted) >= MOST_UNWANTED:
            return
        self._unwanted.add(event_type)
        last = "; further types are not logged" if len(self._unwanted) == MOST_UNWANTED else ""
        logger.info(
            "no handler of the group is for %r: its events are acknowledged%s",
            event_type,
            last,
            extra={**self._log, "event_type": event_type},
        )

    def _plan_with_care(self, entry: RawEntry) -> Planned:
        fields, replay = entry.fields, None
        if entry.source.is_replay:
            fields, replay = taken_apart(fields)
            if replay is not None:
                replay = replace(replay, handler=self._handlers.present_name(replay.handler))
        event_type = event_type_in(fields)
        handlers: Sequence[Handler] = () if event_type is None else self._handlers.for_type(event_type)
        if event_type is not None and not handlers and not entry.source.is_replay:
            self._tell_unwanted(event_type)
            return NOTHING
        ledger = NO_LEDGER
        if entry.ledger is not None:
            ledger = self._handlers.present_ledger(Ledger.load(entry.ledger))
        counts = self._counts.of_type(event_type)
        try:
            if replay is not None and replay.handler:
                handlers = [handler for handler in self._handlers if handler.name == replay.handler]
                if not handlers:
                    raise NonRetryableError(no_handler(replay.handler))
            cls = get_event_class(event_type or "")
            version = None if cls is None else newer_version(cls, fields)
            event = decode(event_type or "", fields) if version is None else StoredEvent.read(fields).generic()
        except NonRetryableError as error:
            return _unplannable(Reason.NON_RETRYABLE, error, fields, counts, ledger, replay)
        except Exception as error:
            return _unplannable(Reason.DESERIALIZATION_ERROR, error, fields, counts, ledger, replay)
        absent: Sequence[str] = ()
        if ledger is not NO_LEDGER:
            here = {handler.name for handler in handlers}
            absent = [name for name in ledger.due(entry.taken_ms) if name not in here]
            handlers = [
                handler
                for handler in handlers
                if handler.name not in ledger.finished and not ledger.waits_for(handler.name, entry.taken_ms)
            ]
        counts.expect(handler.name for handler in handlers)
        if cls is None or version is None:
            return Plan(event, handlers, fields, counts, ledger, replay, absent)
        # Read as an older version, it would be misunderstood. A process that has the newer class may take it.
        why = f"its schema version is {version}, and the class {cls.__name__} of this process has {cls.schema_version}"
        absent = [*absent, *(handler.name for handler in handlers)]
        return Plan(event, (), fields, counts, ledger, replay, absent, why)


def _unplannable(
    reason: Reason, error: Exception, fields: Fields, counts: OfType, ledger: Ledger, replay: Replay | None
) -> Unplannable:
    # The letter of a replay keeps the name of its handler, since no other handler is to run.
    dead = Dead(replay.handler if replay else "", reason, Failure.of(error))
    return Unplannable(dead, fields, counts, ledger, replay)
