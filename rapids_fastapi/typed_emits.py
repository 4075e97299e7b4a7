"""Typed emitters of endpoints, `Emits[OrderPlaced]` and `EmitsOnSuccess[OrderPlaced]`, and what OpenAPI has of them."""

from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

from fastapi import Depends

import rapids
from rapids import Event
from rapids.catalog import EmittingEndpoint
from rapids.typed_emitter import DeclaredEmitter, EmitsProvider, declared_classes
from rapids_fastapi.admin.problems import included
from rapids_fastapi.dependencies import EmitterDep, OnSuccessEmitterDep

__all__ = ["Emits", "EmitsOnSuccess", "describe_emits", "emitting_endpoints"]

E = TypeVar("E", bound=Event, contravariant=True)

EXTENSION = "x-emits"
"""The member of an OpenAPI operation: the event types that it emits."""


@dataclass(frozen=True)
class _Emits:
    """The provider of `Emits[...]` in endpoints. It is overridden as `get_emitter`."""

    in_handlers: EmitsProvider
    """What is called in handlers, which have no connection."""

    async def __call__(self, emitter: EmitterDep) -> DeclaredEmitter:
        return DeclaredEmitter(emitter, self.in_handlers.classes)


@dataclass(frozen=True)
class _EmitsOnSuccess:
    """The provider of `EmitsOnSuccess[...]`."""

    declared: EmitsProvider

    async def __call__(self, collected: OnSuccessEmitterDep) -> DeclaredEmitter:
        return DeclaredEmitter(collected, self.declared.classes)


class Emits(rapids.Emits[E], Protocol[E]):
    """`rapids.Emits` for endpoints of FastAPI, WebSockets and handlers: an emitter for events of a class or a union.

        @app.post("/orders")
        async def place_order(order: OrderIn, events: Emits[OrderPlaced | OrderRejected]) -> OrderOut:
            await events.emit(OrderPlaced(...))

    A type checker refuses other events, and so does `emit`, with `TypeError`. OpenAPI has the event types of an
    operation as `x-emits`. What is emitted, when, and by which overrides, is as with `EmitterDep`.
    """

    if not TYPE_CHECKING:

        def __class_getitem__(cls, events: Any) -> Any:
            """The annotation. Raises `TypeError` for anything but an event class, or a union of them."""
            if isinstance(events, TypeVar):
                return super().__class_getitem__(events)
            return Annotated[rapids.Emits[events], Depends(_Emits(EmitsProvider(declared_classes(events))))]


class EmitsOnSuccess(Protocol[E]):
    """As `Emits`, but the events go out when the response is about to start and is no error, as with
    `OnSuccessEmitterDep`. Its `emit` needs no `await`. Only for endpoints."""

    def emit(self, event: E | Sequence[E], *, caused_by: Event | None = None) -> Awaitable[None]:
        """As `OnSuccessEmitter.emit`. Raises `TypeError` also for an event of a class that was not declared."""
        ...

    if not TYPE_CHECKING:

        def __class_getitem__(cls, events: Any) -> Any:
            """The annotation. Raises `TypeError` for anything but an event class, or a union of them."""
            return Annotated[DeclaredEmitter, Depends(_EmitsOnSuccess(EmitsProvider(declared_classes(events))))]


def emitting_endpoints(app: Any, stream: str = "events:all") -> tuple[EmittingEndpoint, ...]:
    """The endpoints of an application, and of those that are mounted in it, which declare what they emit.

    `stream`: the stream of the application's emitter, for the catalog.
    """
    return tuple(
        EmittingEndpoint(f"{method} {path}", event_types, stream)
        for path, route, event_types in _declared(app, "")
        for method in sorted(getattr(route, "methods", None) or {"WEBSOCKET"})
    )


def describe_emits(app: Any) -> None:
    """Add `x-emits` to the OpenAPI operations of endpoints that declare what they emit.

    The lifespan of `Rapids` does it. Call it where `app.openapi()` is called without the lifespan, in a script. Call it
    after the last route was added. It may be called again.
    """
    for _, route, event_types in _declared(app, ""):
        for one in (route, getattr(route, "original_route", route)):
            extra: dict[str, Any] = getattr(one, "openapi_extra", None) or {}
            if hasattr(one, "openapi_extra") and extra.get(EXTENSION) != list(event_types):
                one.openapi_extra = {**extra, EXTENSION: list(event_types)}
                app.openapi_schema = None  # which may be made already


def _declared(app: Any, prefix: str) -> Iterator[tuple[str, Any, tuple[str, ...]]]:
    """The path, the route and the event types of each endpoint that declares any."""
    for route in included(app) if hasattr(app, "routes") else ():
        path = prefix + getattr(route, "path", "")
        if (dependant := getattr(route, "dependant", None)) is not None:
            event_types = tuple(dict.fromkeys(_event_types(dependant)))
            if event_types:
                yield path, route, event_types
        elif hasattr(mounted := getattr(route, "app", None), "routes"):
            yield from _declared(mounted, path)


def _event_types(dependant: Any) -> Iterator[str]:
    match dependant.call:
        case _Emits(in_handlers=declared) | _EmitsOnSuccess(declared=declared):
            yield from declared.event_types
        case _:
            for one in dependant.dependencies:
                yield from _event_types(one)
