"""Dependencies of handlers: who is called, when, with what, and what happens if something fails."""

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from contextvars import ContextVar
from functools import partial, wraps
from typing import Annotated, Any, TypeVar, get_type_hints

import fastapi
import pytest
from fastapi.security import OAuth2PasswordBearer
from redis.asyncio import Redis
from starlette.requests import Request
from typing_extensions import TypeAliasType

from rapids import BaseEvent, CallNext, Delivery, Depends, Event, EventEmitter, EventRouter, GenericEvent
from rapids._worker.dependency_run import Supplies
from rapids._worker.runners import runners_of
from rapids.background import lifespan_running, lifespan_value, routers_running
from rapids.exceptions import HandlerTimeoutError, NotConfiguredError, RetryAfter
from tests.support import eventually, full_thread_pool
from tests.worker.helpers import (
    STREAM,
    DvOrder,
    DvPayment,
    check_keys,
    letters,
    make_emitter,
    make_router,
    pending,
    running,
    until_settled,
)

Seen = list[Any]

setting: ContextVar[str] = ContextVar("setting", default="unset")


async def run(router: EventRouter, redis: Redis, *events: Event) -> None:
    """Emit events to a running router, and wait until the group is done with them."""
    async with running(router, redis=redis):
        await make_emitter(redis).emit(list(events))
        await until_settled(redis)
    await check_keys(redis)


def in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def noted(seen: Seen, name: str) -> Callable[[], AsyncIterator[str]]:
    """A provider that notes its begin, its end, and the error that it saw."""

    async def provide() -> AsyncIterator[str]:
        seen.append(f"open {name}")
        try:
            yield name
        except BaseException as error:
            seen.append(f"{name} saw {type(error).__name__}")
            raise
        finally:
            seen.append(f"close {name}")

    return provide


# --- what providers give --------------------------------------------------------------------------------------------


class ByAnObject:
    async def __call__(self, event: DvOrder | DvPayment) -> str:
        return f"an object for {event.number}"


