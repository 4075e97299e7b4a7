"""Contracts over HTTP: the catalog of events, and the AsyncAPI document."""

from typing import Any

from fastapi import APIRouter, Request

from rapids.catalog import Catalog, CatalogEntry
from rapids.contracts import asyncapi_document
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
    openapi_extra=needs("read"),
    responses=answers(*_PROBLEMS, example=_CATALOG),
)
async def list_event_types(request: Request, parts: RunningDep) -> EventCatalog:
    """The event types whose classes this process knows: versions, JSON Schemas, who emits them, and who handles them.

    Emitters are the endpoints and handlers of this application that declare it by `Emits[...]`, and those that this
    process has seen. Handlers are those of the application's routers.
    """
    return EventCatalog(items=_catalog(request, parts).entries)


@router.get("/asyncapi.json", openapi_extra=needs("read"), include_in_schema=False)  # as /openapi.json
async def get_asyncapi(request: Request, parts: RunningDep) -> dict[str, Any]:
    """The AsyncAPI 3.1 document of this application: its streams, event types, `send` and `receive` operations."""
    app: Any = request.app
    title, version = getattr(app, "title", "Events"), getattr(app, "version", "0.0.0")
    return asyncapi_document(_catalog(request, parts), title=str(title), version=str(version))


def _catalog(request: Request, parts: Running) -> Catalog:
    routers = [running.router for running in parts.routers]
    endpoints = emitting_endpoints(request.app, parts.emitter.stream)
    return Catalog.of(routers, endpoints=endpoints, emitters=[parts.emitter])
