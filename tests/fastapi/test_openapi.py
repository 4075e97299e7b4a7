"""The admin in an application's OpenAPI document: it leaves the application's names alone, and fits in clients."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, create_model

from rapids_fastapi import CorrelationMiddleware, EmitterDep, Rapids, rapids_admin
from tests.fastapi.admin_paths import document

PROBLEM = "application/problem+json"
MAX_BYTES = 200_000
"""Half of what it was while each operation had its own schema of problems, with a third more operations."""
OURS = sorted(document()["components"]["schemas"])


def contents(openapi: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each media type of an answer with what is documented about it."""
    for methods in openapi["paths"].values():
        for operation in methods.values():
            for answer in operation["responses"].values():
                yield from answer.get("content", {}).items()


class OrderIn(BaseModel):
    order_id: str
    total: float


def test_models_of_an_application_keep_their_names() -> None:
    """Also models with the names that ours have in the code, such as `User`, and in each module of the application."""
    assert all(name.startswith("Rapids") for name in OURS)
    names = {name.removeprefix("Rapids") for name in OURS}
    app = FastAPI()
    app.include_router(rapids_admin)
    for name in names:
        model = create_model(name, __module__="shop", own=(int, ...))

        async def echo(body: Any) -> Any:
            return body

        echo.__annotations__ = {"body": model, "return": model}
        app.post(f"/{name}")(echo)
    schemas = app.openapi()["components"]["schemas"]
    assert set(schemas) == {*OURS, *names, "HTTPValidationError", "ValidationError"}
    assert all(list(schemas[name]["properties"]) == ["own"] for name in names)
    assert {name: schemas[name] for name in OURS} == document()["components"]["schemas"]


def test_the_document_of_a_twenty_line_application_is_small() -> None:
    """The application of the README, as FastAPI sends its document."""
    app = FastAPI(lifespan=Rapids(url="redis://localhost").lifespan)
    app.add_middleware(CorrelationMiddleware)
    app.include_router(rapids_admin)

    @app.post("/orders", status_code=202)
    async def place_order(order: OrderIn, emitter: EmitterDep) -> OrderIn:
        """Place an order."""
        return order

    sent = json.dumps(app.openapi(), ensure_ascii=False, separators=(",", ":")).encode()
    assert len(sent) < MAX_BYTES


def test_problems_are_one_reference() -> None:
    described = [media for kind, media in contents(document()) if kind == PROBLEM]
    assert len(described) > 100
    assert all(media == {"schema": {"$ref": "#/components/schemas/RapidsProblem"}} for media in described)


def test_health_alone_has_the_schema_of_problems() -> None:
    from rapids_fastapi.admin.router import health_routes

    app = FastAPI()
    app.include_router(health_routes)
    assert {"RapidsProblem", "RapidsHealth"} == set(app.openapi()["components"]["schemas"])


def test_clients_get_what_is_no_json_as_text() -> None:
    """Generated clients would make an object of a stream of events whose schema is one of an object."""
    for kind, media in contents(document()):
        assert kind in ("application/json", PROBLEM) or media["schema"] == {"type": "string"}


def test_ids_of_operations_do_not_depend_on_the_application() -> None:
    app = FastAPI(generate_unique_id_function=lambda route: f"own_{route.name}")
    app.include_router(rapids_admin, prefix="/ops")
    ids = {operation["operationId"] for methods in app.openapi()["paths"].values() for operation in methods.values()}
    assert "rapids_list_dead_letters" in ids
    assert all(name.startswith("rapids_") for name in ids)


def test_titles_repeat_no_names() -> None:
    for schema in document()["components"]["schemas"].values():
        assert "title" not in schema
        assert all("title" not in field for field in schema["properties"].values() if "$ref" not in field)
