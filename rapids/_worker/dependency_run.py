"""Handlers with dependencies: an attempt calls the providers, then the handler, and then closes what was opened."""

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from rapids._core.dependency_plan import DependencyPlan, dependency_plan
from rapids._core.handlers import Handler, classes_in
from rapids.delivery import Delivery, current_delivery
from rapids.events import Event
from rapids.providers import Provider

__all__ = ["DependencyRun", "Supplies"]


@dataclass(frozen=True, slots=True)
class Supplies:
    """What a router gives to handlers with dependencies."""

    overrides: Callable[[], Mapping[Provider, Provider]]
    """The overrides in force: providers, and what is called instead of them."""
    emitter: object
    """The `EventEmitter` for handlers and providers that ask for one; None if no handler has dependencies."""


class DependencyRun:
    """Runs one handler with its dependencies. Each attempt gets its own."""

    def __init__(self, handler: Handler, plan: DependencyPlan, supplies: Supplies) -> None:
        self._handler = handler
        self._function = handler.function
        self._plan = plan
        self._supplies = supplies
        self._overrides: Mapping[Provider, Provider] = {}
        """The overrides that the last plan with overrides was made for."""
        self._overridden = plan

    async def run(self, event: Event, delivery: Delivery | None = None) -> None:
        """One attempt. What was opened is closed in reverse order, and gets the error of the handler, or of what was
        closed before.

        An error that a provider swallows is raised nevertheless: an entry whose handler failed must not be
        acknowledged.
        """
        opened: list[AsyncGenerator[Any]] = []
        failure: BaseException | None = None
        trace: TracebackType | None = None
        try:
            plan, supplies = self._plan, self._supplies
            if overrides := supplies.overrides():
                plan = self._plan_with(overrides)
            values: list[Any] = [
                event,
                (delivery or current_delivery()) if plan.needs_delivery else None,
                supplies.emitter,
            ]
            for step in plan.steps:
                arguments = step.arguments
                given = step.call(**{name: values[at] for name, at in arguments}) if arguments else step.call()
                if step.opens:
                    try:
                        values.append(await given.__anext__())
                    except StopAsyncIteration:
                        raise RuntimeError("a provider is a generator that yields nothing") from None
                    opened.append(given)
                else:
                    values.append(await given)
            await self._function(event, **{name: values[at] for name, at in plan.arguments})
        except BaseException as error:
            failure = error
        while opened:
            generator = opened.pop()
            try:
                if failure is None:
                    await generator.__anext__()
                else:
                    trace = failure.__traceback__
                    await generator.athrow(failure)
                await generator.aclose()
                raise RuntimeError("a provider is a generator that yields more than once")
            except StopAsyncIteration:
                pass
            except BaseException as error:
                if error is failure:
                    error.__traceback__ = trace  # without the frames of each provider that it went through
                failure = error
        if failure is not None:  # raised here, so that it keeps its context
            try:
                raise failure
            finally:
                del failure  # its traceback refers to this frame

    def _plan_with(self, overrides: Mapping[Provider, Provider]) -> DependencyPlan:
        """The plan with these overrides, which are the same for many attempts."""
        if overrides != self._overrides:
            handler = self._handler
            plan = dependency_plan(handler.name, handler.function, classes_in(handler.targets), overrides)
            self._overridden = plan or self._plan
            self._overrides = dict(overrides)
        return self._overridden
