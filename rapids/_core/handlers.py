"""Registering handlers: `on` and what it makes."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, cast, overload

from rapids._core.checks import at_least, positive_seconds, text
from rapids._core.checks import backoff as check_backoff
from rapids._core.outcomes import Done
from rapids._core.patterns import Target, matches, targets_of
from rapids._core.renames import Renames
from rapids.backoff import Backoff
from rapids.events import Event, get_event_class

if TYPE_CHECKING:
    from typing_extensions import TypeForm  # what a union of classes is to a type checker

__all__ = ["Handler", "HandlerFunction", "HandlerRegistry", "Handlers"]

E = TypeVar("E", bound=Event)
HandlerFunction: TypeAlias = Callable[[E], Awaitable[object]]
A = TypeVar("A", bound=Awaitable[object])


class Decorator(Protocol[E]):
    """Takes a handler of these events, or of more, and gives it back with what it returns."""

    def __call__(self, function: Callable[[E], A], /) -> Callable[[E], A]: ...


MEMO_LIMIT = 4_096
"""Event types whose handlers are remembered. A stream may hold any number of types nobody declared."""


@dataclass(frozen=True, slots=True)
class Handler:
    """One registered coroutine function with its policy and a stable name. Options that are None are the router's."""

    name: str
    function: Callable[[Any], Awaitable[object]]
    targets: tuple[Target, ...]
    timeout: float
    """Seconds."""
    retries: int
    """Quick attempts after the first."""
    backoff: Backoff
    retryable_exceptions: tuple[type[BaseException], ...]
    """What to try again after; empty for every error."""
    done: Done = field(init=False, repr=False, compare=False)
    """What becomes of it most of the time."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "done", Done(self.name))

    def handles(self, event_type: str) -> bool:
        return any(matches(target, event_type) for target in self.targets)


class Handlers:
    """The handlers of a group, in order of registration; those for an event type are looked up once.

    `renamed` is from the names that some had before to those they have now. Raises `ValueError` where it does not fit.
    """

    def __init__(self, handlers: Iterable[Handler], renamed: Mapping[str, str] | None = None) -> None:
        self._handlers = tuple(handlers)
        self.renames = Renames(renamed or {}, (handler.name for handler in self._handlers))
        self._by_type: dict[tuple[str, type[Event] | None], tuple[Handler, ...]] = {}

    def __iter__(self) -> Iterator[Handler]:
        return iter(self._handlers)

    def for_type(self, event_type: str) -> tuple[Handler, ...]:
        """The handlers for events of this type."""
        key = event_type, get_event_class(event_type)  # a class may be defined, or defined again, at any time
        found = self._by_type.get(key)
        if found is None:
            if len(self._by_type) >= MEMO_LIMIT:
                self._by_type.clear()
            found = tuple(handler for handler in self._handlers if handler.handles(event_type))
            self._by_type[key] = found
        return found


class HandlerRegistry:
    """The part of a router that takes registrations."""

    def __init__(self, *, timeout: float, retries: int, backoff: Backoff) -> None:
        self._registered: list[Handler] = []
        self._names: set[str] = set()
        self._defaults = (timeout, retries, backoff)

    @overload
    def on(
        self,
        target: type[E],
        *,
        timeout: float | None = None,
        retries: int | None = None,
        backoff: Backoff | None = None,
        retryable_exceptions: tuple[type[BaseException], ...] = (),
        name: str | None = None,
    ) -> Decorator[E]: ...
    @overload
    def on(
        self,
        target: "TypeForm[E]",
        *,
        timeout: float | None = None,
        retries: int | None = None,
        backoff: Backoff | None = None,
        retryable_exceptions: tuple[type[BaseException], ...] = (),
        name: str | None = None,
    ) -> Decorator[E]: ...
    @overload
    def on(
        self,
        target: str,
        *,
        timeout: float | None = None,
        retries: int | None = None,
        backoff: Backoff | None = None,
        retryable_exceptions: tuple[type[BaseException], ...] = (),
        name: str | None = None,
    ) -> Decorator[Any]: ...
    def on(
        self,
        target: object,
        *,
        timeout: float | None = None,
        retries: int | None = None,
        backoff: Backoff | None = None,
        retryable_exceptions: tuple[type[BaseException], ...] = (),
        name: str | None = None,
    ) -> Decorator[Any]:
        """Run the decorated coroutine function for matching events.

        `target` is an event class (its subclasses match too), a union of classes, or a pattern over event types.
        `timeout` (seconds), `retries` (quick attempts after the first) and `backoff` override the router's defaults.
        `retryable_exceptions`: with any listed, another exception makes a dead letter at once; empty restricts
        nothing. `name` is what dead letters and the ledger call the handler; the function's own name by default.

        Raises `TypeError` or `ValueError` for options that make no sense, `ValueError` for a `name` taken twice.
        """
        default_timeout, default_retries, default_backoff = self._defaults
        targets = targets_of(target)
        limit = default_timeout if timeout is None else positive_seconds("timeout", timeout)
        attempts = default_retries if retries is None else at_least("retries", retries, 0)
        pause = default_backoff if backoff is None else check_backoff("backoff", backoff)
        retryable = _exceptions(retryable_exceptions)
        if name is not None:
            text("name", name)

        def register(function: Callable[[Any], A]) -> Callable[[Any], A]:
            _check_is_async(function)
            named = self._name_for(function, name)
            self._register(Handler(named, function, targets, limit, attempts, pause, retryable))
            return function

        return register

    def _register(self, handler: Handler) -> None:
        self._registered.append(handler)
        self._names.add(handler.name)

    def _name_for(self, function: HandlerFunction[Any], name: str | None) -> str:
        taken = self._names
        if name is not None:
            if name in taken:
                raise ValueError(f"name must be one that no other handler of the router has, not {name!r}")
            return name
        short = getattr(function, "__name__", type(function).__name__)
        if short not in taken:
            return short
        module = getattr(function, "__module__", type(function).__module__)
        long = f"{module}.{getattr(function, '__qualname__', short)}"
        candidates = (long if number == 1 else f"{long}#{number}" for number in range(1, len(taken) + 2))
        return next(candidate for candidate in candidates if candidate not in taken)


def _check_is_async(function: object) -> None:
    if not callable(function):
        raise TypeError(f"a handler must be an async function, not {function!r}")
    if not (iscoroutinefunction(function) or iscoroutinefunction(getattr(function, "__call__", None))):  # noqa: B004
        raise TypeError(f"a handler must be an async function; {function!r} is not: write `async def`")


def _exceptions(kinds: object) -> tuple[type[BaseException], ...]:
    given = cast("tuple[Any, ...]", kinds if isinstance(kinds, tuple) else ())
    if given != kinds or not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in given):
        raise TypeError(f"retryable_exceptions must be a tuple of exception classes, not {kinds!r}")
    return given
