"""What OpenAPI says of the admin's answers beside the ordinary ones: problems, and the headers that answers carry."""

from typing import Any

from rapids_fastapi.admin.problems import KINDS, MEDIA_TYPE, Kind

__all__ = ["BODY_NEEDED", "NEXT_LINK", "documented"]

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
"""Examples of the members that a sort of problem has beside those of the RFC."""

_NAMES = {"type": "array", "items": {"type": "string"}}
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "Problem",
    "description": "A problem by RFC 9457. Go by its `type`: it is stable, and the texts are for people.",
    "required": ["type", "title", "status", "detail", "instance"],
    "properties": {
        "type": {"type": "string", "format": "uri", "description": "Which sort of problem."},
        "title": {"type": "string", "description": "The sort of problem in a few words, always the same."},
        "status": {"type": "integer", "description": "The status of the answer."},
        "detail": {"type": "string", "description": "What it is about this time."},
        "instance": {"type": "string", "description": "The path that was asked for."},
        "permission": {"type": "string", "description": "Of `forbidden`: what is missing."},
        "allowed": {**_NAMES, "description": "Of streams and queues that were not said, or wrong: the right ones."},
        "state": {"type": "string", "description": "Of `letter-state` and `operation-state`: what it is."},
        "operation": {"type": "string", "description": "Of `operation-running`: the id of the one that has not ended."},
        "kind": {"type": "string", "description": "Of `operation-running`: `replay`, `discard` or `restore`."},
        "needed": {"type": "string", "description": "Of `letter-state`: what it would have to be."},
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
}

_HEADERS: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"description": "How to say who you are.", "schema": {"type": "string"}}},
    415: {"Accept": {"description": "What is taken.", "schema": {"type": "string"}}},
    503: {"Retry-After": {"description": "Seconds after which to ask again.", "schema": {"type": "string"}}},
}

NEXT_LINK: dict[str, Any] = {
    "headers": {
        "Link": {
            "description": 'Where the next page is, as `<...>; rel="next"`; not on the last one.',
            "schema": {"type": "string"},
        }
    }
}
"""For the ordinary answer of a list."""

BODY_NEEDED: dict[str, Any] = {"requestBody": {"required": True}}
"""For the `openapi_extra` of a change all of whose fields have defaults: it is sent as JSON all the same, `{}`."""


def documented(*names: str) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of the problems a route may answer with; that something may go wrong is said of each."""
    answers: dict[int | str, dict[str, Any]] = {}
    for kind in (KINDS[name] for name in (*names, "internal")):
        answer = answers.setdefault(kind.status, _blank(kind.status))
        answer["description"] = "; or: ".join(filter(None, [answer["description"], kind.title]))
        answer["content"][MEDIA_TYPE]["examples"][kind.name] = {"summary": kind.title, "value": _example(kind)}
    return answers


def _blank(status: int) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": "", "content": {MEDIA_TYPE: {"schema": _SCHEMA, "examples": {}}}}
    return {**answer, "headers": _HEADERS[status]} if status in _HEADERS else answer


def _example(kind: Kind) -> dict[str, Any]:
    head = {"type": kind.type, "title": kind.title, "status": kind.status}
    return {**head, "detail": "…", "instance": "/rapids/…", **_MEMBERS.get(kind.name, {})}
