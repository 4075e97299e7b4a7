"""Pages over HTTP, alike for every list: how many, from where, and where the next one is."""

from typing import Annotated

from fastapi import Query, Request, Response

__all__ = ["MAX_PAGE", "CursorQuery", "LimitQuery", "lead_on"]

MAX_PAGE = 200

CursorQuery = Annotated[str | None, Query(max_length=16_384, description="`next_cursor` of the page before.")]
LimitQuery = Annotated[int, Query(ge=1, le=MAX_PAGE)]


def lead_on(request: Request, response: Response, cursor: str | None) -> None:
    """Say in a `Link` where the next page is, if there is one."""
    if cursor is not None:
        following = request.url.include_query_params(cursor=cursor)
        response.headers["Link"] = f'<{following.path}?{following.query}>; rel="next"'
