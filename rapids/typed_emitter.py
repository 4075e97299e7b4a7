"""The typed emitter: `Emits[OrderPlaced | OrderRejected]` in a signature, which emits events of these classes only."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, Union, cast, get_args, get_origin, overload

from pydantic import BaseModel

from rapids.events import BaseEvent, Event, same_class, types_below
from rapids.providers import EmitterLike

__all__ = ["DeclaredEmitter", "Emits", "EmitsProvider", "declared_classes"]

E = TypeVar("E", bound=Event, contravariant=True)


class Emits(Protocol[E]):
    """An emitter for events of the class or the union `E`, as the type of a handler's parameter:

        @router.on(PaymentTaken)
        async def ship(event: PaymentTaken, events: Emits[OrderShipped | OrderHeld]) -> None:
            await events.emit(OrderShipped(order_id=event.order_id))

    A type checker refuses other events, and so does `emit`, with `TypeError`. The catalog and the AsyncAPI document
    know from it who emits what. Every `EventEmitter` can be given for it, also the `RecordingEmitter` of a test.

    In an endpoint of FastAPI, take `Emits` from `rapids_fastapi`.
    """

    @overload
    async def emit(self, event: E, *, caused_by: Event | None = None) -> str: ...
    @overload
    async def emit(self, event: Sequence[E], *, caused_by: Event | None = None) -> list[str]: ...
    async def emit(self, event: Any, *, caused_by: Event | None = None) -> Any:
        """As `EventEmitter.emit`. Raises `TypeError` also for an event of a class that was not declared."""
        ...

    if not TYPE_CHECKING:  # an emitter need not have it

        @classmethod
        def __get_pydantic_core_schema__(cls, source: object, handler: object) -> Any:
            """Called if an endpoint has this class, which FastAPI would take for the type of its body."""
            raise TypeError("an endpoint of FastAPI takes Emits from rapids_fastapi: from rapids_fastapi import Emits")


class DeclaredEmitter:
    """What fills a parameter `Emits[...]`: the emitter, which refuses events of classes that are not declared."""

    def __init__(self, emitter: EmitterLike, classes: Sequence[type[Event]]) -> None:
        self._emitter = emitter
        self._classes = tuple(classes)

    def emit(self, event: Any, *, caused_by: Event | None = None) -> Any:
        """What the emitter's own `emit` returns. Raises `TypeError` for an event of a class that is not declared."""
        given: Sequence[object] = (event,)
        if isinstance(event, Iterable) and not isinstance(event, BaseModel | str | bytes | bytearray | Mapping):
            event = given = list(cast("Iterable[object]", event))
        for one in given:
            if not isinstance(one, Event) or isinstance(one, self._classes):
                continue
            if not any(same_class(base, declared) for base in type(one).__mro__ for declared in self._classes):
                names = " | ".join(cls.__name__ for cls in self._classes)
                raise TypeError(
                    f"this emitter is for Emits[{names}], and {type(one).__name__} ({one.routing_key}) is not "
                    "declared: add the class to the annotation"
                )
        return self._emitter.emit(event, caused_by=caused_by)

    def __repr__(self) -> str:
        return f"<Emits[{' | '.join(cls.__name__ for cls in self._classes)}] with {self._emitter!r}>"


@dataclass(frozen=True, slots=True)
class EmitsProvider:
    """The provider of parameters `Emits[...]`."""

    classes: tuple[type[Event], ...]

    async def __call__(self, emitter: EmitterLike) -> DeclaredEmitter:
        return DeclaredEmitter(emitter, self.classes)

    @property
    def event_types(self) -> tuple[str, ...]:
        """The event types of the classes and their subclasses. None of `Event` and `BaseEvent`, which say nothing."""
        own = [cls for cls in self.classes if issubclass(cls, BaseEvent) and cls is not BaseEvent]
        return tuple(dict.fromkeys(one for cls in own for one in sorted(types_below(cls))))


def declared_classes(events: object) -> tuple[type[Event], ...]:
    """The classes in `Emits[events]`. Raises `TypeError` for anything but an event class, or a union of them."""
    alias = getattr(events, "__value__", None)  # of `type Events = A | B`
    if alias is not None and not isinstance(events, type):
        return declared_classes(alias)
    if get_origin(events) in (Union, UnionType):
        return tuple(dict.fromkeys(cls for member in get_args(events) for cls in declared_classes(member)))
    if isinstance(events, type) and issubclass(events, Event):
        return (events,)
    raise TypeError(f"Emits[...] takes an event class, or a union of event classes, not {events!r}")
