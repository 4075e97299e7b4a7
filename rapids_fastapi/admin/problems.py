"""Errors as `application/problem+json` (RFC 9457), only on the routes of Rapids.

A route class makes them. Exception handlers would apply to the whole application.
"""

import asyncio
import inspect
import itertools
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import wraps
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from rapids.exceptions import (
    DeserializationError,
    GroupNotFoundError,
    LetterNotFoundError,
    LetterStateError,
    NotConfiguredError,
    OperationNotFoundError,
    OperationRunningError,
    OperationStateError,
    StreamNotFoundError,
)
from rapids_fastapi.admin.pages import path_of

__all__ = [
    "KINDS",
    "MEDIA_TYPE",
    "Kind",
    "Problem",
    "ProblemRoute",
    "RapidsProblem",
    "answers",
    "included",
    "problem_of",
    "redis_calls",
    "refusals_as_problems",
]

_logger = logging.getLogger("rapids")

_TYPE = "urn:rapids:problem:"
MEDIA_TYPE = "application/problem+json"
ANSWER_TIMEOUT = 15.0
"""Seconds that a route may take for its calls to Redis. Then it answers with the problem `redis-unavailable`."""

MAX_FAULTS = 20
MAX_DETAIL = 1_000
"""Characters of a detail, and of the two texts of a fault."""

HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "frame-ancestors 'none'",
}
"""Headers of every answer: browsers must not cache it, guess its media type, or show it in a frame."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem. `name` is the last part of its `type`, and does not change."""

    name: str
    status: int
    title: str

    @property
    def type(self) -> str:
        """The URI that identifies it."""
        return _TYPE + self.name


_ALL = (
    Kind("admin-closed", 403, "The admin is closed"),
    Kind("unauthenticated", 401, "Authentication is needed"),
    Kind("auth-unavailable", 503, "Users cannot be checked"),
    Kind("forbidden", 403, "A permission is missing"),
    Kind("cross-origin", 403, "The request comes from another origin"),
    Kind("not-json", 415, "Only JSON is accepted"),
    Kind("too-large", 413, "The request is too large"),
    Kind("too-slow", 408, "The request came too slowly"),
    Kind("invalid", 422, "The request is not valid"),
    Kind("data-invalid", 422, "The changed data make no event"),
    Kind("dlq-needed", 422, "There are several dead-letter queues"),
    Kind("dlq-not-found", 404, "There is no such dead-letter queue"),
    Kind("stream-needed", 422, "There are several streams"),
    Kind("stream-not-found", 404, "There is no such stream"),
    Kind("entry-not-found", 404, "There is no such entry"),
    Kind("group-not-found", 404, "There is no such group"),
    Kind("letter-not-found", 404, "There is no such dead letter"),
    Kind("letter-state", 409, "The dead letter is in another state"),
    Kind("letter-unreadable", 409, "The dead letter cannot be moved as it is"),
    Kind("operation-not-found", 404, "There is no such operation"),
    Kind("operation-running", 409, "Another operation of this kind has not ended"),
    Kind("operation-state", 409, "The operation has ended"),
    Kind("too-busy", 503, "Too many requests of this kind at a time"),
    Kind("redis-unavailable", 503, "Redis is unavailable"),
    Kind("not-running", 503, "Rapids is not running"),
    Kind("not-ready", 503, "Not ready"),
    Kind("internal", 500, "Something went wrong"),
)
KINDS: Mapping[str, Kind] = {kind.name: kind for kind in _ALL}
"""Every kind of problem by its name."""


class Problem(HTTPException):
    """Raised to answer with a problem. `more` has members in addition to those of RFC 9457."""

    def __init__(self, name: str, detail: str, *, headers: Sequence[tuple[str, str]] = (), **more: object) -> None:
        self.kind: Kind = KINDS[name]
        super().__init__(self.kind.status, detail, dict(headers))
        self.all_headers = headers
        self.more = more

    def body(self, path: str) -> dict[str, object]:
        """The body of the answer to a request for `path`."""
        head = {"type": self.kind.type, "title": self.kind.title, "status": self.kind.status}
        # Errors quote values, such as the type of an event, which can be any text of any length.
        return {**head, "detail": _harmless(str(self.detail)), "instance": path, **self.more}

    def response(self, request: Request) -> Response:
        """The answer."""
        answer = JSONResponse(self.body(path_of(request)), self.kind.status, media_type=MEDIA_TYPE)
        for name, value in self.all_headers:
            answer.headers.append(name, value)
        return answer


@contextmanager
def refusals_as_problems() -> Generator[None]:
    """Raise the problem `invalid` for a `ValueError` in the block: Rapids refused a cursor or a name."""
    try:
        yield
    except ValueError as error:
        raise Problem("invalid", str(error)) from error


