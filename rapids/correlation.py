"""The correlation and causation ids of the running code: which request or event it works for.

Every event carries two ids. The *correlation id* is shared by everything that one request or job caused. The
*causation id* is the id of the event that led to this one. Both are kept in a context variable, so tasks that are
started inside a scope inherit them.
"""

from contextvars import ContextVar, Token
from types import TracebackType
from typing import Self
from uuid import uuid4

from rapids._core.checks import text

__all__ = ["CorrelationScope", "correlation_scope", "get_causation_id", "get_correlation_id"]

_ids: ContextVar[tuple[str | None, str | None]] = ContextVar("rapids_correlation", default=(None, None))
"""The correlation id and the causation id."""


def get_correlation_id() -> str | None:
    """The correlation id of the scope or of the event being handled, or None outside both."""
    return _ids.get()[0]


def get_causation_id() -> str | None:
    """The id of the event being handled, or None outside a handler."""
    return _ids.get()[1]


def handle(correlation_id: str | None, event_id: str) -> None:
    """Set the ids for handling an event: events emitted from now on are caused by it and share its correlation id.

    Only in a context of its own, since nothing is restored. An event without a correlation id starts a new
    correlation, and the event's id is the correlation id.
    """
    _ids.set((correlation_id or event_id, event_id))


class CorrelationScope:
    """A context manager, synchronous or not, that sets the correlation id and restores what was there before."""

    __slots__ = ("_tokens", "causation_id", "correlation_id")

    def __init__(self, correlation_id: str, causation_id: str | None = None) -> None:
        self.correlation_id: str = correlation_id
        self.causation_id: str | None = causation_id
        self._tokens: list[Token[tuple[str | None, str | None]]] = []

    def __enter__(self) -> str:
        causation_id = get_causation_id() if self.causation_id is None else self.causation_id
        self._tokens.append(_ids.set((self.correlation_id, causation_id)))
        return self.correlation_id

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _ids.reset(self._tokens.pop())

    async def __aenter__(self) -> str:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    @classmethod
    def handling(cls, correlation_id: str | None, event_id: str) -> Self:
        """The scope for handling an event: events emitted in it are caused by it and share its correlation id.

        An event without a correlation id starts a new correlation, and the event's id is the correlation id.
        """
        return cls(correlation_id or event_id, event_id)


def correlation_scope(correlation_id: str | None = None) -> CorrelationScope:
    """Give all events emitted inside `async with` (or `with`) the same correlation id, and yield that id.

    Without an id, a new UUID is used. An id that is set on an event has priority over the scope's.

    Raises `ValueError` for an empty or unprintable id.
    """
    return CorrelationScope(str(uuid4()) if correlation_id is None else text("correlation_id", correlation_id))
