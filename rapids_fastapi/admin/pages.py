"""Pages of lists over HTTP: how many items, from where, and where the next page is."""

from typing import Annotated
from urllib.parse import quote, urlencode

from fastapi import Query, Request, Response

__all__ = ["MAX_PAGE", "NEXT_LINK", "CursorQuery", "LimitQuery", "lead_on", "path_of"]

MAX_PAGE = 200

MAX_CURSOR = 16_384
"""Characters: a place may contain a name of any length that a foreign client has given to a group."""

NEXT_LINK = {"Link": 'Where the next page is, as `<...>; rel="next"`; not on the last one.'}
"""The headers of a list's answer, for OpenAPI."""

CursorQuery = Annotated[
    str | None,
    Query(
        max_length=MAX_CURSOR,
        pattern=r"^[A-Za-z0-9_-]*$",
        description="`next_cursor` of the page before, of the same list. Its content is internal.",
        examples=["bGV0dGVyczoxNzYzOTMyMDAwMDAwLTA"],
    ),
]
LimitQuery = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Items of a page, at most.", examples=[50])]


def path_of(request: Request) -> str:
    """The path as the client knows it: with the prefix that a proxy removed, if the server knows that prefix."""
    # As in Starlette: whether the path has the prefix depends on the server.
    path, prefix = request.scope["path"], request.scope.get("root_path", "").rstrip("/")
    return path if path == prefix or path.startswith(f"{prefix}/") else f"{prefix}{path}"


def lead_on(request: Request, response: Response, cursor: str | None) -> None:
    """Say in a `Link` where the next page is, if there is one."""
    if cursor is None:
        return
    # Not the address as it was sent: that may contain anything, and headers must be ASCII.
    query = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
    where = f"{quote(path_of(request))}?{urlencode([*query, ('cursor', cursor)])}"
    response.headers["Link"] = f'<{where}>; rel="next"'
