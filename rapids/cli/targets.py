"""Targets of `rapids run`: routers and emitters, found by `module:attribute`."""

import inspect
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, TypeAlias, cast

from rapids.background import check_routers
from rapids.emitter import EventEmitter
from rapids.exceptions import RapidsError
from rapids.router import EventRouter

__all__ = ["Found", "Lifespan", "TargetError", "attribute_at", "find", "find_lifespan"]

Lifespan: TypeAlias = Callable[[], AbstractAsyncContextManager[Any]]

WANTED = "an EventRouter, an EventEmitter, a list of them, or a function without arguments that returns them"
NEAR = 3
"""So many near names are shown."""


class TargetError(RapidsError):
    """A target that cannot be run. The message says what was found instead. A cause is an error of the user's code."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the targets name: each router and emitter once."""

    routers: tuple[EventRouter, ...]
    emitters: tuple[EventEmitter, ...]
    applications: tuple[object, ...] = ()
    """Applications of FastAPI, only where they are wanted."""


async def find(targets: Sequence[str], *, with_applications: bool = False) -> Found:
    """The routers and emitters of all targets. Imports their modules, and calls their factories.

    `with_applications`: whether a target may be an application of FastAPI, or the `Rapids` of one. Raises
    `TargetError`.
    """
    routers: dict[int, tuple[str, EventRouter]] = {}
    emitters: dict[int, EventEmitter] = {}
    applications: list[object] = []
    for target in targets:
        found = attribute_at(target)
        if with_applications and is_application(found):
            applications.append(found)
            continue
        found = await _made(target, found)
        if with_applications and isinstance(getattr(found, "routers", None), tuple):  # a `Rapids`
            found = [*cast(Any, found).routers, cast(Any, found).emitter]
        for name, one in _members(target, found):
            if isinstance(one, EventRouter):
                routers.setdefault(id(one), (name, one))
            else:
                emitters[id(one)] = one
    if not routers and not applications:
        raise TargetError(f"there is no router among {', '.join(targets)}")
    names, found = [name for name, _ in routers.values()], [router for _, router in routers.values()]
    for name, router in routers.values():
        if not router.handler_names:
            raise TargetError(
                f"{name} (group {router.group!r} on stream {router.stream!r}) has no handlers: was the module imported "
                "that registers them, with @router.on(...)?"
            )
    try:
        return Found(check_routers(found, names), tuple(emitters.values()), tuple(applications))
    except ValueError as error:
        raise TargetError(str(error)) from None


def is_application(found: object) -> bool:
    """Whether it is an application of FastAPI, which need not be installed."""
    return not isinstance(found, type) and hasattr(found, "openapi") and hasattr(found, "routes")


def find_lifespan(target: str) -> Lifespan:
    """The async context manager of `--lifespan`. Raises `TargetError`."""
    found = attribute_at(target)
    if inspect.isasyncgenfunction(found):
        raise TargetError(f"--lifespan: {target} is an async generator: decorate it with @asynccontextmanager")
    if not callable(found) or not _takes_nothing(found):
        raise TargetError(
            f"--lifespan: {target} must be an async context manager that is called without arguments, such as a "
            f"function with @asynccontextmanager, not {_described(found)}"
        )
    return cast("Lifespan", found)


def attribute_at(target: str) -> object:
    """What a target names, `module:attribute`. Imports the module. Raises `TargetError`."""
    module_name, _, path = target.partition(":")
    if not module_name or not all(part.isidentifier() for part in module_name.split(".")):
        raise TargetError(f"{target!r} must be module:attribute, such as app.workers:router")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise TargetError(f"{module_name} cannot be imported: {error}") from _below(error)
        raise TargetError(_no_module(module_name, error.name)) from None
    except Exception as error:
        raise TargetError(f"{module_name} cannot be imported: {type(error).__name__}: {error}") from _below(error)
    if not path:
        raise TargetError(f"{target!r} must be module:attribute{_routers_in(module, module_name)}")
    found: object = module
    for part in path.split("."):
        if not hasattr(found, part):
            near = get_close_matches(part, [name for name in dir(found) if not name.startswith("_")], NEAR)
            instead = f"; near names are {', '.join(near)}" if near else _routers_in(module, module_name)
            raise TargetError(f"{module_name} has no {path!r}{instead}")
        found = getattr(found, part)
    return found


def _below(error: Exception) -> Exception:
    """The error, whose traceback begins in the user's code."""
    trace = error.__traceback__
    while trace is not None and ("importlib" in (name := trace.tb_frame.f_code.co_filename) or name == __file__):
        trace = trace.tb_next
    return error.with_traceback(trace)


def _no_module(wanted: str, missing: str) -> str:
    parent, _, name = missing.rpartition(".")
    package = sys.modules.get(parent)
    places = list(package.__path__) if package is not None else [str(Path.cwd())]
    near = get_close_matches(name, [module.name for module in iter_modules(places)], NEAR)
    where = parent or f"{Path.cwd()} or on the Python path"
    instead = f"; near names are {', '.join(near)}" if near else ""
    return f"{wanted} cannot be imported: there is no module {name!r} in {where}{instead}"


def _routers_in(module: object, name: str) -> str:
    found = [attribute for attribute, value in vars(module).items() if isinstance(value, EventRouter)]
    return f"; its routers are {', '.join(f'{name}:{attribute}' for attribute in found)}" if found else ""


async def _made(target: str, found: object) -> object:
    """What a factory returns; anything else is returned itself."""
    if isinstance(found, type) or not callable(found):
        return found
    if not _takes_nothing(found):
        raise TargetError(f"{target} is {_described(found)}, which needs arguments; a target must be {WANTED}")
    try:
        made = found()
        return await made if inspect.isawaitable(made) else made
    except Exception as error:
        raise TargetError(f"{target} failed: {type(error).__name__}: {error}") from _below(error)


def _members(target: str, found: object) -> list[tuple[str, EventRouter | EventEmitter]]:
    """Each router and emitter with its name for messages."""
    if isinstance(found, EventRouter | EventEmitter):
        return [(target, found)]
    if not isinstance(found, list | tuple):
        raise TargetError(f"{target} must be {WANTED}, not {_described(found)}")
    if not found:
        raise TargetError(f"{target} is an empty list")
    members: list[tuple[str, EventRouter | EventEmitter]] = []
    for at, one in enumerate(cast("Sequence[object]", found)):
        if not isinstance(one, EventRouter | EventEmitter):
            raise TargetError(f"{target}[{at}] must be an EventRouter or an EventEmitter, not {_described(one)}")
        members.append((f"{target}[{at}]", one))
    return members


def _takes_nothing(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind()
    except TypeError:
        return False
    except ValueError:  # a function written in C
        return True
    return True


def _described(value: object) -> str:
    if inspect.ismodule(value):
        return f"the module {value.__name__}"
    if isinstance(value, type):
        return f"the class {value.__module__}.{value.__qualname__}"
    if inspect.isroutine(value):
        return f"the function {getattr(value, '__name__', value)}"
    if isinstance(value, str | int | float | None):
        return repr(value)[:60]
    return f"a {type(value).__module__}.{type(value).__qualname__}".replace("a builtins.", "a ")
