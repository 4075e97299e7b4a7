"""The delivery that a handler works on, and the type of middleware around handlers."""

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from rapids.events import Event

__all__ = ["CallNext", "Delivery", "HandlerMiddleware", "current_delivery"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One entry as one group got it, for one handler."""

    event: Event
    handler: str
    """The handler's name."""
    stream: str
    group: str
    consumer: str
    entry_id: str
    """The entry's id in the stream; for a replay, its id in the group's replay stream."""
    deliveries: int
    """How many times the entry was delivered to the group, this time included."""
    attempt: int
    """The number of the quick attempt within this delivery, from 1."""
    replay_of: str | None = None
    """The id of the dead letter that this delivery replays; None if it is no replay."""
    spent: int = 1
    """How many of `max_deliveries` this handler has used up, this one included. Deliveries that were only for other
    handlers of the event do not count."""


CallNext: TypeAlias = Callable[[Delivery], Awaitable[None]]
"""Calls the next middleware or the handler, and raises what that raises."""

HandlerMiddleware: TypeAlias = Callable[[Delivery, CallNext], Awaitable[None]]
"""`async def middleware(delivery, call_next)`, which runs around each attempt of each handler."""


class UnderWay(NamedTuple):
    """The data of a `Delivery` as a tuple, which is cheaper: most handlers never ask for their `Delivery`."""

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
    """The delivery that the running handler works on, or None outside a handler."""
    under_way = under_way_variable.get()
    return None if under_way is None else under_way.delivery()
