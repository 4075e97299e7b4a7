"""Every attempt runs in a context of its own: what one sets is not set in the next."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids import EventRouter, current_delivery, get_correlation_id
from rapids.correlation import get_causation_id
from rapids.delivery import CallNext, Delivery
from rapids.logs import CorrelationLogFilter
from rapids.observers import Detail, HandlerFailed, HandlerSucceeded
from tests.worker.helpers import DvOrder, emit_orders, make_emitter, make_router, running, until_settled

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")

Pause = Callable[[], Awaitable[object]]


async def at_once() -> None:
    """Never suspended."""


PAUSES = [at_once, lambda: asyncio.sleep(0), lambda: asyncio.to_thread(lambda: None)]


async def handled(redis: Redis, router: EventRouter, *numbers: int) -> None:
    await emit_orders(redis, *numbers)
    async with running(router):
        await until_settled(redis)


@pytest.mark.parametrize("pause", PAUSES, ids=["at once", "a step", "a thread"])
@pytest.mark.parametrize("concurrency", [1, 3])
async def test_what_a_handler_sets_is_not_set_for_the_next(redis: Redis, pause: Pause, concurrency: int) -> None:
    seen: list[tuple[str, str, str]] = []

    async def middleware(delivery: Delivery, call_next: CallNext) -> None:
        before = tenant.get()
        tenant.set("middleware")
        await call_next(delivery)
        seen.append((delivery.handler, before, tenant.get()))

    router = make_router(redis, concurrency=concurrency, middleware=[middleware])

    @router.on(DvOrder, name="first")
    async def first(event: DvOrder) -> None:
        assert tenant.get() == "middleware"
        tenant.set(f"first {event.number}")
        await pause()
        assert tenant.get() == f"first {event.number}"

    @router.on(DvOrder, name="second")
    async def second(event: DvOrder) -> None:
        await pause()
        tenant.set(f"second {event.number}")

    await handled(redis, router, 1, 2, 3)
    names = [(name, number) for name in ("first", "second") for number in (1, 2, 3)]
    # A middleware and its handler share the attempt's context, as they always did.
    assert sorted(seen) == [(name, "nobody", f"{name} {number}") for name, number in names]


@pytest.mark.parametrize("pause", PAUSES, ids=["at once", "a step", "a thread"])
async def test_what_an_attempt_sets_is_not_set_for_the_next(redis: Redis, pause: Pause) -> None:
    seen: list[str] = []
    router = make_router(redis, max_deliveries=2)

    @router.on(DvOrder, retries=1)
    async def handle(event: DvOrder) -> None:
        seen.append(tenant.get())
        tenant.set("acme")
        await pause()
        raise ValueError

    await handled(redis, router, 1)
    assert seen == ["nobody"] * 4


async def test_what_is_set_where_the_router_starts_is_set_in_handlers(redis: Redis) -> None:
    seen: list[str] = []
    router = make_router(redis)

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(tenant.get())
        tenant.set("other")

    tenant.set("acme")
    await handled(redis, router, 1, 2)
    assert seen == ["acme", "acme"]
    assert tenant.get() == "acme"


async def test_what_plain_functions_of_the_user_set_is_not_set_in_handlers(redis: Redis) -> None:
    seen: list[str] = []

    def set_and(result: Any) -> Callable[[Any], Any]:
        def function(_: Any) -> Any:
            tenant.set("acme")
            return result

        return function

    options = {"order_by": set_and("key"), "redelivery_backoff": set_and(0), "observers": [set_and(None)]}
    router = make_router(redis, concurrency=2, **options)

    @router.on(DvOrder, retries=1, backoff=set_and(0))
    async def handle(event: DvOrder) -> None:
        seen.append(tenant.get())
        if len(seen) < 4:
            raise ValueError

    await handled(redis, router, 1, 2)
    assert seen == ["nobody"] * 5


async def test_a_task_of_a_handler_has_its_context(redis: Redis) -> None:
    seen: list[tuple[str, str | None, str | None]] = []
    router = make_router(redis)

    async def note() -> None:
        delivery = current_delivery()
        assert delivery is not None
        seen.append((tenant.get(), delivery.entry_id, get_causation_id()))

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        tenant.set("acme")
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(note())
        await asyncio.wait_for(note(), 30)

    event = DvOrder(number=1)
    entry_id = await make_emitter(redis).emit(event)
    async with running(router):
        await until_settled(redis)
    assert seen == [("acme", entry_id, event.id)] * 2


async def test_a_token_is_reset_in_the_context_where_it_was_made(redis: Redis) -> None:
    seen: list[str] = []
    router = make_router(redis)

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        token = tenant.set("acme")
        try:
            await asyncio.sleep(0)
        finally:
            tenant.reset(token)
        seen.append(tenant.get())

    await handled(redis, router, 1, 2)
    assert seen == ["nobody", "nobody"]


async def test_observers_of_a_handler_have_its_correlation_id(redis: Redis) -> None:
    seen: list[tuple[str, str | None]] = []

    def observe(detail: Detail) -> None:
        if isinstance(detail, HandlerSucceeded | HandlerFailed):
            seen.append((type(detail).__name__, get_correlation_id()))

    router = make_router(redis, observers=[observe])

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        if not seen:
            raise ValueError

    await make_emitter(redis).emit(DvOrder(correlation_id="c-1"))
    async with running(router):
        await until_settled(redis)
    assert seen == [("HandlerFailed", "c-1"), ("HandlerSucceeded", "c-1")]


async def test_every_log_line_about_an_attempt_has_its_correlation_id(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(failures: int) -> float:
        raise ValueError

    router = make_router(redis, redelivery_backoff=broken)

    @router.on(DvOrder, retries=1, backoff=broken)
    async def handle(event: DvOrder) -> None:
        delivery = current_delivery()
        assert delivery is not None
        if delivery.deliveries == 1:
            raise ValueError

    caplog.handler.addFilter(CorrelationLogFilter())
    with caplog.at_level(logging.WARNING, "rapids"):
        await make_emitter(redis).emit(DvOrder(correlation_id="c-1"))
        async with running(router):
            await until_settled(redis)
    assert [vars(record)["correlation_id"] for record in caplog.records] == ["c-1"] * len(caplog.records)
    assert "a backoff raised" in caplog.text


async def test_a_function_that_is_only_marked_as_a_coroutine_function_is_awaited(redis: Redis) -> None:
    seen: list[str] = []

    class Marked:
        """What compiled and wrapped coroutine functions look like: their result is any awaitable."""

        async def __call__(self, event: DvOrder) -> None:
            seen.append(tenant.get())
            tenant.set("acme")

    handler = Marked()
    original = Marked.__call__
    Marked.__call__ = lambda self, event: asyncio.ensure_future(original(self, event))  # type: ignore[assignment,method-assign,return-value]
    router = make_router(redis)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rapids._core.handlers.iscoroutinefunction", callable)
        patch.setattr("rapids._core.checks.iscoroutinefunction", callable)
        router.on(DvOrder)(handler)
    assert not inspect.iscoroutinefunction(handler.__call__)
    await handled(redis, router, 1, 2)
    assert seen == ["nobody", "nobody"]
