"""What a handler can know about the delivery it works on, and the middleware around it."""

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from rapids.events import Event

__all__ = ["CallNext", "Delivery", "HandlerMiddleware", "current_delivery"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One entry, as one group got it, on its way into one handler."""

    event: Event
    handler: str
    """The handler's name."""
    stream: str
    group: str
    consumer: str
    entry_id: str
    """The entry's id in the stream, or for a replay in the group's replay stream."""
    deliveries: int
    """How many times the group has been given this entry, this time included."""
    attempt: int
    """The quick attempt within this delivery, from 1."""
    replay_of: str | None = None
    """The id of the dead letter this replays, if it does."""
    spent: int = 1
    """How many of `max_deliveries` are used up for this handler, this one included: deliveries that were for other
    handlers of the event only do not count."""


CallNext: TypeAlias = Callable[[Delivery], Awaitable[None]]
"""Goes on to the next middleware, or to the handler; raises what that raises."""

HandlerMiddleware: TypeAlias = Callable[[Delivery, CallNext], Awaitable[None]]
"""`async def middleware(delivery, call_next)`: runs around each attempt of each handler."""


class UnderWay(NamedTuple):
    """What a handler is at, as cheap as can be: most handlers never ask for their `Delivery`."""

    event: Event
    handler: str
    stream: str
    group: str
    consumer: str
    entry_id: bytes
    deliveries: int
    attempt: int
    replay_of: str | None
    spent: int

    def delivery(self) -> Delivery:
        return Delivery(*self[:5], self.entry_id.decode(), *self[6:])


under_way_variable: ContextVar[UnderWay | None] = ContextVar("rapids_under_way", default=None)


def current_delivery() -> Delivery | None:
    """The delivery the running handler works on, or None outside a handler."""
    under_way = under_way_variable.get()
    return None if under_way is None else under_way.delivery()
