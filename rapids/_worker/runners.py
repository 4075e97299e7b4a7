"""Runners: what is called for each handler, the handler with its dependencies inside its middleware."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeAlias

from rapids._core.handlers import Handler
from rapids._worker.dependency_run import DependencyRun, Supplies
from rapids.delivery import CallNext, Delivery, HandlerMiddleware, current_delivery
from rapids.events import Event

__all__ = ["Runner", "runners_of"]

Runner: TypeAlias = Callable[[Event], Awaitable[object]]


def runners_of(
    handlers: Iterable[Handler], middleware: Sequence[HandlerMiddleware], supplies: Supplies
) -> dict[str, Runner]:
    """What to call for each handler: the handler with its dependencies inside its middleware, the first one outermost.

    `supplies`: for handlers with dependencies.
    """
    runners: dict[str, Runner] = {}
    for handler in handlers:
        plan = handler.dependencies
        run = handler.function if plan is None else DependencyRun(handler, plan, supplies).run
        runners[handler.name] = _with_middleware(run, plan is not None, middleware) if middleware else run
    return runners


def _with_middleware(
    handler: Callable[..., Awaitable[object]], has_dependencies: bool, middleware: Sequence[HandlerMiddleware]
) -> Runner:
    async def call_handler(delivery: Delivery) -> None:
        if has_dependencies:
            await handler(delivery.event, delivery)
        else:
            await handler(delivery.event)

    def around(layer: HandlerMiddleware, call_next: CallNext) -> CallNext:
        async def call_layer(delivery: Delivery) -> None:
            await layer(delivery, call_next)

        return call_layer

    call: CallNext = call_handler
    for layer in reversed(middleware):
        call = around(layer, call)

    async def run(_: Event) -> None:
        delivery = current_delivery()
        assert delivery is not None  # noqa: S101 - the handler's runner has just set it
        await call(delivery)

    return run
