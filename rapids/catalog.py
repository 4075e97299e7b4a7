"""The catalog of events: which types there are, their schemas, who emits them, and who handles them by which policy."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from inspect import getdoc
from typing import Literal, TypeAlias

from rapids._core.json_schema import with_json_schema
from rapids.emitter import EventEmitter
from rapids.event_schemas import Schema, event_schema
from rapids.events import BaseEvent, event_classes
from rapids.router import EventRouter
from rapids.typed_emitter import EmitsProvider

__all__ = ["Catalog", "CatalogEntry", "EmittedBy", "EmitterKind", "EmittingEndpoint", "HandledBy"]

EmitterKind: TypeAlias = Literal["endpoint", "handler", "seen"]
"""`endpoint`, `handler`: it declares by `Emits[...]` that it emits the type. `seen`: this process has emitted events of
the type to the stream, and nobody declares it."""


@dataclass(frozen=True, slots=True)
class EmittingEndpoint:
    """An endpoint that declares what it emits."""

    endpoint: str
    """Method and path, such as `POST /orders`; of a WebSocket, `WEBSOCKET /orders`."""
    event_types: tuple[str, ...]
    stream: str


@with_json_schema
@dataclass(frozen=True, slots=True)
class EmittedBy:
    """Who emits events of a type."""

    stream: str
    kind: EmitterKind
    name: str
    """Of an endpoint, its method and path; of a handler, its name; otherwise empty."""
    group: str = ""
    """Of a handler, its group; otherwise empty."""


@with_json_schema
@dataclass(frozen=True, slots=True)
class HandledBy:
    """A handler of an event type, and its policy."""

    stream: str
    group: str
    handler: str
    timeout: float
    """Seconds."""
    retries: int
    """Quick attempts after the first, at each delivery."""
    retryable_exceptions: tuple[str, ...]
    """The names of the errors after which it is tried again; empty for all errors."""
    max_deliveries: int
    dlq_stream: str | None
    """Where its dead letters go; None if entries that failed for good are parked."""


@with_json_schema
@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """An event type."""

    event_type: str
    schema_version: int
    event_class: str
    """Module and name."""
    description: str
    """The docstring of the class."""
    json_schema: Schema
    """What the class reads as `data`, the event's own fields."""
    emitters: tuple[EmittedBy, ...]
    handlers: tuple[HandledBy, ...]


def read_schema(cls: type[BaseEvent]) -> Schema:
    """The JSON Schema of what the class reads as `data`. It takes milliseconds to make."""
    return event_schema(cls, "read")


@dataclass(frozen=True, slots=True)
class Catalog:
    """The event types whose classes this process knows, by name."""

    entries: tuple[CatalogEntry, ...]

    @classmethod
    def of(
        cls,
        routers: Sequence[EventRouter] = (),
        *,
        endpoints: Iterable[EmittingEndpoint] = (),
        emitters: Iterable[EventEmitter] = (),
        schema_of: Callable[[type[BaseEvent]], Schema] = read_schema,
    ) -> "Catalog":
        """The catalog of all event classes that are defined now, and of these routers.

        `endpoints`: endpoints that declare what they emit, as `rapids_fastapi.emitting_endpoints(app)` finds them.
        `emitters`: emitters whose counters say what they have emitted since they were created.
        `schema_of`: the JSON Schema of a class, from a cache for example; by default, it is made.
        """
        declared = [
            *((one.event_types, EmittedBy(one.stream, "endpoint", one.endpoint)) for one in endpoints),
            *_emitting_handlers(routers),
        ]
        seen = {
            (sample.labels["event_type"], emitter.stream)
            for emitter in emitters
            for sample in emitter.counters
            if sample.name == "emitted" and sample.value
        }
        return cls(tuple(_entry(one, schema_of(one), routers, declared, seen) for one in event_classes()))

    def __iter__(self) -> Iterator[CatalogEntry]:
        return iter(self.entries)

    def __getitem__(self, event_type: str) -> CatalogEntry:
        """The entry of an event type. Raises `KeyError` if no class has it."""
        for one in self.entries:
            if one.event_type == event_type:
                return one
        raise KeyError(event_type)


def _emitting_handlers(routers: Sequence[EventRouter]) -> Iterator[tuple[tuple[str, ...], EmittedBy]]:
    for router in routers:
        stream = str(getattr(router.emitter, "stream", router.stream))
        for handler in router.handlers:
            for step in handler.dependencies.steps if handler.dependencies else ():
                if isinstance(step.provider, EmitsProvider):
                    by = EmittedBy(stream, "handler", handler.name, router.group)
                    yield step.provider.event_types, by


def _entry(
    cls: type[BaseEvent],
    schema: Schema,
    routers: Sequence[EventRouter],
    declared: Sequence[tuple[tuple[str, ...], EmittedBy]],
    seen: set[tuple[str, str]],
) -> CatalogEntry:
    emitters = dict.fromkeys(by for event_types, by in declared if cls.event_type in event_types)
    streams = {by.stream for by in emitters}
    others = sorted(stream for event_type, stream in seen if event_type == cls.event_type and stream not in streams)
    return CatalogEntry(
        event_type=cls.event_type,
        schema_version=cls.schema_version,
        event_class=f"{cls.__module__}.{cls.__qualname__}",
        description=(getdoc(cls) or "") if cls.__doc__ else "",
        json_schema=schema,
        emitters=(*emitters, *(EmittedBy(stream, "seen", "") for stream in others)),
        handlers=tuple(
            HandledBy(
                stream=router.stream,
                group=router.group,
                handler=handler.name,
                timeout=handler.timeout,
                retries=handler.retries,
                retryable_exceptions=tuple(error.__name__ for error in handler.retryable_exceptions),
                max_deliveries=router.max_deliveries,
                dlq_stream=router.dlq_stream,
            )
            for router in routers
            for handler in router.handlers
            if handler.handles(cls.event_type)
        ),
    )
