"""`Emits[...]` in endpoints: what they may emit, what OpenAPI says of it; and the catalog and AsyncAPI over HTTP."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Literal

import pytest
from fastapi import FastAPI, WebSocket
from fastapi.testclient import TestClient
from pydantic import BaseModel, ConfigDict, Field
from redis.asyncio import Redis

import rapids
from rapids import BaseEvent, EventEmitter
from rapids.catalog import Catalog
from rapids.event_schemas import OPAQUE, event_schema
from rapids.redaction import MASK
from rapids.testing import RecordingEmitter
from rapids_fastapi import (
    Emits,
    EmitsOnSuccess,
    EmitterDep,
    Rapids,
    allow_anyone,
    describe_emits,
    emitting_endpoints,
    get_emitter,
    rapids_admin,
)
from rapids_fastapi.admin import contracts
from tests.cli.helpers import Command
from tests.contracts.shop import STREAM, ShopOrderPlaced, ShopOrderShipped, application
from tests.fastapi.helpers import BEARER, TOKEN, async_client_of, entries
from tests.support import idle_router

MONEY = {"amount": "12.50"}


def shop(url: str) -> FastAPI:
    router = idle_router(stream=STREAM, group="billing")
    return application(Rapids(emitter=EventEmitter(stream=STREAM), routers=[router], url=url))


def test_an_endpoint_emits_what_it_declares(redis_url: str) -> None:
    with TestClient(shop(redis_url)) as client:
        assert client.post("/orders", json=MONEY).status_code == 200
        assert client.post("/orders/o-1/shipment").status_code == 200
        with pytest.raises(TypeError, match=r"Emits\[ShopOrderShipped\], and ShopOrderPlaced "):
            client.post("/orders/wrong")

    assert [one["event_type"] for one in entries(redis_url, STREAM)] == ["shop_order.placed", "shop_order.shipped"]


def test_overrides_of_the_emitter_hold_for_typed_emitters(redis_url: str) -> None:
    app, recorder = shop(redis_url), RecordingEmitter()
    app.dependency_overrides[get_emitter] = lambda: recorder
    with TestClient(app) as client:
        client.post("/orders", json=MONEY)
        client.post("/orders/o-1/shipment")

    assert [type(one) for one in recorder.events] == [ShopOrderPlaced, ShopOrderShipped]


def test_openapi_has_what_an_operation_emits(redis_url: str) -> None:
    app, inner = shop(redis_url), FastAPI()

    @inner.put("/k")
    async def inside(events: Emits[ShopOrderPlaced]) -> None: ...

    @app.websocket("/ws")
    async def connected(websocket: WebSocket, events: EmitsOnSuccess[ShopOrderShipped]) -> None: ...

    app.mount("/inner", inner)
    app.openapi()  # made too early
    with TestClient(app) as client:
        paths = client.get("/openapi.json").json()["paths"]
        assert client.get("/inner/openapi.json").json()["paths"]["/k"]["put"]["x-emits"] == ["shop_order.placed"]

    assert paths["/orders"]["post"]["x-emits"] == ["shop_order.placed", "shop_order.rejected"]
    assert paths["/orders/{order_id}/shipment"]["post"]["x-emits"] == ["shop_order.shipped"]
    assert "x-emits" not in paths["/rapids/api/streams"]["get"]
    assert paths["/rapids/api/streams"]["get"]["x-rapids-permission"] == "read"
    assert [one.endpoint for one in emitting_endpoints(app)] == [
        "POST /orders",
        "POST /orders/{order_id}/shipment",
        "POST /orders/wrong",
        "WEBSOCKET /ws",
        "PUT /inner/k",
    ]
    script = shop("redis://localhost:1/0")
    describe_emits(script)
    assert script.openapi()["paths"]["/orders"] == paths["/orders"]


def test_the_class_of_the_core_is_refused_in_an_endpoint() -> None:
    async def endpoint(events: rapids.Emits[ShopOrderPlaced]) -> None: ...

    with pytest.raises(TypeError, match="takes Emits from rapids_fastapi"):
        FastAPI().get("/")(endpoint)
    with pytest.raises(TypeError, match=r"Emits\[...\] takes an event class"):
        Emits[int]  # type: ignore[type-var]


def test_the_catalog_and_asyncapi_over_http(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAPIDS_ADMIN_TOKEN", TOKEN)
    with TestClient(shop(redis_url)) as client:
        for path in ("/rapids/api/catalog", "/rapids/asyncapi.json"):
            assert client.get(path).status_code == 401
        client.headers.update(BEARER)
        client.post("/orders", json=MONEY)
        catalog = {one["event_type"]: one for one in client.get("/rapids/api/catalog").json()["items"]}
        document = client.get("/rapids/asyncapi.json").json()

    placed = catalog["shop_order.placed"]
    assert placed["emitters"] == [{"stream": STREAM, "kind": "endpoint", "name": "POST /orders", "group": ""}]
    assert placed["json_schema"]["required"] == ["order_id", "payment", "total"]
    assert {one["group"] for one in placed["handlers"]} <= {"billing"}
    assert document["info"] == {"title": "The shop", "version": "1.2.3"}
    assert document["operations"]["send-POST-orders"]["action"] == "send"


service = idle_router(stream=STREAM)


class TypedCredentials(BaseModel):
    value: str = "S3CRET-1"


class TypedHeader(BaseModel):
    name: str = "authorization"
    value: str = "S3CRET-8"


class TypedLogin(BaseEvent):
    model_config = ConfigDict(json_schema_extra={"x-sample": {"password": "S3CRET-9", "user": "ann"}, "components": {}})

    password: str = "S3CRET-2"
    api_key: str = Field(default="ok", examples=["S3CRET-3"])
    token: Literal["S3CRET-4", "S3CRET-5"] | None = "S3CRET-4"
    credentials: list[TypedCredentials] = []
    login: dict[str, str] = {"user": "ann", "password": "S3CRET-6"}
    address: str = "https://ann:S3CRET-7@host/"
    header: TypedHeader = TypedHeader()
    secret_key: str = Field(default="", json_schema_extra={"x-sample": "S3CRET-10"})
    passwords: dict[Literal["S3CRET-11"], int] = {}
    by_pattern: dict[str, str] = Field(
        default={}, json_schema_extra={"patternProperties": {"^password_": {"default": "S3CRET-12"}}}
    )
    pair: list[str] = Field(
        default=[], json_schema_extra={"prefixItems": [{"const": "authorization"}, {"default": "S3CRET-13"}]}
    )
    default: int = 77
    max_tokens: int = 4096


async def test_schemas_are_shown_without_values_of_hidden_fields_and_made_in_a_thread(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    of, threads = Catalog.of, list[int]()
    monkeypatch.setattr(Catalog, "of", lambda *a, **k: threads.append(threading.get_ident()) or of(*a, **k))
    plug_in = Rapids(emitter=EventEmitter(stream=STREAM), redis=redis, admin_auth=allow_anyone)
    app = FastAPI(lifespan=plug_in.lifespan)
    app.include_router(rapids_admin)
    async with async_client_of(app) as client:
        catalog, document = [await client.get(path) for path in ("/rapids/api/catalog", "/rapids/asyncapi.json")]
    commands = ("events", "--json"), ("asyncapi",), ("asyncapi", "--yaml")
    target, command = ("--app", "tests.fastapi.test_typed_emits:service"), Command("")
    printed = [(await asyncio.to_thread(command, *one, *target)).stdout for one in commands]
    for text in (catalog.text, document.text, *printed):
        assert "typed.login" in text
        assert "S3CRET" not in text
    [schema] = [one["json_schema"] for one in catalog.json()["items"] if one["event_type"] == "typed.login"]
    assert schema["properties"]["login"]["default"] == {"user": "ann", "password": MASK}
    assert schema["properties"]["default"] == {"default": 77, "type": "integer"}
    assert schema["properties"]["max_tokens"] == {"default": 4096, "type": "integer"}
    assert schema["properties"]["header"]["default"] == {"name": "authorization", "value": MASK}
    assert schema["x-sample"] == {"password": MASK, "user": "ann"}
    assert schema["components"] == {}
    assert schema["properties"]["pair"]["prefixItems"] == [{"const": "authorization"}, {}]
    assert "S3CRET-1" in str(event_schema(TypedLogin, "read")), "Python shows what is in the code"
    assert threads[0] != threading.get_ident() != threads[1]


def test_a_schema_is_made_once(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 classes take a third of a second."""
    made = list[type[BaseEvent]]()
    monkeypatch.setattr(rapids.events, "_registry", dict(rapids.events._registry))
    monkeypatch.setattr(contracts, "event_schema", lambda cls, mode: made.append(cls) or event_schema(cls, mode))
    app = FastAPI(lifespan=Rapids(emitter=EventEmitter(stream=STREAM), url=redis_url, admin_auth=allow_anyone).lifespan)
    app.include_router(rapids_admin)

    class TypedUnfinished(BaseEvent):
        part: TypedPart  # type: ignore[name-defined] # noqa: F821

    def unfinished(client: TestClient) -> dict[str, Any]:
        items = client.get("/rapids/api/catalog").json()["items"]
        return next(one["json_schema"] for one in items if one["event_type"] == "typed.unfinished")

    with TestClient(app) as client:
        assert OPAQUE in unfinished(client)
        first = len(made)
        assert OPAQUE in unfinished(client)
        assert made[first:] == [TypedUnfinished]
        TypedUnfinished.model_rebuild(_types_namespace={"TypedPart": int})
        assert unfinished(client)["properties"] == {"part": {"type": "integer"}}
        assert made[first:] == [TypedUnfinished, TypedUnfinished]
        assert unfinished(client)["properties"] == {"part": {"type": "integer"}}
        assert len(made) == first + 2


def test_the_catalog_shows_what_was_emitted_and_nobody_declares(redis_url: str) -> None:
    plug_in = Rapids(emitter=EventEmitter(stream=STREAM), url=redis_url, admin_auth=allow_anyone)
    app = FastAPI(lifespan=plug_in.lifespan)
    app.include_router(rapids_admin)

    @app.post("/undeclared")
    async def undeclared(emitter: EmitterDep) -> None:
        await emitter.emit(ShopOrderShipped(order_id="o-1"))

    def emitters(client: TestClient) -> list[dict[str, str]]:
        items = client.get("/rapids/api/catalog").json()["items"]
        return next(one["emitters"] for one in items if one["event_type"] == "shop_order.shipped")

    with TestClient(app) as client:
        assert emitters(client) == []
        client.post("/undeclared")
        assert emitters(client) == [{"stream": STREAM, "kind": "seen", "name": "", "group": ""}]
