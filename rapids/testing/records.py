"""Records of events: what was emitted, and assertions about it that say what was emitted instead."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar, overload

from rapids.events import Event, GenericEvent

__all__ = ["EventRecord", "described"]

E = TypeVar("E", bound=Event)

SHOWN = 30
"""How many events a message lists."""

LENGTH = 300
"""How many characters of an event a message shows."""


class EventRecord:
    """Events in the order in which they were emitted, as their readers get them.

    A `target` is an event class, which includes its subclasses, or an event type as text. `fields` are values that an
    event must have in addition: `only(OrderPlaced, order_id="o-1")`. A name that the class does not have is a
    `TypeError`.
    """

    @property
    def events(self) -> tuple[Event, ...]:
        """All events, in order."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    def __len__(self) -> int:
        return len(self.events)

    def __bool__(self) -> bool:  # an emitter without events is an emitter nevertheless
        return True

    @overload
    def of(self, target: type[E], /, **fields: object) -> list[E]: ...
    @overload
    def of(self, target: str, /, **fields: object) -> list[Event]: ...
    def of(self, target: type[Event] | str, /, **fields: object) -> Sequence[Event]:
        """The events of a class or type that have these fields. There may be none."""
        __tracebackhide__ = True
        _check_target(target, fields)
        return [event for event in self.events if _is_of(event, target) and not differing(event, fields)]

    @overload
    def emitted(self, target: type[E], /, **fields: object) -> list[E]: ...
    @overload
    def emitted(self, target: str, /, **fields: object) -> list[Event]: ...
    def emitted(self, target: type[Event] | str, /, **fields: object) -> Sequence[Event]:
        """The events of a class or type that have these fields: at least one.

        Raises `AssertionError`, which lists what was emitted instead.
        """
        __tracebackhide__ = True
        found = self.of(target, **fields)
        if not found:
            raise AssertionError(self._instead(f"expected {_wanted(target, fields)} to be emitted", target, fields))
        return found

    @overload
    def only(self, target: type[E], /, **fields: object) -> E: ...
    @overload
    def only(self, target: str, /, **fields: object) -> Event: ...
    def only(self, target: type[Event] | str, /, **fields: object) -> Event:
        """The one event of a class or type that has these fields. There may be events of others.

        Raises `AssertionError` if there is none or more than one, and lists what was emitted.
        """
        __tracebackhide__ = True
        found = self.of(target, **fields)
        if len(found) != 1:
            expected = f"expected exactly one {_wanted(target, fields)} to be emitted, not {len(found)}"
            raise AssertionError(self._instead(expected, target, fields))
        return found[0]

    def nothing(self, target: type[Event] | str | None = None, /, **fields: object) -> None:
        """Nothing was emitted, or nothing of a class or type that has these fields.

        Raises `AssertionError`, which lists what was emitted.
        """
        __tracebackhide__ = True
        found = self.events if target is None else self.of(target, **fields)
        if found:
            what = "nothing" if target is None else f"no {_wanted(target, fields)}"
            raise AssertionError(self._instead(f"expected {what} to be emitted", target, fields))

    def _instead(self, expected: str, target: type[Event] | str | None, fields: Mapping[str, object]) -> str:
        events = self.events
        if not events:
            return f"{expected}; nothing was emitted"
        lines = [f"{expected}; emitted were:"]
        for number, event in enumerate(events[:SHOWN], start=1):
            differs = differing(event, fields) if target is not None and _is_of(event, target) else {}
            note = f"   <- {', '.join(f'{name}={value!r}' for name, value in differs.items())}" if differs else ""
            lines.append(f"  {number}. {described(event)}{note[:LENGTH]}")
        if len(events) > SHOWN:
            lines.append(f"  and {len(events) - SHOWN} more")
        return "\n".join(lines)


def described(event: Event) -> str:
    """An event in one line: its class or type, and its own fields."""
    if isinstance(event, GenericEvent):
        own, name = event.data, f"GenericEvent {event.raw_type!r}"
    else:
        common = Event.model_fields.keys()
        own = {key: getattr(event, key) for key in type(event).model_fields if key not in common}
        name = type(event).__name__
    text = f"{name}({', '.join(f'{key}={value!r}' for key, value in own.items())})"
    return text if len(text) <= LENGTH else f"{text[:LENGTH]}..."


def differing(event: Event, fields: Mapping[str, object]) -> dict[str, object]:
    """The fields of an event that have other values than the given ones.

    Raises `TypeError` for a name that its class does not have.
    """
    __tracebackhide__ = True
    values: dict[str, object] = {}
    for name in fields:
        if isinstance(event, GenericEvent) and name in event.data:
            values[name] = event.data[name]
        elif isinstance(event, GenericEvent) and name not in GenericEvent.model_fields:
            values[name] = None
        elif not hasattr(event, name):
            names = ", ".join(map(repr, type(event).model_fields))
            raise TypeError(f"{type(event).__name__} has no field {name!r}; it has {names}")
        else:
            values[name] = getattr(event, name)
    return {name: value for name, value in values.items() if value != fields[name]}


def _is_of(event: Event, target: type[Event] | str) -> bool:
    return event.routing_key == target if isinstance(target, str) else isinstance(event, target)


def _check_target(target: type[Event] | str, fields: Mapping[str, object]) -> None:
    """Raise `TypeError` for what no event can be of, also if there are no events to compare."""
    __tracebackhide__ = True
    if isinstance(target, str):
        return
    if not (isinstance(target, type) and issubclass(target, Event)):  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
        raise TypeError(f"target must be an event class or an event type such as 'order.placed', not {target!r}")
    for name in fields:
        if not _may_have(target, name):
            names = ", ".join(map(repr, target.model_fields))
            raise TypeError(f"{target.__name__} has no field {name!r}; it has {names}")


def _may_have(kind: type[Event], name: str) -> bool:
    """Whether events of a class can have this field: those of a subclass may have more."""
    has_it = name in kind.model_fields or hasattr(kind, name) or issubclass(kind, GenericEvent)
    return has_it or any(_may_have(one, name) for one in kind.__subclasses__())


def _wanted(target: type[Event] | str, fields: Mapping[str, object]) -> str:
    name = target if isinstance(target, str) else target.__name__
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in fields.items())})" if fields else name
