"""Plans of a handler's dependencies: which providers are called, in which order, and who gets their values."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from inspect import Parameter
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, Union, cast, get_args, get_origin, get_type_hints

from rapids._core.checks import plain_function
from rapids._core.threads import call_in_thread, open_in_threads
from rapids.delivery import Delivery
from rapids.events import BaseEvent, Event, GenericEvent, same_class
from rapids.providers import EmitterLike, Provider
from rapids.typed_emitter import Emits, EmitsProvider, declared_classes

__all__ = ["DependencyPlan", "DependencyUser", "Step", "dependency_plan"]

EVENT, DELIVERY, EMITTER = range(3)
"""Where the values are that need no provider. Those of the steps follow, in their order."""

POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)

ONLY_IN_REQUESTS = {"Request", "WebSocket", "HTTPConnection", "Response", "BackgroundTasks", "SecurityScopes"}
"""Classes of Starlette and FastAPI that endpoints may ask for."""

GIVEN = "event, Delivery or EventEmitter"
"""What is given by its type."""

Arguments = tuple[tuple[str, int], ...]
"""Names of parameters, and where their values are."""


@dataclass(frozen=True, slots=True)
class Step:
    """The call of one provider."""

    provider: Provider
    call: Callable[..., Any]
    """Returns an awaitable of the value or, if it `opens`, an async generator that yields the value."""
    opens: bool
    arguments: Arguments


@dataclass(frozen=True, slots=True)
class DependencyPlan:
    """What an attempt of a handler does to fill its parameters, other than the event."""

    steps: Sequence[Step]
    arguments: Arguments
    needs_delivery: bool


def dependency_plan(
    name: str,
    function: Callable[..., Any],
    targets: Sequence[type[Event] | None],
    overrides: Mapping[Provider, Provider] | None = None,
) -> DependencyPlan | None:
    """The plan for a handler; None if it takes only the event.

    `targets`: the classes of the events that it gets; None for those of any class. `overrides`: providers, and what is
    called instead of them.

    Raises `TypeError` if a parameter of the handler, or of a provider, cannot be filled, with the reason.
    """
    parameters = _parameters(function)
    if not parameters or parameters[0].kind not in POSITIONAL:
        return None
    planning = _Planning(name, targets, overrides or {})
    arguments = planning.arguments_for(function, parameters[1:])
    if last := planning.closing_last():
        planning = _Planning(name, targets, overrides or {}, last)
        arguments = planning.arguments_for(function, parameters[1:])
    if not arguments:
        return None
    used = {at for each in (arguments, *(step.arguments for step in planning.steps)) for _, at in each}
    return DependencyPlan(tuple(planning.steps), arguments, DELIVERY in used)


class DependencyUser:
    """The part of a router that says where its handlers' dependencies come from."""

    def __init__(self) -> None:
        self.dependency_overrides: dict[Provider, Provider] = {}
        """Providers, and what is called instead of them, for example in a test. Looked up at each attempt."""
        self._app_overrides: Callable[[], Mapping[Provider, Provider]] = dict
        self._emitter: EmitterLike | None = None

    def use_dependencies(
        self,
        *,
        emitter: EmitterLike | None = None,
        overrides: Callable[[], Mapping[Provider, Provider]] | None = None,
    ) -> None:
        """Give handlers what the application has. Call it before `start`. `Rapids` calls it for its routers.

        `emitter`: for handlers and providers that ask for an `EventEmitter`; by default one for the router's stream
        and client. `overrides`: returns the application's overrides; those in `dependency_overrides` have priority.

        Raises `RapidsError` while the router runs, `TypeError` for anything but an emitter and a plain function.
        """
        self._only_before_start("use_dependencies()")
        if emitter is not None:
            if not callable(getattr(emitter, "emit", None)):  # a test may give a stand-in
                raise TypeError(f"emitter must be an EventEmitter, not {emitter!r}")
            self._emitter = emitter
        if overrides is not None:
            plain_function("overrides", overrides, "a plain function that returns the overrides", arguments=0)
            self._app_overrides = overrides

    @property
    def emitter(self) -> EmitterLike | None:
        """The emitter that `use_dependencies` was given; None for one for the router's stream and client."""
        return self._emitter

    def _only_before_start(self, what: str) -> None:
        """Raise if it is too late for `what`."""

    def _overrides_in_force(self) -> Mapping[Provider, Provider]:
        return {**self._app_overrides(), **self.dependency_overrides}


