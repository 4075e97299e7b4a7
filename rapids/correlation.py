"""Which request or event the running code works for.

Two ids travel with every event: the *correlation id* is shared by everything that one request or job set off, the
*causation id* is the id of the event that led to this one. Both live in context variables, so tasks started inside a
scope inherit them.
"""

from contextvars import ContextVar, Token
from types import TracebackType
from typing import Self
from uuid import uuid4

from rapids._core.checks import text

__all__ = ["CorrelationScope", "correlation_scope", "get_causation_id", "get_correlation_id"]

_correlation_id: ContextVar[str | None] = ContextVar("rapids_correlation_id", default=None)
_causation_id: ContextVar[str | None] = ContextVar("rapids_causation_id", default=None)


def get_correlation_id() -> str | None:
    """The correlation id of the scope or of the event being handled, or None outside both."""
    return _correlation_id.get()


def get_causation_id() -> str | None:
    """The id of the event being handled, or None outside a handler."""
    return _causation_id.get()


def handle(correlation_id: str | None, event_id: str) -> None:
    """Handle an event from now on: what it leads to is caused by it, and correlated with it.

    For a task whose context is its own, since nothing is restored. An event without a correlation id starts a
    correlation of its own, named by its id.
    """
    _correlation_id.set(correlation_id or event_id)
    _causation_id.set(event_id)


class CorrelationScope:
    """A context manager, synchronous or not, that sets the correlation id and restores what was there before."""

    __slots__ = ("_tokens", "causation_id", "correlation_id")

    def __init__(self, correlation_id: str, causation_id: str | None = None) -> None:
        self.correlation_id: str = correlation_id
        self.causation_id: str | None = causation_id
        self._tokens: list[tuple[Token[str | None], Token[str | None]]] = []

    def __enter__(self) -> str:
        causation = _causation_id.get() if self.causation_id is None else self.causation_id
        self._tokens.append((_correlation_id.set(self.correlation_id), _causation_id.set(causation)))
        return self.correlation_id

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        correlation, causation = self._tokens.pop()
        _correlation_id.reset(correlation)
        _causation_id.reset(causation)

    async def __aenter__(self) -> str:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    @classmethod
    def handling(cls, correlation_id: str | None, event_id: str) -> Self:
        """The scope in which an event is handled: what it leads to is caused by it, and correlated with it.

        An event without a correlation id starts a correlation of its own, named by its id.
        """
        return cls(correlation_id or event_id, event_id)


def correlation_scope(correlation_id: str | None = None) -> CorrelationScope:
    """Give every event emitted inside `async with` (or `with`) the same correlation id, and yield it.

    Without an id, a new UUID is made. An id set on an event itself wins over the scope's.

    Raises `ValueError` for an empty or unprintable id.
    """
    return CorrelationScope(str(uuid4()) if correlation_id is None else text("correlation_id", correlation_id))
