"""The whole service on a real server, over HTTP."""

from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from example_app.app import create_app
from example_app.demo.serving import listening, serving
from example_app.events import OrderPlaced, OrderShipped, PaymentProcessed
from example_app.settings import Settings
from example_app.tests.conftest import TOKEN
from rapids.testing import tracked
from tests.support import NO_TLS

OPERATOR = {"Authorization": f"Bearer {TOKEN}"}


async def place(http: httpx.AsyncClient, card: str = "visa", **headers: str) -> httpx.Response:
    order = {"customer": "Ada", "items": ["lamp"], "total": "48.90", "card": card}
    answer = await http.post("/orders", json=order, headers=headers)
    assert answer.status_code == 202, answer.text
    return answer


async def shown(http: httpx.AsyncClient, order_id: str) -> dict[str, Any]:
    return (await http.get(f"/orders/{order_id}")).json()


async def dead_letters(http: httpx.AsyncClient) -> list[dict[str, Any]]:
    return (await http.get("/rapids/api/dead-letters", headers=OPERATOR)).json()["items"]


async def test_an_order_is_paid_shipped_and_audited(app: FastAPI, http: httpx.AsyncClient) -> None:
    async with tracked(app) as t:
        answer = await place(http, **{"X-Correlation-ID": "web-1"})
        await t.settled()
    order_id = answer.json()["order_id"]
    assert answer.headers["Location"] == f"/orders/{order_id}"
    assert answer.headers["X-Correlation-ID"] == "web-1"
    t.all_handled()
    assert t.only(PaymentProcessed, order_id=order_id).causation_id == t.only(OrderPlaced).id
    assert t.only(OrderShipped, order_id=order_id).correlation_id == "web-1"
    order = await shown(http, order_id)
    assert order["status"] == "shipped"
    assert [line["event_type"] for line in order["history"]] == ["order.placed", "order.shipped"]
    assert {line["correlation_id"] for line in order["history"]} == {"web-1"}


async def test_a_courier_that_fails_now_and_then_fails_no_order(app: FastAPI, http: httpx.AsyncClient) -> None:
    async with tracked(app) as t:
        for _ in range(3):
            await place(http)
        await t.settled()
    t.all_handled()
    assert len(t.emitted(OrderShipped)) == 3


async def test_a_declined_card_waits_as_a_dead_letter_until_it_is_replayed(
    app: FastAPI, http: httpx.AsyncClient
) -> None:
    async with tracked(app) as t:
        order_id = (await place(http, card="declined")).json()["order_id"]
        await t.settled()
        t.nothing(PaymentProcessed)
        [left] = t.dead_letters
        order = await shown(http, order_id)
        assert (order["status"], order["declined"]) == ("payment_declined", "insufficient funds")
        [letter] = await dead_letters(http)
        assert (letter["id"], letter["handler"], letter["reason"]) == (left.id, "take_payment", "non_retryable")
        assert letter["error"] == left.error == "card declined: insufficient funds"

        assert (await http.put(f"/orders/{order_id}/card", json={"card": "visa"})).status_code == 204
        replay = await http.post(f"/rapids/api/dead-letters/{letter['id']}/replay", json={}, headers=OPERATOR)
        assert replay.status_code == 200
        await t.settled()
        t.all_handled()
    order = await shown(http, order_id)
    assert (order["status"], order["declined"]) == ("shipped", "")
    assert await dead_letters(http) == []


async def test_no_card_is_shown_or_gets_into_an_event(app: FastAPI, http: httpx.AsyncClient) -> None:
    async with tracked(app) as t:
        order_id = (await place(http, card="visa-4242")).json()["order_id"]
        await t.settled()
    assert t.only(OrderShipped)
    assert "4242" not in str(await shown(http, order_id))
    assert "4242" not in str(t.events)


async def test_a_paid_order_takes_no_other_card(app: FastAPI, http: httpx.AsyncClient) -> None:
    async with tracked(app) as t:
        order_id = (await place(http)).json()["order_id"]
        await t.settled()
    assert (await http.put(f"/orders/{order_id}/card", json={"card": "visa"})).status_code == 409


@pytest.mark.parametrize("path", ["/orders/nope", "/orders/nope/card"])
async def test_an_unknown_order_is_not_found(http: httpx.AsyncClient, path: str) -> None:
    method = "PUT" if path.endswith("card") else "GET"
    answer = await http.request(method, path, json={"card": "visa"} if method == "PUT" else None)
    assert answer.status_code == 404


@pytest.mark.parametrize(
    "nonsense", [{"items": []}, {"total": "0"}, {"total": "1.999"}, {"customer": ""}, {"items": ["a\nb"]}, {"card": ""}]
)
async def test_nonsense_is_refused_and_nothing_is_emitted(
    app: FastAPI, http: httpx.AsyncClient, nonsense: dict[str, Any]
) -> None:
    order = {"customer": "Ada", "items": ["lamp"], "total": "48.90", "card": "visa", **nonsense}
    async with tracked(app) as t:
        assert (await http.post("/orders", json=order)).status_code == 422
        await t.settled()
    t.nothing()


async def test_the_admin_is_closed_without_a_token(settings: Settings) -> None:
    async with (
        serving(create_app(replace(settings, admin_token=None)), listening(0)) as address,
        httpx.AsyncClient(base_url=address, trust_env=False, timeout=60, verify=NO_TLS) as http,
    ):
        assert (await http.get("/rapids/api/dead-letters", headers=OPERATOR)).status_code == 403


async def test_two_processes_of_the_service_see_the_same_orders(settings: Settings) -> None:
    app = create_app(settings)
    async with (
        serving(app, listening(0)) as here,
        serving(create_app(settings), listening(0)) as there,
        httpx.AsyncClient(base_url=here, trust_env=False, timeout=60, verify=NO_TLS) as http,
        httpx.AsyncClient(base_url=there, trust_env=False, timeout=60, verify=NO_TLS) as other,
        tracked(app) as t,
    ):
        order_id = (await place(http)).json()["order_id"]
        await t.settled()
        assert (await shown(other, order_id))["status"] == "shipped"


async def test_the_app_starts_and_stops_several_times(settings: Settings) -> None:
    app = create_app(settings)
    for _ in range(3):
        async with (
            serving(app, listening(0)) as address,
            httpx.AsyncClient(base_url=address, trust_env=False, timeout=60, verify=NO_TLS) as http,
            tracked(app) as t,
        ):
            await place(http)
            await t.settled()
            t.only(OrderShipped)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.from_environment() == Settings("embedded:", "example:orders")
    monkeypatch.setenv("RAPIDS_REDIS_URL", " redis://elsewhere:1 ")
    monkeypatch.setenv("EXAMPLE_STREAM", "mine")
    assert Settings.from_environment() == Settings("redis://elsewhere:1", "mine")