@asynccontextmanager
async def redis_calls(seconds: float | None = None) -> AsyncGenerator[None]:
    """Our own calls to Redis: only in this block, an error of a connection means that Redis is unavailable.

    Raises `Problem` for that, and if the block takes longer than `seconds`, by default `ANSWER_TIMEOUT`.
    """
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT if seconds is None else seconds):
            yield
    except (RedisError, OSError) as error:  # a TimeoutError is an OSError
        _logger.warning("an admin request failed: %s: %s", type(error).__name__, error)
        detail = "Redis could not be reached or refused the command; what was to be changed may have been."
        raise Problem("redis-unavailable", detail, headers=[("Retry-After", "5")]) from error


class ProblemRoute(APIRoute):
    """A route whose errors are problems, and whose answers carry `HEADERS`."""

    def __init__(self, path: str, endpoint: Callable[..., Coroutine[Any, Any, Any]], **options: Any) -> None:
        ours = inspect.unwrap(endpoint)  # where FastAPI copies a route that is included, it is wrapped already

        @wraps(ours)
        async def calling_redis(**arguments: Any) -> Any:
            async with redis_calls():
                return await ours(**arguments)

        super().__init__(path, calling_redis, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler of the request. Its errors are answered here."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                response = await handle(await self.admit(request))
            except Exception as error:
                if isinstance(error, HTTPException) and not isinstance(error, Problem):
                    response = _plain(error, request)
                else:
                    response = self.problem(error, request).response(request)
            response.headers.update(HEADERS)
            return response

        return answer

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the route. Here, before the handler, Starlette refuses a wrong method."""
        try:
            await super().handle(scope, receive, send)
        except HTTPException as error:
            if error.status_code != HTTPStatus.METHOD_NOT_ALLOWED:
                raise
            response = _plain(error, Request(scope))
            response.headers.update(HEADERS)
            # All methods of the path: Starlette names only those of its first route with this path. A router that is
            # mounted instead of included is not among the application's routes.
            routes = included(scope["app"])
            paths = [route.path for route in routes if getattr(route, "original_route", route) is self]
            if methods := [route.methods for route in routes if getattr(route, "path", None) in paths]:
                response.headers["Allow"] = ", ".join(sorted({*itertools.chain(*methods)}, reverse=True))
            await response(scope, receive, send)

    async def admit(self, request: Request) -> Request:
        """Check the request before its body is parsed. Raises `Problem`."""
        return request

    def problem(self, error: Exception, request: Request) -> "Problem":
        """The problem for an error."""
        return problem_of(error)


def included(app: Any) -> list[Any]:
    """All routes of an application, each with what it got where its router was included."""
    # Newer versions of FastAPI keep an included router as one route, which has the routes of that router.
    found = [
        route.effective_route_contexts() if hasattr(route, "effective_route_contexts") else [route]
        for route in app.routes
    ]
    return list(itertools.chain(*found))


def problem_of(error: Exception) -> Problem:
    """The problem for an error. An unexpected error is logged."""
    match error:
        case Problem():
            return error
        case RequestValidationError():
            # What is wrong and where, without the values, which may be secrets.
            faults = [
                {"where": _harmless(".".join(map(str, fault["loc"]))), "message": _harmless(str(fault["msg"]))}
                for fault in error.errors()[:MAX_FAULTS]
            ]
            return Problem("invalid", "Some fields are missing or not valid.", errors=faults)
        case LetterNotFoundError():
            return Problem("letter-not-found", str(error))
        case StreamNotFoundError():
            return Problem("stream-not-found", str(error))
        case GroupNotFoundError():
            return Problem("group-not-found", str(error))
        case LetterStateError():
            return Problem("letter-state", str(error), state=error.state, needed=error.needed)
        case DeserializationError():
            return Problem("letter-unreadable", str(error))
        case OperationNotFoundError():
            return Problem("operation-not-found", str(error))
        case OperationRunningError():
            return Problem("operation-running", str(error), operation=error.operation_id, kind=error.kind)
        case OperationStateError():
            return Problem("operation-state", str(error), state=error.state)
        case NotConfiguredError():
            return Problem("not-running", str(error))
        case _:
            _logger.error("an admin request failed", exc_info=error)
            return Problem("internal", "The log of the service says more.")


def _harmless(text: str) -> str:
    """Text that JSON can hold, cut if it is long. It may quote values that were sent or stored."""
    return (text if len(text) <= MAX_DETAIL else text[:MAX_DETAIL] + "…").encode(errors="replace").decode()


def _plain(error: HTTPException, request: Request) -> Response:
    """The answer to an `HTTPException` of the application: of one of its dependencies, or of `admin_auth`."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(error.status_code).phrase,
        "status": error.status_code,
        "detail": error.detail,
        "instance": path_of(request),
    }
    return JSONResponse(body, error.status_code, dict(error.headers or {}), media_type=MEDIA_TYPE)