@pytest.mark.parametrize("depends", [Depends, fastapi.Depends])
async def test_a_handler_gets_what_providers_of_every_kind_give(redis: Redis, depends: Any) -> None:
    seen: Seen = []

    async def number(event: DvOrder) -> int:
        setting.set("set by a provider")
        return event.number

    def doubled(value: Annotated[int, depends(number)]) -> int:
        assert not in_main_thread()
        return 2 * value

    class Account:
        def __init__(self, of: Delivery, value: Annotated[int, depends(doubled)], currency: str = "EUR") -> None:
            self.text = f"{of.handler} {value} {currency}"

    async def opened(value: Annotated[int, depends(number)]) -> AsyncIterator[str]:
        yield f"opened for {value}"
        seen.append("closed")

    def in_threads(text: Annotated[str, depends(opened)]) -> Iterator[str]:
        assert not in_main_thread()
        yield f"{text} in a thread"
        assert not in_main_thread()
        seen.append(f"closed in a thread, {setting.get()}")

    def through_a_wrapper(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        async def call(*arguments: Any, **named: Any) -> None:
            await function(*arguments, **named)

        return call

    router = make_router(redis)

    @router.on(DvOrder)
    @router.on(DvOrder, name="first")
    @through_a_wrapper
    async def handle(
        event: DvOrder,
        account: Annotated[Account, depends()],
        text: Annotated[str, "other metadata", depends(in_threads)],
        made: Annotated[int, depends(partial(doubled, value=21))],
        named: str = depends(ByAnObject()),
        keeps_its_default: Delivery | None = None,
        *,
        delivery: Delivery | None,
    ) -> None:
        assert in_main_thread()
        assert delivery is not None
        assert delivery.event is event
        assert keeps_its_default is None
        assert setting.get() == "set by a provider"
        seen.append((account.text, text, made, named))

    await run(router, redis, DvOrder(number=3))

    given = ("opened for 3 in a thread", 42, "an object for 3")
    closed = ["closed in a thread, set by a provider", "closed"]
    assert seen == [("first 6 EUR", *given), *closed, ("handle 6 EUR", *given), *closed]


async def test_a_value_is_shared_within_an_attempt_and_new_in_the_next(redis: Redis) -> None:
    seen: Seen = []
    router = make_router(redis)
    shared = Annotated[object, Depends(object)]

    async def nested(value: shared) -> object:
        return value

    @router.on(DvOrder, retries=1)
    async def handle(
        event: DvOrder,
        one: shared,
        other: Annotated[object, Depends(nested)],
        own: Annotated[object, Depends(object, use_cache=False)],
    ) -> None:
        assert one is other
        assert own is not one
        seen.append(one)
        if len(seen) == 1:
            raise ValueError

    @router.on(DvOrder)
    async def another(event: DvOrder, one: shared) -> None:
        seen.append(one)

    await run(router, redis, DvOrder())

    assert len({id(value) for value in seen}) == 3


async def test_an_event_that_a_handler_emits_is_caused_by_the_one_it_handles(redis: Redis) -> None:
    """Without an emitter of the application, the router makes one for its stream."""
    router, caused = make_router(None), []

    def emit_from_a_thread(emitter: EventEmitter) -> Callable[[Event], Any]:
        return emitter.emit

    @router.on(DvOrder)
    async def handle(event: DvOrder, emitter: EventEmitter, emit: Annotated[Any, Depends(emit_from_a_thread)]) -> None:
        await emitter.emit(DvPayment(number=1))
        await emit(DvPayment(number=2))

    @router.on(DvPayment)
    async def pay(event: DvPayment) -> None:
        caused.append((event.number, event.correlation_id, event.causation_id))

    order = DvOrder(correlation_id="web-1")
    async with running(router, redis=redis):
        await make_emitter(redis).emit(order)
        await eventually(lambda: len(caused) == 2)

    assert caused == [(1, "web-1", order.id), (2, "web-1", order.id)]


async def get_number(event: DvOrder) -> int:
    return event.number


T = TypeVar("T")
NumberDep = TypeAliasType("NumberDep", Annotated[int, Depends(get_number)])
NumberAs = TypeAliasType("NumberAs", Annotated[T, fastapi.Depends(get_number)], type_params=(T,))
TheDelivery = TypeAliasType("TheDelivery", Delivery)


async def test_types_with_names_of_their_own_are_dependencies(redis: Redis) -> None:
    seen: Seen = []
    router = make_router(redis)

    class Account:
        def __init__(self, number: NumberDep) -> None:
            self.number = number

    @router.on(DvOrder)
    async def handle(
        event: DvOrder,
        number: NumberDep,
        same: NumberAs[int],
        delivery: TheDelivery,
        account: Annotated[TypeAliasType("AnAccount", Account), "other metadata", Depends()],  # type: ignore[valid-type]
    ) -> None:
        seen.append((number, same, delivery.handler, account.number))

    await run(router, redis, DvOrder(number=3))
    assert seen == [(3, 3, "handle", 3)]


def test_a_handler_without_dependencies_is_called_as_it_is() -> None:
    async def handle(event: DvOrder, options: Any = None) -> None: ...

    router = EventRouter()
    router.on(DvOrder)(handle)
    assert runners_of(router._registered, [], Supplies(dict, None)) == {"handle": handle}


# --- the end --------------------------------------------------------------------------------------------------------


async def test_providers_end_after_the_handler_in_reverse_order_before_the_entry_is_acknowledged(redis: Redis) -> None:
    seen: Seen = []
    router = make_router(redis)

    async def middleware(delivery: Delivery, call_next: CallNext) -> None:
        seen.append("middleware")
        await call_next(delivery)
        seen.append(f"{len(await pending(redis))} pending")

    router = make_router(redis, middleware=[middleware])

    @router.on(DvOrder)
    async def handle(
        event: DvOrder,
        one: Annotated[str, Depends(noted(seen, "one"))],
        other: Annotated[str, Depends(noted(seen, "other"))],
    ) -> None:
        seen.append(f"handler with {one} and {other}")

    await run(router, redis, DvOrder())

    opened = ["open one", "open other", "handler with one and other", "close other", "close one"]
    assert seen == ["middleware", *opened, "1 pending"]


def swallows() -> Iterator[None]:
    with suppress(ValueError):
        yield


async def replaces() -> AsyncIterator[None]:
    try:
        yield
    except ValueError as error:
        raise KeyError("replaced") from error


async def fails_to_close() -> AsyncIterator[None]:
    yield
    raise OSError("the commit failed")


async def fails_to_open() -> AsyncIterator[None]:
    raise OSError("no connection")
    yield


def yields_twice_in_a_thread() -> Iterator[None]:
    yield
    yield


async def yields_twice() -> AsyncIterator[None]:
    yield
    yield


async def yields_nothing() -> AsyncIterator[None]:
    return
    yield


@pytest.mark.parametrize(
    ("inner", "raised", "error"),
    [
        (noted([], "inner"), ValueError("from the handler"), "ValueError: from the handler"),
        (swallows, ValueError("from the handler"), "ValueError: from the handler"),
        (replaces, ValueError("from the handler"), "KeyError: 'replaced'"),
        (fails_to_close, None, "OSError: the commit failed"),
        (fails_to_open, None, "OSError: no connection"),
        (yields_twice_in_a_thread, None, "RuntimeError: generator didn't stop"),
        (yields_twice, None, "RuntimeError: a provider is a generator that yields more than once"),
        (yields_twice, ValueError("from the handler"), "ValueError: from the handler"),
        (yields_nothing, None, "RuntimeError: a provider is a generator that yields nothing"),
        (noted([], "inner"), ExceptionGroup("of tasks", [ValueError("in a task")]), "ExceptionGroup: of tasks"),
        (noted([], "inner"), SystemExit(3), "SystemExit: 3"),
    ],
)
async def test_a_failure_reaches_every_provider_and_is_the_handlers(
    redis: Redis, inner: Any, raised: BaseException | None, error: str
) -> None:
    seen: Seen = []
    router = make_router(redis, max_deliveries=1)

    @router.on(DvOrder)
    async def handle(
        event: DvOrder, one: Annotated[str, Depends(noted(seen, "outer"))], other: Annotated[str, Depends(inner)]
    ) -> None:
        if raised is not None:
            raise raised

    await run(router, redis, DvOrder())

    (letter,) = await letters(redis)
    kind, _, text = error.partition(": ")
    assert letter[b"error_type"].decode() == kind
    assert letter[b"error"].decode().startswith(text)
    assert seen == ["open outer", f"outer saw {kind}", "close outer"]


async def test_a_wait_that_a_handler_asks_for_passes_through_its_providers(redis: Redis) -> None:
    seen: Seen = []
    router = make_router(redis, max_deliveries=1)

    @router.on(DvOrder)
    async def handle(event: DvOrder, delivery: Delivery, it: Annotated[str, Depends(noted(seen, "it"))]) -> None:
        if delivery.deliveries == 1:
            raise RetryAfter(0.01)

    await run(router, redis, DvOrder())

    assert seen == ["open it", "it saw RetryAfter", "close it", "open it", "close it"]
    assert await letters(redis) == []


async def test_a_handler_that_exceeds_its_time_limit_closes_what_it_opened(redis: Redis) -> None:
    """Also if the limit ends while a provider still opens in its thread."""
    seen: Seen = []
    router = make_router(redis, max_deliveries=1)
    is_late = threading.Event()

    async def waits(outer: Annotated[str, Depends(noted(seen, "outer"))]) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await asyncio.sleep(0)
            seen.append("rolled back")

    def opens_slowly() -> Iterator[None]:
        assert is_late.wait(60)
        try:
            yield
        except BaseException as error:
            seen.append(f"the thread saw {type(error).__name__}")
            raise

    async def limit(outer: Annotated[str, Depends(noted(seen, "outer"))]) -> None:
        asyncio.get_running_loop().call_later(0.5, is_late.set)

    @router.on(DvOrder, timeout=0.1)
    async def handle(event: DvOrder, it: Annotated[None, Depends(waits)]) -> None:
        await asyncio.Event().wait()

    @router.on(DvPayment, timeout=0.1)
    async def pay(
        event: DvPayment, late: Annotated[None, Depends(limit)], it: Annotated[None, Depends(opens_slowly)]
    ) -> None:
        seen.append("not reached")

    await run(router, redis, DvOrder(), DvPayment())

    outer = ["outer saw CancelledError", "close outer"]
    assert seen == ["open outer", "rolled back", *outer, "open outer", "the thread saw CancelledError", *outer]
    kind = f"{HandlerTimeoutError.__module__}.{HandlerTimeoutError.__name__}"
    assert [letter[b"error_type"].decode() for letter in await letters(redis)] == [kind, kind]


async def test_a_stop_that_interrupts_a_handler_closes_what_it_opened(redis: Redis) -> None:
    seen: Seen = []
    router = make_router(redis, shutdown_timeout=0.05)

    @router.on(DvOrder)
    async def handle(event: DvOrder, it: Annotated[str, Depends(noted(seen, "it"))]) -> None:
        await asyncio.Event().wait()

    async with running(router, redis=redis):
        await make_emitter(redis).emit(DvOrder())
        await eventually(lambda: seen)

    assert seen == ["open it", "it saw CancelledError", "close it"]
    assert await letters(redis) == []


async def test_what_is_open_can_close_while_no_thread_is_free(redis: Redis) -> None:
    """Otherwise threads that wait for a connection of a pool would keep its owner from giving it back."""
    router, busy = make_router(redis), AsyncExitStack()
    closed = asyncio.Event()
    loop = asyncio.get_running_loop()

    def connection() -> Iterator[None]:
        yield
        loop.call_soon_threadsafe(closed.set)

    @router.on(DvOrder)
    async def handle(event: DvOrder, it: Annotated[None, Depends(connection)]) -> None:
        await busy.enter_async_context(full_thread_pool())

    async with busy, running(router, redis=redis):
        await make_emitter(redis).emit(DvOrder())
        await asyncio.wait_for(closed.wait(), 60)
        await until_settled(redis)


# --- overrides ------------------------------------------------------------------------------------------------------


async def test_overrides_are_looked_up_at_each_attempt_and_the_routers_have_priority(redis: Redis) -> None:
    seen: Seen = []
    router = make_router(redis, max_deliveries=1)

    async def session() -> str:
        return "session"

    async def repository(of: Annotated[str, Depends(session)]) -> str:
        return f"repository of {of}"

    async def test_session() -> AsyncIterator[str]:
        yield "test session"
        seen.append("closed")

    async def test_repository(event: DvOrder, of: Annotated[str, Depends(session)]) -> str:
        return f"test repository {event.number} of {of}"

    async def of_request(request: Request) -> str:
        return request.url.path

    @router.on(DvOrder)
    async def handle(event: DvOrder, it: Annotated[str, Depends(repository)]) -> None:
        seen.append(it)

    in_app: dict[Any, Any] = {}
    router.use_dependencies(overrides=lambda: in_app)
    async with running(router, redis=redis):
        for number, (own, of_app) in enumerate(
            [
                ({}, {}),
                ({}, {session: test_session}),
                ({repository: test_repository}, {session: test_session, repository: of_request}),
                ({}, {repository: of_request}),
                ({}, {}),
            ]
        ):
            router.dependency_overrides, in_app = own, of_app
            await make_emitter(redis).emit(DvOrder(number=number))
            await until_settled(redis)

    plain, test = "repository of session", "repository of test session"
    assert seen == [plain, test, "closed", "test repository 2 of test session", "closed", plain]
    (letter,) = await letters(redis)
    assert b"there is no starlette.requests.Request" in letter[b"error"]


# --- what is refused ------------------------------------------------------------------------------------------------


async def get_account(pool: Annotated[str, Depends(lifespan_value)]) -> str:
    return pool


@asynccontextmanager
async def a_lifespan() -> AsyncIterator[str]:
    yield "a pool"


async def test_routers_do_not_start_without_the_lifespan_that_a_handler_depends_on(redis: Redis) -> None:
    router = EventRouter(redis, stream="dv", group="needy")

    @router.on("dv.*")
    async def plain(event: Event) -> None: ...

    @router.on("dv.*", name="needy")
    async def indirectly(event: Event, account: Annotated[str, Depends(get_account)]) -> None: ...

    with pytest.raises(NotConfiguredError, match=r"handler 'needy' of group 'needy' on stream 'dv' .* --lifespan"):
        async with routers_running([router], redis):
            pass
    async with lifespan_running(a_lifespan), routers_running([router], redis):
        assert router.running
    router.use_dependencies(overrides=lambda: {get_account: lambda: "another"})
    async with routers_running([router], redis):
        assert router.running
    router.dependency_overrides[get_account] = get_user  # which no handler can call: each attempt says so
    async with routers_running([router], redis):
        assert router.running
    router.dependency_overrides[get_account] = get_account
    assert router.handlers_that_call(lifespan_value) == ("needy",)
    router.dependency_overrides[lifespan_value] = lambda: "a fake"
    assert router.handlers_that_call(lifespan_value) == ()


async def get_user(request: Request) -> str:
    return ""


async def get_name(user: Annotated[str, Depends(get_user)]) -> str:
    return user


async def wants_a_payment(event: DvPayment) -> None: ...


async def wants_a_page(page: int) -> None: ...


async def wants_a_header(agent: Annotated[str, fastapi.Header()]) -> None: ...


async def wants_a_query(query: str = fastapi.Query("x")) -> None: ...


async def wants_the_unknown(what: "Unknown") -> None: ...  # type: ignore[name-defined]  # noqa: F821


@asynccontextmanager
async def get_context() -> AsyncIterator[None]:
    yield


async def needs_a_context(it: Annotated[None, Depends(get_context)]) -> None: ...


class Nested:
    def __init__(self, other: "Annotated[Nested, Depends()]") -> None: ...


WHAT_A_SCHEME_NEEDS = "{0.__module__}.{0.__qualname__}".format(get_type_hints(OAuth2PasswordBearer.__call__)["request"])
"""Newer releases of FastAPI take any connection, older ones a request."""


@pytest.mark.parametrize(
    ("provider", "parameter", "reason"),
    [
        (get_user, "request", "a handler runs for an event, and there is no starlette.requests.Request"),
        (get_name, "request", "a handler runs for an event, and there is no starlette.requests.Request"),
        (OAuth2PasswordBearer("token"), "request", f"there is no {WHAT_A_SCHEME_NEEDS}"),
        (get_user, "request", "depend on what needs none, or give the provider an in_handlers, which handlers call"),
        (wants_a_payment, "event", "the handler gets events that are no tests.worker.helpers.DvPayment"),
        (wants_a_page, "page", "it has no Depends() and no default, and int is no event, Delivery or EventEmitter"),
        (lambda what: what, "what", "it has no Depends() and no default, and is no event, Delivery or EventEmitter"),
        (wants_a_header, "agent", "only a request has a Header"),
        (wants_a_query, "query", "only a request has a Query"),
        (wants_the_unknown, "what", "its annotation 'Unknown' cannot be resolved: name 'Unknown' is not defined"),
        (Nested, "other", "depends on itself"),
        (needs_a_context, "it", "get_context is decorated with a context manager: Depends takes the generator"),
    ],
)
def test_a_provider_that_nothing_can_call_is_refused(provider: Any, parameter: str, reason: str) -> None:
    async def charge(event: DvOrder, it: Annotated[Any, Depends(provider)]) -> None: ...

    router = EventRouter()
    name = getattr(get_user if provider is get_name else provider, "__qualname__", "OAuth2PasswordBearer")
    expected = rf"^the handler 'charge' depends on the provider .*{re.escape(name)}.*parameter '{parameter}': .*"
    with pytest.raises(TypeError, match=expected + re.escape(reason)):
        router.on(DvOrder)(charge)
    assert router.handler_names == ()


def test_a_parameter_of_a_handler_that_nothing_can_fill_is_refused() -> None:
    async def typed(event: DvOrder, page: int) -> None: ...
    async def beside(event: DvOrder, delivery: Delivery, page: object) -> None: ...
    async def request(event: DvOrder, request: Request) -> None: ...
    async def text(event: DvOrder, it: Annotated["str | int", Depends()]) -> None: ...
    async def by_position(event: DvOrder, it: Annotated[str, Depends(get_user)], /) -> None: ...
    async def another(event: DvOrder, payment: DvPayment) -> None: ...
    async def not_called(event: DvOrder, it: Annotated[str, Depends]) -> None: ...
    async def not_called_either(event: DvOrder, it: Annotated[str, fastapi.Depends]) -> None: ...

    for handler, parameter, reason in [
        (typed, "page", "it has no Depends() and no default, and int is no event, Delivery or EventEmitter"),
        (beside, "page", "it has no Depends() and no default, and is no event, Delivery or EventEmitter"),
        (request, "request", "there is no starlette.requests.Request; let the handler depend on what needs none"),
        (text, "it", "Depends() without a provider needs a class as the annotation, not str | int"),
        (by_position, "it", "it can be given by position only"),
        (not_called, "it", "Depends is not called: write Depends() with the provider, if it is not the class"),
        (not_called_either, "it", "Depends is not called: write Depends() with the provider, if it is not the class"),
        (another, "payment", "the handler gets events that are no tests.worker.helpers.DvPayment"),
    ]:
        expected = f"the handler {handler.__name__!r}: nothing can fill the parameter {parameter!r}: "
        with pytest.raises(TypeError, match=f"^{re.escape(expected)}.*{re.escape(reason)}$"):
            EventRouter().on(DvOrder)(handler)


def test_a_provider_may_ask_for_the_event_by_any_type_that_all_of_the_handlers_events_have() -> None:
    router = EventRouter()

    async def of_any(event: Event) -> None: ...
    async def of_both(event: BaseEvent | GenericEvent) -> None: ...
    async def of_known(event: BaseEvent) -> None: ...
    async def handle(
        event: Any, one: Annotated[None, Depends(of_any)], two: Annotated[None, Depends(of_both)]
    ) -> None: ...

    router.on("dv.*")(handle)
    router.on(Event)(handle)
    router.on(DvOrder | GenericEvent)(handle)

    async def knows(event: Event, one: Annotated[None, Depends(of_known)]) -> None: ...

    router.on(DvOrder | DvPayment)(knows)
    for target in ("dv.*", Event, DvOrder | GenericEvent):
        with pytest.raises(TypeError, match=r"the handler gets events that are no rapids\.events\.BaseEvent$"):
            router.on(target)(knows)


@pytest.mark.parametrize(
    ("option", "nonsense", "allowed"),
    [("emitter", STREAM, "an EventEmitter"), ("overrides", {}, "a plain function that returns the overrides")],
)
def test_what_an_application_cannot_give_is_refused(option: str, nonsense: Any, allowed: str) -> None:
    with pytest.raises(TypeError, match=f"^{option} must be {allowed}, not {re.escape(repr(nonsense))}$"):
        EventRouter().use_dependencies(**{option: nonsense})
    with pytest.raises(TypeError, match=r"^Depends\(\) takes a function or a class that gives the value, not 'x'$"):
        Depends("x")  # type: ignore[arg-type]
