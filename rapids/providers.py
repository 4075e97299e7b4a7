"""Providers of the dependencies of handlers: `Depends`, for services without FastAPI."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

__all__ = ["Dependency", "Depends", "EmitterLike", "Provider"]

Provider: TypeAlias = Callable[..., Any]
"""Gives a value: a plain or an async function, a generator, an async generator, a class, or an object that is called
like one of them. Its own parameters are filled as those of a handler are."""


class EmitterLike(Protocol):
    """An `EventEmitter`, or what stands in for one in a test."""

    @property
    def emit(self) -> Callable[..., Awaitable[object]]:
        """Emits an event, or several."""
        ...


@dataclass(frozen=True, slots=True)
class Dependency:
    """What `Depends` returns. FastAPI's own marker has the same attributes, and is recognised by them."""

    dependency: Provider | None = None
    """The provider; None for the class that the parameter is annotated with."""
    use_cache: bool = True
    """Whether all parameters of an attempt with this provider get the same value."""


def Depends(dependency: Provider | None = None, *, use_cache: bool = True) -> Any:
    """Mark a parameter of a handler, or of a provider, as a dependency: `Annotated[Session, Depends(get_session)]`.

    `dependency` is called for each attempt of the handler, in a thread if it is not async. A generator yields the
    value. It continues after the handler, before the entry is acknowledged, and gets the handler's error raised at its
    `yield`. Without `dependency`, the annotated class is called. With `use_cache=False`, the parameter gets a value of
    its own. Handlers take FastAPI's own `Depends`, too.

    Raises `TypeError` for a `dependency` that cannot be called.
    """
    if dependency is not None and not callable(dependency):  # pyright: ignore[reportUnnecessaryComparison] - users without a type checker
        raise TypeError(f"Depends() takes a function or a class that gives the value, not {dependency!r}")
    return Dependency(dependency, use_cache)
