"""What a handler can know about the delivery it works on, and the middleware around it."""

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeAlias

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
    """How many deliveries of this entry count for this handler, this one included.

    That is how often the group has been given the entry, but for deliveries that were for other handlers only."""
    attempt: int
    """The quick attempt within this delivery, from 1."""
    replay_of: str | None = None
    """The id of the dead letter this replays, if it does."""


CallNext: TypeAlias = Callable[[Delivery], Awaitable[None]]
"""Goes on to the next middleware, or to the handler; raises what that raises."""

HandlerMiddleware: TypeAlias = Callable[[Delivery, CallNext], Awaitable[None]]
"""`async def middleware(delivery, call_next)`: runs around each attempt of each handler."""

delivery_variable: ContextVar[Delivery | None] = ContextVar("rapids_delivery", default=None)


def current_delivery() -> Delivery | None:
    """The delivery the running handler works on, or None outside a handler."""
    return delivery_variable.get()
