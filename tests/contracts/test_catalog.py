"""The catalog: event types with what is written and read of them, who emits them and who handles them."""

from __future__ import annotations

from typing import Any

import pytest

from rapids import BaseEvent, Emits, EventRouter
from rapids.catalog import Catalog, EmittedBy, HandledBy
from rapids.event_schemas import event_schema
from rapids.testing import RecordingEmitter, deliver
from rapids.typed_emitter import EmitsProvider, declared_classes
from rapids_fastapi import emitting_endpoints
from tests.cli.helpers import Command
from tests.contracts import shop
from tests.contracts.shop import STREAM, ShopOrderPlaced, ShopOrderRejected, ShopOrderShipped

APP = ("--app", "tests.contracts.shop:app", "--app", "tests.contracts.shop:plug_in")


def test_the_catalog_has_emitters_and_handlers_with_their_policies() -> None:
    catalog = Catalog.of([shop.router], endpoints=emitting_endpoints(shop.app, STREAM))

    placed, rejected = catalog["shop_order.placed"], catalog["shop_order.rejected"]
    policy: dict[str, Any] = {
        "stream": STREAM,
        "group": "billing",
        "max_deliveries": 3,
        "dlq_stream": f"{{{STREAM}}}:dlq",
    }
    assert (placed.schema_version, placed.description) == (3, "A customer has placed an order.")
    assert placed.event_class == "tests.contracts.shop.ShopOrderPlaced"
    assert placed.emitters == (EmittedBy(STREAM, "endpoint", "POST /orders"),)
    assert placed.handlers == (
        HandledBy(handler="charge", timeout=5, retries=2, retryable_exceptions=("OSError",), **policy),
        HandledBy(handler="log", timeout=30, retries=0, retryable_exceptions=(), **policy),
    )
    assert rejected.emitters == (
        EmittedBy(STREAM, "endpoint", "POST /orders"),
        EmittedBy(STREAM, "handler", "charge", "billing"),
    )
    assert [one.name for one in catalog["shop_order.shipped"].emitters] == [
        "POST /orders/{order_id}/shipment",
        "POST /orders/wrong",
        "log",
    ]
    with pytest.raises(KeyError):
        catalog["shop_order.lost"]


def test_a_schema_says_what_is_written_and_what_is_read() -> None:
    written, read = event_schema(ShopOrderPlaced, "written"), event_schema(ShopOrderPlaced, "read")

    own = {"order_id", "total", "payment", "size", "extras", "parcels"}
    assert set(written["properties"]) == set(read["properties"]) == own, "without computed and common fields"
    assert set(written["required"]) == own, "every field is written"
    assert set(read["required"]) == {"order_id", "total", "payment"}
    assert written["properties"]["extras"]["type"] == "string", "a Json field is written as text"
    assert set(written["$defs"]["ShopMoney"]["required"]) == {"amount", "currency"}


@pytest.mark.parametrize(
    "command",
    [
        ("events", "--app", "tests.contracts.shop:app", "--app", "tests.contracts.shop:router"),
        ("events", *APP),
    ],
)
def test_the_command_shows_who_emits(command: tuple[str, ...]) -> None:
    rapids = Command("")

    shown = {one["event_type"]: one for one in rapids.json(*command)}
    [row] = [line for line in rapids(*command).stdout.splitlines() if line.startswith("shop_order.rejected")]

    assert [one["name"] for one in shown["shop_order.placed"]["emitters"]] == ["POST /orders"]
    assert row.split()[3:] == ["POST", "/orders,", "billing:", "charge", "billing:", "log"]


# --- Emits in handlers ------------------------------------------------------------------------------------------------


class TypedStarted(BaseEvent):
    pass


class TypedDone(BaseEvent):
    pass


class TypedDoneFast(TypedDone):
    pass


async def test_a_handler_emits_what_it_declares_and_nothing_else() -> None:
    router = EventRouter(group="typed")

    @router.on(TypedStarted)
    async def declared(event: TypedStarted, events: Emits[TypedDone]) -> None:
        assert await events.emit(TypedDone()) == "1-0"
        assert await events.emit([TypedDoneFast(), TypedDone()]) == ["2-0", "3-0"]

    @router.on(TypedStarted)
    async def undeclared(event: TypedStarted, events: Emits[TypedDone]) -> None:
        await events.emit(event)  # type: ignore[call-overload]

    @router.on(TypedStarted)
    async def in_a_list(event: TypedStarted, events: Emits[TypedDone]) -> None:
        await events.emit(one for one in (TypedDone(), event))  # type: ignore[call-overload]

    outcomes = await deliver(router, TypedStarted(), deliveries=1)

    outcomes.done("declared")
    assert [type(one) for one in outcomes.emitter.events] == [TypedDone, TypedDoneFast, TypedDone]
    for name in ("undeclared", "in_a_list"):
        assert str(outcomes[name].error) == (
            "this emitter is for Emits[TypedDone], and TypedStarted (typed.started) is not declared: add the class to "
            "the annotation"
        )
    await declared(TypedStarted(), RecordingEmitter())  # as in a test of the function alone


@pytest.mark.parametrize("annotation", ["Emits[int]", "Emits", "Emits[TypedStarted | None]", "Emits['typed.*']"])
def test_only_event_classes_can_be_declared(annotation: str) -> None:
    router = EventRouter(group="typed")

    async def handler(event: TypedStarted, events: Any) -> None: ...

    handler.__annotations__["events"] = f"__import__('rapids').{annotation}"
    with pytest.raises(TypeError, match=r"nothing can fill the parameter 'events'"):
        router.on(TypedStarted)(handler)


def test_a_union_by_its_name_is_a_union() -> None:
    provider = EmitsProvider(declared_classes(ShopOrderRejected | ShopOrderShipped | TypedDone))
    assert provider.event_types == ("shop_order.rejected", "shop_order.shipped", "typed.done", "typed_done.fast")
    assert EmitsProvider((BaseEvent,)).event_types == ()
