"""Registering handlers: names, policies, and what is refused."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids import BaseEvent, EventRouter
from rapids._core.handlers import Handler, HandlerRegistry
from rapids.backoff import constant, exponential, linear
from rapids.exceptions import NonRetryableError, RedisUnavailableError


class RegOrderPlaced(BaseEvent):
    pass


class RegOrderShipped(BaseEvent):
    pass


DEFAULT = constant(7)


@pytest.fixture
def router() -> HandlerRegistry:
    return HandlerRegistry(timeout=30.0, retries=2, backoff=DEFAULT)


def registered(router: HandlerRegistry) -> list[Handler]:
    return list(router._registered)


def names(router: HandlerRegistry) -> list[str]:
    return [handler.name for handler in registered(router)]


async def notify(event: RegOrderPlaced) -> None: ...


class Service:
    async def notify(self, event: RegOrderPlaced) -> None: ...

    async def __call__(self, event: RegOrderPlaced) -> None: ...

    def blocking(self, event: RegOrderPlaced) -> None: ...


def another_notify() -> Callable[[RegOrderPlaced], Any]:
    async def notify(event: RegOrderPlaced) -> None: ...

    return notify


# --- what is registered ---------------------------------------------------------------------------------------------


def test_on_returns_the_function_unchanged(router: HandlerRegistry) -> None:
    assert router.on(RegOrderPlaced)(notify) is notify
    assert registered(router)[0].function is notify


def test_without_options_a_handler_has_the_routers_policy(router: HandlerRegistry) -> None:
    router.on(RegOrderPlaced)(notify)

    assert registered(router) == [Handler("notify", notify, (RegOrderPlaced,), 30.0, 2, DEFAULT, ())]


def test_options_override_the_routers_policy(router: HandlerRegistry) -> None:
    backoff = exponential(base=2, max_delay=30)
    decorate = router.on(
        RegOrderPlaced, timeout=60.0, retries=0, backoff=backoff, retryable_exceptions=(ConnectionError, TimeoutError)
    )
    decorate(notify)

    expected = Handler("notify", notify, (RegOrderPlaced,), 60.0, 0, backoff, (ConnectionError, TimeoutError))
    assert registered(router) == [expected]


def test_handlers_keep_their_order(router: HandlerRegistry) -> None:
    router.on(RegOrderShipped, name="first")(notify)
    router.on("*", name="second")(notify)
    router.on(RegOrderPlaced, name="third")(notify)

    assert names(router) == ["first", "second", "third"]


def test_one_function_can_listen_to_several_targets(router: HandlerRegistry) -> None:
    @router.on(RegOrderPlaced)
    @router.on(RegOrderShipped)
    async def both(event: RegOrderPlaced | RegOrderShipped) -> None: ...

    assert [handler.targets for handler in registered(router)] == [(RegOrderShipped,), (RegOrderPlaced,)]


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (notify, "notify"),
        (Service().notify, "notify"),
        (Service(), "Service"),
        (functools.partial(notify), "partial"),
        (functools.partial(Service().notify), "partial"),
    ],
    ids=["function", "method", "object", "partial", "partial of a method"],
)
def test_whatever_is_called_asynchronously_is_a_handler(router: HandlerRegistry, function: Any, name: str) -> None:
    router.on(RegOrderPlaced)(function)
    assert names(router) == [name]


# --- names ----------------------------------------------------------------------------------------------------------


def test_handlers_of_one_name_differ_by_module_and_qualified_name_then_by_number(
    router: HandlerRegistry,
) -> None:
    for function in (notify, Service().notify, another_notify(), another_notify(), notify, notify):
        router.on(RegOrderPlaced)(function)

    inner = f"{__name__}.another_notify.<locals>.notify"
    assert names(router) == [
        "notify",
        f"{__name__}.Service.notify",
        inner,
        f"{inner}#2",
        f"{__name__}.notify",
        f"{__name__}.notify#2",
    ]


def test_the_same_registrations_give_the_same_names() -> None:
    def made() -> list[str]:
        router = HandlerRegistry(timeout=1, retries=0, backoff=DEFAULT)
        for function in (another_notify(), notify, another_notify(), Service(), Service()):
            router.on(RegOrderPlaced)(function)
        return names(router)

    assert made() == made()
    assert len(set(made())) == 5


def test_a_name_given_is_the_name(router: HandlerRegistry) -> None:
    router.on(RegOrderPlaced, name="order-mail")(notify)
    assert names(router) == ["order-mail"]


def test_a_name_given_twice_is_refused(router: HandlerRegistry) -> None:
    router.on(RegOrderPlaced, name="order-mail")(notify)
    with pytest.raises(ValueError, match="name must be one that no other handler of the router has, not 'order-mail'"):
        router.on(RegOrderShipped, name="order-mail")(another_notify())
    assert names(router) == ["order-mail"]


def test_a_name_given_that_a_function_has_already_is_refused(router: HandlerRegistry) -> None:
    router.on(RegOrderPlaced)(notify)
    with pytest.raises(ValueError, match="not 'notify'"):
        router.on(RegOrderShipped, name="notify")(another_notify())


def test_a_function_whose_name_was_given_to_another_gets_its_long_one(router: HandlerRegistry) -> None:
    router.on(RegOrderPlaced, name="notify")(another_notify())
    router.on(RegOrderPlaced)(notify)
    assert names(router) == ["notify", f"{__name__}.notify"]


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda event: None, id="a lambda"),
        *(Service().blocking, print, functools.partial(print), RegOrderPlaced, None, 3, "notify"),
    ],
    ids=lambda function: f"{function!r:.30}",
)
def test_a_function_that_is_not_async_is_refused(router: HandlerRegistry, function: Any) -> None:
    with pytest.raises(TypeError, match="a handler must be an async function"):
        router.on(RegOrderPlaced)(function)
    assert registered(router) == []


def test_an_async_generator_is_refused(router: HandlerRegistry) -> None:
    async def yields(event: RegOrderPlaced) -> Any:
        yield event

    with pytest.raises(TypeError, match="a handler must be an async function"):
        router.on(RegOrderPlaced)(yields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("option", "nonsense", "kind", "allowed"),
    [
        ("timeout", 0, ValueError, "a finite number of seconds above 0"),
        ("timeout", -1, ValueError, "a finite number of seconds above 0"),
        ("timeout", math.inf, ValueError, "a finite number of seconds above 0"),
        ("timeout", math.nan, ValueError, "a finite number of seconds above 0"),
        ("timeout", "1", TypeError, "a finite number of seconds above 0"),
        ("timeout", True, TypeError, "a finite number of seconds above 0"),
        ("retries", -1, ValueError, "a whole number of 0 or more"),
        ("retries", 1.5, TypeError, "a whole number of 0 or more"),
        ("retries", "1", TypeError, "a whole number of 0 or more"),
        ("backoff", 5, TypeError, "a backoff such as exponential()"),
        ("backoff", "linear", TypeError, "a backoff such as exponential()"),
        ("retryable_exceptions", ConnectionError, TypeError, "a tuple of exception classes"),
        ("retryable_exceptions", [ConnectionError], TypeError, "a tuple of exception classes"),
        ("retryable_exceptions", (ConnectionError("x"),), TypeError, "a tuple of exception classes"),
        ("retryable_exceptions", ("ConnectionError",), TypeError, "a tuple of exception classes"),
        ("retryable_exceptions", (int,), TypeError, "a tuple of exception classes"),
        ("retryable_exceptions", None, TypeError, "a tuple of exception classes"),
        ("name", "", ValueError, "a non-empty string"),
        ("name", "a\nb", ValueError, "a non-empty string"),
        ("name", 3, TypeError, "a non-empty string"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_before_there_is_a_function(
    router: HandlerRegistry, option: str, nonsense: Any, kind: type[Exception], allowed: str
) -> None:
    with pytest.raises(kind, match=f"^{option} must be") as raised:
        router.on(RegOrderPlaced, **{option: nonsense})

    assert allowed in str(raised.value)
    assert str(raised.value).endswith(f"not {nonsense!r}")


def test_an_unknown_option_is_refused(router: HandlerRegistry) -> None:
    with pytest.raises(TypeError, match="retry"):
        router.on(RegOrderPlaced, retry=3)  # type: ignore[call-overload]


def test_an_invalid_target_is_refused_at_once(router: HandlerRegistry) -> None:
    with pytest.raises(TypeError, match=r"on\(\) takes an event class"):
        router.on(notify)


def test_an_error_class_of_our_own_may_be_retryable(router: HandlerRegistry) -> None:
    router.on(RegOrderPlaced, retryable_exceptions=(NonRetryableError, KeyboardInterrupt))(notify)
    assert registered(router)[0].retryable_exceptions == (NonRetryableError, KeyboardInterrupt)


# --- through the router ---------------------------------------------------------------------------------------------


def test_a_routers_defaults_are_its_handlers() -> None:
    router = EventRouter(handler_timeout=5, default_retries=1, default_backoff=DEFAULT)
    router.on(RegOrderPlaced)(notify)
    assert registered(router) == [Handler("notify", notify, (RegOrderPlaced,), 5, 1, DEFAULT, ())]


@pytest.mark.parametrize(
    ("option", "nonsense"),
    [("batch_size", 0), ("handler_timeout", -1), ("group", ""), ("stream", "{}"), ("max_deliveries", 0)],
)
def test_a_router_refuses_its_options_at_construction(option: str, nonsense: Any) -> None:
    with pytest.raises(ValueError, match=f"^{option} must"):
        EventRouter(**{option: nonsense})


@pytest.mark.parametrize("nonsense", [0, "", False, 5])
def test_a_router_refuses_an_invalid_backoff(nonsense: Any) -> None:
    with pytest.raises(TypeError, match=r"^default_backoff must be a backoff"):
        EventRouter(default_backoff=nonsense)


async def nothing() -> None: ...


async def one_event(event: object) -> None: ...


async def two(one: object, other: object) -> None: ...


async def three(one: object, other: object, another: object) -> None: ...


async def needs_a_keyword(event: object, *, session: object) -> None: ...


def sync(one: object, other: object) -> None: ...


class Layer:
    async def __call__(self, delivery: object, call_next: object) -> None: ...

    async def method(self, delivery: object, call_next: object) -> None: ...


class HdFamily(BaseEvent):
    """Other test modules have events of any kind, so `BaseEvent` itself would match those, too."""


class HdMember(HdFamily):
    amount: int = 0


class HdKeyed(BaseEvent):
    account_id: str = ""

    @property
    def region(self) -> str:
        return self.account_id[:2]


class HdUnkeyed(BaseEvent):
    number: int = 0


@pytest.mark.parametrize(
    "nonsense", [two, sync, (two, 3), [sync], [one_event], [3], [two, three], {two}, "two", [Layer], None]
)
def test_a_router_refuses_middleware_that_cannot_be_called_as_it_is(nonsense: Any) -> None:
    allowed = r"^middleware must be a list of async functions \(delivery, call_next\), not "
    with pytest.raises(TypeError, match=allowed + re.escape(repr(nonsense))):
        EventRouter(middleware=nonsense)


@pytest.mark.parametrize("layer", [two, Layer(), Layer().method, partial(three, 1)])
def test_middleware_may_be_whatever_takes_a_delivery_and_the_next(layer: Any) -> None:
    EventRouter(middleware=[layer])
    EventRouter(middleware=(layer, layer))


@pytest.mark.parametrize(
    ("handler", "parameter"),
    [
        (two, "other"),
        (needs_a_keyword, "session"),
        (Layer(), "call_next"),
        (Layer.method, "delivery"),
        (partial(three, 1), "another"),
    ],
)
def test_a_handler_with_a_parameter_that_nothing_fills_is_refused(handler: Any, parameter: str) -> None:
    refused = f"nothing can fill the parameter {parameter!r}: it has no Depends() and no default, and is no event"
    with pytest.raises(TypeError, match=f"^the handler '[a-zA-Z_]+': {re.escape(refused)}, Delivery or EventEmitter$"):
        EventRouter().on(HdKeyed)(handler)


def test_a_handler_that_takes_no_event_is_refused() -> None:
    refused = f"a handler must be an async function of one argument, the event, not {nothing!r}"
    with pytest.raises(TypeError, match=f"^{re.escape(refused)}$"):
        EventRouter().on(HdKeyed)(nothing)


def test_a_handler_s_wrapper_is_called_and_not_what_it_wraps() -> None:
    def with_session(function: Any) -> Any:
        @wraps(function)
        async def call(event: HdKeyed) -> None:
            await function(event, "session")

        return call

    @EventRouter().on(HdKeyed)
    @with_session
    async def handle(event: HdKeyed, session: str) -> None: ...


@pytest.mark.parametrize("option", ["backoff", "default_backoff", "redelivery_backoff"])
@pytest.mark.parametrize(
    "nonsense", [exponential, linear, constant, one_event, float, lambda: 1.0, lambda one, other: 1.0]
)
def test_what_is_no_backoff_is_refused(option: str, nonsense: Any) -> None:
    with pytest.raises(
        TypeError, match=rf"^{option} must be a backoff such as exponential\(\), .* not {re.escape(repr(nonsense))}"
    ):
        EventRouter().on(HdKeyed, backoff=nonsense) if option == "backoff" else EventRouter(**{option: nonsense})


@pytest.mark.parametrize("nonsense", [one_event, two, sync, lambda: 1, 3])
def test_what_cannot_give_a_key_is_refused(nonsense: Any) -> None:
    with pytest.raises(
        TypeError, match=f"^order_by must be a field's name or a plain function .* not {re.escape(repr(nonsense))}"
    ):
        EventRouter(order_by=nonsense)


@pytest.mark.parametrize("nonsense", [one_event, two, sync, lambda: 1])
def test_what_cannot_observe_is_refused(nonsense: Any) -> None:
    with pytest.raises(TypeError, match=r"^observers must be a list of plain functions of one detail, not "):
        EventRouter(observers=[nonsense])


@pytest.mark.parametrize("target", [HdKeyed, HdUnkeyed, HdKeyed | HdUnkeyed, HdFamily, "hd.*"])
async def test_a_field_that_no_handled_class_has_is_refused_at_the_start(target: Any) -> None:
    router = EventRouter(Redis(port=1), concurrency=2, order_by="acount_id")
    router.on(target)(one_event)
    with pytest.raises(ValueError, match=r"^order_by must be a field of an event class .*, not 'acount_id'$"):
        await router.start()


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (HdKeyed, "account_id"),
        (HdKeyed | HdUnkeyed, "account_id"),
        (HdUnkeyed, "correlation_id"),
        (HdKeyed, "region"),
        ("no.such", "any"),
    ],
)
async def test_a_field_that_a_handled_class_has_is_accepted(target: Any, name: str) -> None:
    router = EventRouter(Redis(port=1), concurrency=2, order_by=name)
    router.on(target)(one_event)
    with pytest.raises(RedisUnavailableError):
        await router.start()
