"""Handlers: their registration with `on`, and which of them handle an event."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from inspect import iscoroutinefunction
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    overload,
)

from rapids._core.checks import async_function, at_least, positive_seconds, text
from rapids._core.checks import backoff as check_backoff
from rapids._core.dependency_plan import DependencyPlan, DependencyUser, dependency_plan
from rapids._core.outcomes import Done, Ledger
from rapids.backoff import Backoff
from rapids.events import BaseEvent, Event, GenericEvent, get_event_class, same_class, types_below
from rapids.providers import Provider

if TYPE_CHECKING:
    from typing_extensions import TypeForm  # what a union of classes is to a type checker

__all__ = [
    "Handler",
    "HandlerFunction",
    "HandlerRegistry",
    "Handlers",
    "Pattern",
    "Target",
    "classes_in",
    "matches",
    "matches_pattern",
    "no_handler",
    "targets_of",
]

E = TypeVar("E", bound=Event)
HandlerFunction: TypeAlias = Callable[[E], Awaitable[object]]
A = TypeVar("A", bound=Awaitable[object])
P = ParamSpec("P")


class Decorator(Protocol[E]):
    """Takes a handler of these events, or of more general ones, and returns it unchanged. Its other parameters are
    dependencies."""

    def __call__(self, function: Callable[Concatenate[E, P], A], /) -> Callable[Concatenate[E, P], A]: ...


MEMO_LIMIT = 4_096
"""How many event types have their handlers cached. A stream may hold any number of undeclared types."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern for event types: `*` is one segment or a part of one, `**` is one segment or more, `*` alone is
    everything. Every other character is itself, also `?`, `[` and `]`."""

    text: str

    def matches(self, event_type: str) -> bool:
        return matches_pattern(self.text, event_type)


Target: TypeAlias = type[Event] | Pattern


def matches_pattern(pattern: str, event_type: str) -> bool:
    """Whether a pattern (see `Pattern`) matches an event type. Segments are the parts between dots."""
    if pattern == "*":
        return True
    segments = event_type.split(".")
    # Dynamic programming, one row at a time: after[i] says whether the pattern read so far matches segments[:i].
    # Unlike backtracking, it is not slow for a hostile event type.
    after = [True] + [False] * len(segments)
    for part in pattern.split("."):
        if part == "**":
            first = after.index(True) if True in after else len(after)
            after = [at > first for at in range(len(after))]
        else:
            literal = part.replace("[", "[[]").replace("?", "[?]")
            matched = [was and fnmatchcase(segment, literal) for was, segment in zip(after, segments, strict=False)]
            after = [False, *matched]
    return after[-1]


def targets_of(target: object) -> tuple[Target, ...]:
    """The argument of `on`, as classes and patterns.

    Raises `TypeError` for anything but an event class, a union of them, or a pattern, `ValueError` for an empty one.
    """
    if isinstance(target, str):
        if not target or any(not segment for segment in target.split(".")):
            raise ValueError(f"a pattern must be segments with dots between them, such as 'order.*', not {target!r}")
        return (Pattern(target),)
    if get_origin(target) in (Union, UnionType):
        members: tuple[Any, ...] = get_args(target)
        return tuple(single for member in members for single in targets_of(member))
    if isinstance(target, type) and issubclass(target, Event):
        return (target,)
    raise TypeError(f"on() takes an event class, a union of event classes, or a pattern, not {target!r}")


def classes_in(targets: Sequence[Target]) -> Sequence[type[Event] | None]:
    """The classes of the events that targets match; None for a pattern, which matches events of any class."""
    return [None if isinstance(target, Pattern) else target for target in targets]


def matches(target: Target, event_type: str) -> bool:
    """Whether the target includes events of this type. Events of a type without a class are `GenericEvent`s."""
    if isinstance(target, Pattern):
        return target.matches(event_type)
    cls = get_event_class(event_type) or GenericEvent
    return any(same_class(base, target) for base in cls.__mro__)


def _described(target: Target) -> Sequence[str]:
    if isinstance(target, Pattern):
        return (target.text,)
    return types_below(target) if issubclass(target, BaseEvent) else (target.__name__,)


@dataclass(frozen=True, slots=True)
class Handler:
    """One registered coroutine function with its policy and a stable name."""

    name: str
    function: Callable[..., Awaitable[object]]
    targets: tuple[Target, ...]
    timeout: float
    """Seconds."""
    retries: int
    """Quick attempts after the first."""
    backoff: Backoff
    retryable_exceptions: tuple[type[BaseException], ...]
    """The errors after which it is tried again; empty for all errors."""
    aliases: tuple[str, ...] = ()
    """Its earlier names: what is stored under one of them counts for this handler."""
    dependencies: DependencyPlan | None = field(default=None, repr=False, compare=False)
    """What fills its parameters other than the event; None if it has no others."""
    done: Done = field(init=False, repr=False, compare=False)
    """The outcome of a successful run, created once."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "done", Done(self.name))

    def handles(self, event_type: str) -> bool:
        return any(matches(target, event_type) for target in self.targets)


