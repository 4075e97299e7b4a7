"""Pages over HTTP, alike for every list: how many, from where, and where the next one is."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import quote, urlencode

from fastapi import Query, Request, Response

from rapids_fastapi.admin.problems import Problem

__all__ = ["MAX_PAGE", "NEXT_LINK", "CursorQuery", "LimitQuery", "Listing", "lead_on", "path_of"]

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


@dataclass(frozen=True, slots=True)
class Listing:
    """A list that is shown in pages. A cursor is a place in it; what it contains is internal."""

    name: str

    def cursor(self, place: str | None) -> str | None:
        """What to give out for a place; None after the last page."""
        return None if place is None else urlsafe_b64encode(f"{self.name}:{place}".encode()).decode().rstrip("=")

    def place(self, cursor: str | None) -> str | None:
        """The place a cursor stands for; None, the beginning, without one. Raises `Problem` for any other text."""
        if not cursor:
            return None
        try:
            _, _, place = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().partition(":")
        except ValueError as error:
            raise _bad() from error
        if self.cursor(place) != cursor:  # which begins with the name of the list
            raise _bad()
        return place


def path_of(request: Request) -> str:
    """The path as whoever asks knows it: with the prefix that a proxy in front took away, if the server was told."""
    # As Starlette takes it: the path has the prefix, or it has not, depending on the server.
    path, prefix = request.scope["path"], request.scope.get("root_path", "").rstrip("/")
    return path if path == prefix or path.startswith(f"{prefix}/") else f"{prefix}{path}"


def lead_on(request: Request, response: Response, cursor: str | None) -> None:
    """Say in a `Link` where the next page is, if there is one."""
    if cursor is None:
        return
    # Not from the address as it came: that may hold anything, and headers take no more than ASCII.
    query = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
    where = f"{quote(path_of(request))}?{urlencode([*query, ('cursor', cursor)])}"
    response.headers["Link"] = f'<{where}>; rel="next"'


def _bad() -> Problem:
    return Problem("invalid", "cursor must be one that a page of this list gave out.")