# --- for OpenAPI --------------------------------------------------------------------------------------------------

_MEMBERS: dict[str, dict[str, Any]] = {
    "forbidden": {"permission": "replay"},
    "invalid": {"errors": [{"where": "query.limit", "message": "Input should be greater than or equal to 1"}]},
    "data-invalid": {
        "errors": [{"pointer": "/total", "message": "Input should be a valid number", "type": "float_type"}],
        "error_count": 1,
    },
    "dlq-needed": {"allowed": ["{invoices}:dlq", "{orders}:dlq"]},
    "dlq-not-found": {"allowed": ["{orders}:dlq"]},
    "stream-needed": {"allowed": ["invoices", "orders"]},
    "stream-not-found": {"allowed": ["orders"]},
    "letter-state": {"state": "replayed", "needed": "dead"},
    "operation-running": {"operation": "0a4dcf0e3f0f4f2b", "kind": "replay"},
    "operation-state": {"state": "completed"},
}
"""Examples of the members that a kind of problem has in addition to those of RFC 9457."""

_STRING = {"type": "string"}
_NAMES = {"type": "array", "items": {"type": "string"}}

_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "A problem as of RFC 9457. Its `type` does not change; texts may change.",
    "required": ["type", "title", "status", "detail", "instance"],
    "properties": {
        "type": {"type": "string", "format": "uri", "description": f"Which kind of problem: `{_TYPE}` and its name."},
        "title": {"type": "string", "description": "The kind in a few words, always the same."},
        "status": {"type": "integer", "description": "The status of the answer."},
        "detail": {"type": "string", "description": "What happened this time."},
        "instance": {"type": "string", "description": "The path of the request."},
        "permission": {"type": "string", "description": "Of `forbidden`: the missing permission."},
        "allowed": {
            **_NAMES,
            "description": "If the name of a stream or queue is missing or wrong: the known names.",
        },
        "state": {"type": "string", "description": "Of `letter-state` and `operation-state`: the current state."},
        "operation": {
            "type": "string",
            "description": "Of `operation-running`: the id of the running one.",
        },
        "kind": {"type": "string", "description": "Of `operation-running`: `replay`, `discard` or `restore`."},
        "needed": {"type": "string", "description": "Of `letter-state`: the state that is needed."},
        "errors": {
            "type": "array",
            "description": "Of `invalid`: what is wrong `where` in the request, the first 20; of `data-invalid`: what "
            "is wrong in the changed data, with a JSON `pointer` (RFC 6901), the first 100. Without the values.",
            "items": {
                "type": "object",
                "required": ["message"],
                "properties": {name: {"type": "string"} for name in ("where", "pointer", "message", "type")},
            },
        },
        "error_count": {"type": "integer", "description": "Of `data-invalid`: how many errors there are in all."},
    },
    "examples": [
        {
            "type": KINDS[name].type,
            "title": KINDS[name].title,
            "status": KINDS[name].status,
            "detail": "…",
            "instance": "/rapids/…",
            **members,
        }
        for name, members in _MEMBERS.items()
    ],
}


class RapidsProblem(BaseModel):
    """For OpenAPI: the body of every error. All operations refer to this one schema."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The schema, in which members that a kind does not have are absent and not null."""
        return _SCHEMA


_HEADERS: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"schema": _STRING}},
    415: {"Accept": {"schema": _STRING}},
    503: {"Retry-After": {"schema": _STRING}},
}

_PROBLEM = {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{RapidsProblem.__name__}"}}}


def answers(
    *problems: str,
    example: object = None,
    status: int = 200,
    description: str = "",
    headers: Mapping[str, str] | None = None,
) -> dict[int | str, dict[str, Any]]:
    """For the `responses` of a route: an example of its answer, the headers of that, and the problems of the route.

    Without `example`, the schema of the answer has one. The problem `internal` is added to each route.
    """
    answer: dict[str, Any] = {"description": description} if description else {}
    if example is not None:
        answer["content"] = {"application/json": {"example": example}}
    if headers:
        answer["headers"] = {name: {"description": text, "schema": _STRING} for name, text in headers.items()}
    found: dict[int | str, dict[str, Any]] = {status: answer}
    for kind in (KINDS[name] for name in (*problems, "internal")):
        blank = {"description": "", "content": _PROBLEM, "headers": _HEADERS.get(kind.status, {})}
        problem = found.setdefault(kind.status, {name: value for name, value in blank.items() if value != {}})
        problem["description"] += f"{' or ' if problem['description'] else ''}`{kind.name}`"
    return found