class _Planning:
    """Makes one plan: each step comes after those that give its arguments."""

    def __init__(
        self,
        handler: str,
        targets: Sequence[type[Event] | None],
        overrides: Mapping[Provider, Provider],
        first: Iterable[Provider] = (),
    ) -> None:
        """`first`: the providers that are called before all others, so that they are closed after them."""
        self.steps: list[Step] = []
        self._handler = handler
        self._targets = targets
        self._overrides = overrides
        self._shared: dict[Provider, int] = {}
        """Where the values are that parameters share."""
        self._path: list[Provider] = []
        """The providers whose arguments are being planned."""
        for provider in first:
            self._step_of(provider, use_cache=True)

    def closing_last(self) -> list[Provider]:
        """The providers that are to be closed after all others: those with `closes_last = True`."""
        return [provider for provider in self._shared if getattr(provider, "closes_last", None) is True]

    def arguments_for(self, function: Provider, parameters: Sequence[Parameter]) -> Arguments:
        """Where the values of these parameters are. Raises `TypeError` if one cannot be filled."""
        found: list[tuple[str, int]] = []
        for parameter in parameters:
            if parameter.kind in VARIADIC:
                continue
            try:
                at = self._source(function, parameter)
            except LookupError as why:
                where = f"the handler {self._handler!r}"
                if self._path:
                    where += f" depends on the provider {_text_of(self._path[-1])}: nothing can fill its parameter"
                else:
                    where += ": nothing can fill the parameter"
                raise TypeError(f"{where} {parameter.name!r}: {why}") from None
            if at is not None:
                found.append((parameter.name, at))
        return tuple(found)

    def _source(self, function: Provider, parameter: Parameter) -> int | None:
        """Where the value of a parameter is; None if it keeps its default.

        Raises `LookupError` with the reason if nothing can fill it.
        """
        is_given = isinstance(function, partial) and parameter.name in cast("partial[Any]", function).keywords
        default: Any = parameter.default
        try:
            annotation = _resolved(cast(Provider, function), parameter)
        except Exception as error:
            if default is not Parameter.empty and not _is_marker(default):
                return None
            raise LookupError(f"its annotation {parameter.annotation!r} cannot be resolved: {error}") from error
        kind, metadata = _without_aliases(annotation)
        marker: Any = next((one for one in reversed([*metadata, default]) if _is_marker(one)), None)
        if is_given or (marker is None and default is not Parameter.empty and not _is_of_request(default)):
            return None
        if parameter.kind is Parameter.POSITIONAL_ONLY:
            raise LookupError("it can be given by position only")
        if marker is not None:
            return self._step_of(kind if marker.dependency is None else marker.dependency, marker.use_cache)
        for one in (*metadata, default):
            if getattr(one, "__name__", "") == "Depends":
                raise LookupError("Depends is not called: write Depends() with the provider, if it is not the class")
            if _is_of_request(one):
                raise LookupError(f"a handler runs for an event, and only a request has a {type(one).__name__}")
        return self._given(kind)

    def _given(self, kind: object) -> int:
        """Where a value is that is given by its type."""
        alternatives: tuple[Any, ...] = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
        members = [one for one in alternatives if one is not NoneType]
        if members == [Delivery]:
            return DELIVERY
        if any(isinstance(one, type) and issubclass(one, Event) for one in members):
            for target in self._targets:
                for possible in (BaseEvent, GenericEvent) if target in (None, Event) else (target,):
                    assert possible is not None  # noqa: S101 - for the type checker
                    if not any(same_class(base, one) for base in possible.__mro__ for one in members):
                        raise LookupError(f"the handler gets events that are no {_text_of(kind)}")
            return EVENT
        for one in members:
            if one is Emits or get_origin(one) is Emits:
                try:
                    classes = declared_classes(*get_args(one) or (one,))
                except TypeError as error:
                    raise LookupError(str(error)) from None
                return self._step_of(EmitsProvider(classes), True)
            bases: Sequence[type] = one.__mro__ if isinstance(one, type) else ()
            if one is EmitterLike or (bases and (one.__module__, one.__name__) == ("rapids.emitter", "EventEmitter")):
                return EMITTER
            if any(_is_of_request(base) and base.__name__ in ONLY_IN_REQUESTS for base in bases):
                or_else = ", or give the provider an in_handlers, which handlers call instead" if self._path else ""
                raise LookupError(
                    f"a handler runs for an event, and there is no {_text_of(one)}; "
                    f"let the handler depend on what needs none{or_else}"
                )
        if kind is Parameter.empty or kind is object or kind is Any:
            raise LookupError(f"it has no Depends() and no default, and is no {GIVEN}")
        raise LookupError(f"it has no Depends() and no default, and {_text_of(kind)} is no {GIVEN}")

    def _step_of(self, provider: Any, use_cache: bool) -> int:
        """Where the value of a provider is."""
        if not callable(provider):
            raise LookupError(f"Depends() without a provider needs a class as the annotation, not {provider!r}")
        if use_cache and (shared := self._shared.get(provider)) is not None:
            return shared
        called = self._overrides.get(provider) or getattr(provider, "in_handlers", provider)
        if called in self._path:
            raise LookupError(f"{_text_of(called)} depends on itself")
        if getattr(called, "__globals__", {}).get("__name__") == "contextlib":
            raise LookupError(f"{_text_of(called)} is decorated with a context manager: Depends takes the generator")
        self._path.append(called)
        arguments = self.arguments_for(called, _parameters(called))
        self._path.pop()
        call, opens = _call_of(called)
        self.steps.append(Step(called, call, opens, arguments))
        at = EMITTER + len(self.steps)
        if use_cache:
            self._shared[provider] = at
        return at


