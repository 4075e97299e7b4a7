"""All routes of the admin, found in an application. No list of them is written by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from fastapi import FastAPI

from rapids_fastapi import rapids_admin

HEALTH = "/rapids/health/"
METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE"}


@cache
def everything() -> FastAPI:
    """An application with the whole admin and nothing else. One serves all tests: at the first request to an
    application, FastAPI makes the routes again, in a twentieth of a second."""
    app = FastAPI()
    app.include_router(rapids_admin)
    return app


@cache
def document() -> dict[str, Any]:
    """The admin's OpenAPI document as a client gets it, made once in a run: it takes a second. Do not change it."""
    return json.loads(json.dumps(everything().openapi()))


def documented() -> dict[tuple[str, str], dict[str, Any]]:
    """Every operation of the admin in the document, by method and path."""
    return {
        (method.upper(), path): operation
        for path, methods in document()["paths"].items()
        for method, operation in methods.items()
    }


def guarded() -> dict[tuple[str, str], dict[str, Any]]:
    """The operations that need a permission: all except health."""
    return {key: operation for key, operation in documented().items() if not key[1].startswith(HEALTH)}


def routed(app: FastAPI) -> set[tuple[str, str]]:
    """Every method and path of the admin that the application has a route for, documented or not."""
    return {(method, route.path) for route in _routes(app) for method in route.methods or ()}


def _routes(app: FastAPI) -> Iterator[Any]:
    for route in app.routes:
        # Newer versions of FastAPI keep an included router as one route, which has the routes of that router.
        found = route.effective_route_contexts() if hasattr(route, "effective_route_contexts") else [route]
        yield from (one for one in found if getattr(one, "path", "").startswith("/rapids"))


def filled(path: str) -> str:
    """A path with values for its parameters."""
    return re.sub(r"\{\w+\}", "1-1", path)
