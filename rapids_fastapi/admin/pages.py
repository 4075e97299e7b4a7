"""Pages of lists over HTTP: the parameters `limit` and `cursor`, and the link to the next page."""

from typing import Annotated
from urllib.parse import quote, urlencode

from fastapi import Query, Request, Response

__all__ = ["MAX_PAGE", "NEXT_LINK", "CursorQuery", "LimitQuery", "link_next_page", "path_of"]

MAX_PAGE = 200

MAX_CURSOR = 16_384
"""Characters. A cursor can contain the name of a group, which other programs may have made long."""

NEXT_LINK = {"Link": 'The next page, as `<...>; rel="next"`.'}
"""The headers of the answer of a list, for OpenAPI."""

CursorQuery = Annotated[
    str | None,
    Query(
        max_length=MAX_CURSOR,
        pattern=r"^[A-Za-z0-9_-]*$",
        description="`next_cursor` of the previous page of the same list. Its content is internal.",
        examples=["bGV0dGVyczoxNzYzOTMyMDAwMDAwLTA"],
    ),
]
LimitQuery = Annotated[int, Query(ge=1, le=MAX_PAGE, description="At most so many items.", examples=[50])]


def path_of(request: Request) -> str:
    """The path that the client sent, with the prefix that a proxy removed, if the server knows that prefix."""
    # It depends on the server whether the path has the prefix: Starlette has the same check.
    path, prefix = request.scope["path"], request.scope.get("root_path", "").rstrip("/")
    return path if path == prefix or path.startswith(f"{prefix}/") else f"{prefix}{path}"


def link_next_page(request: Request, response: Response, cursor: str | None) -> None:
    """Add the `Link` to the next page, if there is one (https://www.rfc-editor.org/rfc/rfc8288)."""
    if cursor is None:
        return
    # Not the address that was sent, which may contain anything: headers must be ASCII.
    query = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
    where = f"{quote(path_of(request))}?{urlencode([*query, ('cursor', cursor)])}"
    response.headers["Link"] = f'<{where}>; rel="next"'