class Handlers:
    """The handlers of a group, in order of registration. The handlers for an event type are cached."""

    def __init__(self, handlers: Iterable[Handler]) -> None:
        self._handlers = tuple(handlers)
        self._by_alias = {alias: handler.name for handler in self._handlers for alias in handler.aliases}
        self._by_type: dict[tuple[str, type[Event] | None], tuple[Handler, ...]] = {}

    def __iter__(self) -> Iterator[Handler]:
        return iter(self._handlers)

    def present_name(self, name: str) -> str:
        """The name of the handler that has this name or alias; the name itself if no handler has it."""
        return self._by_alias.get(name, name)

    def present_ledger(self, ledger: Ledger) -> Ledger:
        """A ledger with the present names of handlers instead of their aliases."""
        return ledger.under(self._by_alias) if self._by_alias else ledger

    def described(self) -> dict[str, list[str]]:
        """Each handler's name, and what it is for: patterns, and the event types of its classes and their subclasses.

        A class is described by the types known now: a process that does not import a subclass reads its events as
        `GenericEvent`s, which the handlers of its base class do not get.
        """
        return {
            handler.name: sorted({text for target in handler.targets for text in _described(target)})
            for handler in self._handlers
        }

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


class HandlerRegistry(DependencyUser):
    """The part of a router that takes registrations."""

    def __init__(self, *, timeout: float, retries: int, backoff: Backoff) -> None:
        super().__init__()
        self._registered: list[Handler] = []
        self._names: set[str] = set()
        self._aliases: dict[str, str] = {}
        """From aliases to the names of their handlers."""
        self._defaults = (timeout, retries, backoff)
        self.max_deliveries = 0
        """How many failed deliveries make a handler's entry dead."""

    @property
    def handlers(self) -> tuple[Handler, ...]:
        """Its handlers with their policies, in the order of their registration."""
        return tuple(self._registered)

    @property
    def handler_names(self) -> tuple[str, ...]:
        """The names of its handlers, in the order of their registration."""
        return tuple(handler.name for handler in self._registered)

    def handlers_for(self, event_type: str) -> tuple[str, ...]:
        """The names of the handlers that events of this type run, in this order."""
        return tuple(handler.name for handler in Handlers(self._registered).for_type(event_type))

    def handlers_that_call(self, provider: Provider) -> tuple[str, ...]:
        """The names of the handlers that call this provider, by the overrides as they are now, or depend on one that
        does."""
        overrides = self._overrides_in_force()
        found: list[str] = []
        for one in self._registered:
            plan = one.dependencies
            if overrides and plan is not None:
                try:
                    plan = dependency_plan(one.name, one.function, classes_in(one.targets), overrides)
                except TypeError:  # nothing can fill a parameter of an override: an attempt calls nothing, and says so
                    continue
            if plan is not None and any(step.provider == provider for step in plan.steps):
                found.append(one.name)
        return tuple(found)

    @property
    def handler_targets(self) -> dict[str, list[str]]:
        """What each handler is for, by its name: patterns, and the event types of its classes and their subclasses."""
        return Handlers(self._registered).described()

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
        aliases: Sequence[str] = (),
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
        aliases: Sequence[str] = (),
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
        aliases: Sequence[str] = (),
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
        aliases: Sequence[str] = (),
    ) -> Decorator[Any]:
        """Run the decorated coroutine function for matching events. Its first parameter is the event. Others are
        dependencies: `Annotated[T, Depends(provider)]`, or a `Delivery` or an `EventEmitter`.

        `target` is an event class (its subclasses match too), a union of classes, or a pattern for event types.
        `timeout` (seconds), `retries` (quick attempts after the first) and `backoff` override the router's defaults.
        `retryable_exceptions`: if it lists any, every other exception makes a dead letter at once; if it is empty, all
        exceptions are retried. `name` is the handler's name in dead letters and the ledger, by default the function's
        own name. `aliases` are earlier names of the handler: what is stored under one of them, such as a dead letter or
        the ledger of a pending entry, counts for this handler.

        Raises `TypeError` or `ValueError` for options that make no sense, `TypeError` if a parameter of the handler or
        of a provider cannot be filled, `ValueError` for a `name` or an alias that another handler of the router has as
        its name or alias.
        """
        default_timeout, default_retries, default_backoff = self._defaults
        targets = targets_of(target)
        limit = default_timeout if timeout is None else positive_seconds("timeout", timeout)
        attempts = default_retries if retries is None else at_least("retries", retries, 0)
        pause = default_backoff if backoff is None else check_backoff("backoff", backoff)
        retryable = cast("tuple[Any, ...]", retryable_exceptions)
        if not isinstance(retryable, tuple) or not all(  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
            isinstance(kind, type) and issubclass(kind, BaseException) for kind in retryable
        ):
            raise TypeError(f"retryable_exceptions must be a tuple of exception classes, not {retryable!r}")
        if name is not None:
            text("name", name)
        former = _names("aliases", aliases)

        def register(function: Callable[Concatenate[Any, P], A]) -> Callable[Concatenate[Any, P], A]:
            self._only_before_start("on()")
            _check_is_async(function)
            named = self._name_for(function, name)
            self._check_aliases(named, former)
            plan = dependency_plan(named, function, classes_in(targets))
            if plan is None:
                async_function("a handler", function, 1, "an async function of one argument, the event")
            self._registered.append(Handler(named, function, targets, limit, attempts, pause, retryable, former, plan))
            self._names.add(named)
            self._aliases.update(dict.fromkeys(former, named))
            return function

        return register

    def _check_aliases(self, name: str, aliases: Sequence[str]) -> None:
        for alias in aliases:
            owner = alias if alias in self._names or alias == name else self._aliases.get(alias)
            if owner is not None:
                whose = "the name of a handler" if owner == alias else f"an alias of {owner!r}"
                raise ValueError(f"aliases must be names that no handler of the router has, not {alias!r}, {whose}")

    def _name_for(self, function: Callable[..., Any], name: str | None) -> str:
        taken = self._names
        if (owner := self._aliases.get(name or _name_of(function))) is not None:
            raise ValueError(
                f"name must be one that no other handler of the router has, not {name or _name_of(function)!r}, "
                f"which is an alias of {owner!r}"
            )
        if name is not None:
            if name in taken:
                raise ValueError(f"name must be one that no other handler of the router has, not {name!r}")
            return name
        short = _name_of(function)
        if short not in taken:
            return short
        module = getattr(function, "__module__", type(function).__module__)
        long = f"{module}.{getattr(function, '__qualname__', short)}"
        candidates = (long if number == 1 else f"{long}#{number}" for number in range(1, len(taken) + 2))
        return next(candidate for candidate in candidates if candidate not in taken)


def no_handler(name: str) -> str:
    """The message for something that is meant for an unknown handler."""
    return f"the group has no handler {name!r}; if it was renamed, give the handler on(..., aliases=({name!r},))"


def _name_of(function: object) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _names(option: str, names: Sequence[str]) -> tuple[str, ...]:
    if not isinstance(names, tuple | list):  # a single string would be read as its characters
        raise TypeError(f"{option} must be a tuple of names, not {names!r}")
    for name in names:
        text(option, name)
    if len(set(names)) < len(names):
        raise ValueError(f"{option} must name each alias once, not {names!r}")
    return tuple(names)


def _check_is_async(function: object) -> None:
    if not callable(function):
        raise TypeError(f"a handler must be an async function, not {function!r}")
    if not (iscoroutinefunction(function) or iscoroutinefunction(getattr(function, "__call__", None))):  # noqa: B004
        raise TypeError(f"a handler must be an async function; {function!r} is not: write `async def`")
