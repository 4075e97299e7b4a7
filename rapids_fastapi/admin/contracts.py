"""Contracts over HTTP: the catalog of events, and the AsyncAPI document."""

import json
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from rapids import BaseEvent
from rapids.catalog import Catalog, CatalogEntry
from rapids.contracts import asyncapi_document
from rapids.event_schemas import OPAQUE, Schema, event_schema
from rapids.redaction import without_hidden_defaults
from rapids_fastapi.admin.access import CREDENTIALS, AdminRoute, RunningDep, needs
from rapids_fastapi.admin.examples import Example
from rapids_fastapi.admin.models import Answer
from rapids_fastapi.admin.problems import answers
from rapids_fastapi.state import Running
from rapids_fastapi.typed_emits import emitting_endpoints

__all__ = ["router"]

_PROBLEMS = ("admin-closed", "unauthenticated", "auth-unavailable", "forbidden", "invalid", "not-running")

router: APIRouter = APIRouter(route_class=AdminRoute, dependencies=CREDENTIALS)


_ORDER: Example = {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]}
_CATALOG: Example = {
    "items": [
        {
            "event_type": "order.placed",
            "schema_version": 1,
            "event_class": "shop.events.OrderPlaced",
            "description": "A customer has placed an order.",
            "json_schema": _ORDER,
            "emitters": [{"stream": "orders", "kind": "endpoint", "name": "POST /orders", "group": ""}],
            "handlers": [
                {
                    "stream": "orders",
                    "group": "payments",
                    "handler": "charge",
                    "timeout": 30.0,
                    "retries": 0,
                    "retryable_exceptions": [],
                    "max_deliveries": 5,
                    "dlq_stream": "{orders}:dlq",
                }
            ],
        }
    ]
}


class EventCatalog(Answer):
    """Event types, by name."""

    items: tuple[CatalogEntry, ...]


@router.get(
    "/api/catalog",
    summary="List event types",
    openapi_extra=needs("read", limited="searches"),
    responses=answers(*_PROBLEMS, "too-busy", example=_CATALOG),
)
async def list_event_types(request: Request, parts: RunningDep) -> EventCatalog:
    """The event types whose classes this process knows: versions, JSON Schemas, who emits them, and who handles them.

    Emitters are the endpoints and handlers of this application that declare it by `Emits[...]`, and those that this
    process has seen. Handlers are those of the application's routers. Schemas have no defaults, examples and constants
    of hidden fields.
    """

    catalog = await run_in_threadpool(_catalog, request, parts)  # at first, each class takes milliseconds
    return EventCatalog(items=catalog.entries)


@router.get("/asyncapi.json", openapi_extra=needs("read", limited="searches"), include_in_schema=False)
async def get_asyncapi(request: Request, parts: RunningDep) -> Response:  # not in OpenAPI, as /openapi.json
    """The AsyncAPI 3.1 document of this application: its streams, event types, `send` and `receive` operations, without
    defaults, examples and constants of hidden fields."""
    app: Any = request.app
    title, version = getattr(app, "title", "Events"), getattr(app, "version", "0.0.0")

    def shown() -> bytes:
        document = asyncapi_document(_catalog(request, parts), title=str(title), version=str(version))
        return json.dumps(without_hidden_defaults(document, parts.redactor)).encode()

    return Response(await run_in_threadpool(shown), media_type="application/json")


def _catalog(request: Request, parts: Running) -> Catalog:
    routers = [running.router for running in parts.routers]
    endpoints = emitting_endpoints(request.app, parts.emitter.stream)
    return Catalog.of(routers, endpoints=endpoints, emitters=[parts.emitter], schema_of=partial(_schema_of, parts))


def _schema_of(parts: Running, event_class: type[BaseEvent]) -> Schema:
    schema = parts.schemas.get(event_class)
    if schema is None:
        schema = without_hidden_defaults(event_schema(event_class, "read"), parts.redactor)
        if OPAQUE not in schema:  # a class that cannot be described may be waiting for a name that is not defined yet
            parts.schemas[event_class] = schema
    return schema