def _parameters(function: Provider) -> list[Parameter]:
    """The parameters of a function. Those of a wrapped function count if its wrapper takes any keywords."""
    try:
        known = list(inspect.signature(function, follow_wrapped=False).parameters.values())
        if any(one.kind is Parameter.VAR_KEYWORD for one in known):
            known = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some built-in functions do not tell
        return []
    return known


def _resolved(function: Provider, parameter: Parameter) -> Any:
    """The annotation of a parameter, with what its texts stand for. The other annotations need not be resolvable."""
    if parameter.annotation is Parameter.empty:
        return Parameter.empty
    one = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    *_, innermost = _layers(function)
    return get_type_hints(one, getattr(innermost, "__globals__", {}), include_extras=True)[parameter.name]


def _without_aliases(annotation: Any) -> tuple[Any, list[Any]]:
    """A type and its metadata. The type may be named by `type SessionDep = Annotated[...]`, as in FastAPI."""
    metadata: list[Any] = []
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *further = get_args(annotation)
            metadata = [*further, *metadata]
        elif type(get_origin(annotation) or annotation).__name__ == "TypeAliasType":
            arguments = get_args(annotation)
            value = (get_origin(annotation) or annotation).__value__
            annotation = value[arguments] if arguments else value
        else:
            return annotation, metadata


def _layers(function: Provider) -> Iterator[Any]:
    """The function itself, and what it stands for: what a partial or a wrapper calls, the call of an object or of a
    class. Each may say what calling it gives."""
    layer: Any = function
    while layer is not None:
        yield layer
        if isinstance(layer, partial):
            layer = layer.func
        elif inspect.isclass(layer):
            layer = layer.__init__
        elif not inspect.isroutine(layer):
            layer = layer.__call__
        else:
            layer = getattr(cast(Any, layer), "__wrapped__", None)


def _call_of(provider: Provider) -> tuple[Callable[..., Any], bool]:
    """What a step calls, and whether it opens: see `Step`."""
    for layer in _layers(provider):
        if inspect.isclass(layer):
            break
        if inspect.isasyncgenfunction(layer):
            return provider, True
        if inspect.isgeneratorfunction(layer):
            return partial(open_in_threads, contextmanager(provider)), True
        if inspect.iscoroutinefunction(layer):
            return provider, False
    return partial(call_in_thread, provider), False


def _is_marker(value: Any) -> bool:
    """Whether it is a marker: `rapids.Depends`, or FastAPI's own, which is not imported here."""
    if isinstance(value, type) or not isinstance(getattr(value, "use_cache", None), bool):
        return False
    return hasattr(value, "dependency")


def _is_of_request(value: object) -> bool:
    """Whether it is of FastAPI or Starlette: a class, or an instance such as a `Query`."""
    kind = value if isinstance(value, type) else type(value)
    return kind.__module__.partition(".")[0] in ("fastapi", "starlette")


def _text_of(value: Any) -> str:
    if isinstance(value, partial):
        value = cast("partial[Any]", value).func
    if (name := getattr(value, "__qualname__", None)) is None:
        return str(value) if get_origin(value) else repr(value)
    return f"{value.__module__}.{name}" if getattr(value, "__module__", "builtins") != "builtins" else name
