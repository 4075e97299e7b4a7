"""The dashboard: a page that is a client of the HTTP API, and its modules, served from a list of files."""

import gzip
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from starlette.concurrency import run_in_threadpool

from rapids_fastapi.admin.access import admin_closed
from rapids_fastapi.admin.problems import ProblemRoute
from rapids_fastapi.state import running

__all__ = ["add_dashboard"]

FOLDER = Path(__file__).parent.parent / "dashboard"

_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
"""What is served, by the end of a file's name."""

POLICY = "; ".join(
    [
        "default-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "object-src 'none'",
    ]
)
"""The page runs only its own modules, without inline scripts and styles, and asks only its own host
(https://www.w3.org/TR/CSP3/)."""

FOR_EVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Asset:
    """A file that the page needs."""

    media_type: str
    content: bytes
    compressed: bytes


@dataclass(frozen=True, slots=True)
class Assets:
    """The page and the files that it needs."""

    page: bytes
    version: str
    """Of all files together. It is in their addresses, so that a browser may keep them for ever."""
    files: dict[str, Asset]


@cache
def read_assets() -> Assets:
    """The files, read once: they do not change while the process runs."""
    found = {
        path.relative_to(FOLDER).as_posix(): path.read_bytes()
        for path in sorted(FOLDER.rglob("*"))
        if path.suffix in _TYPES
    }
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    version = sha256(repr((page, found)).encode()).hexdigest()[:16]
    modules = "\n".join(
        f'<link rel="modulepreload" href="assets/{version}/{escape(name)}">' for name in found if name.endswith(".js")
    )
    files = {
        name: Asset(_TYPES[Path(name).suffix], content, gzip.compress(content, mtime=0))
        for name, content in found.items()
    }
    written = page.replace("<!-- modules -->", modules).replace("VERSION", version)
    return Assets(written.encode(), version, files)


class DashboardRoute(ProblemRoute):
    """A route of the dashboard. Anybody may have these files, which contain nothing, once the admin is open."""

    def get_route_handler(self) -> Any:
        """FastAPI's handler of the request, with the page's own policy for what it may load."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            response = await handle(request)
            response.headers["Content-Security-Policy"] = POLICY
            response.headers["Referrer-Policy"] = "same-origin"
            if "version" in request.path_params and response.status_code == 200:
                response.headers["Cache-Control"] = FOR_EVER
            return response

        return answer

    async def admit(self, request: Request) -> Request:
        """Check that there is a dashboard, and that the admin is open. Raises `Problem`, or `HTTPException` 404."""
        parts = running(request)
        if not parts.has_dashboard:
            raise HTTPException(404, "There is no dashboard: this is Rapids(dashboard=False).")
        if parts.admin_auth is None:
            raise admin_closed()
        return request


def add_dashboard(router: APIRouter) -> None:
    """Add the page at the router's own path, and its files below."""
    for path, endpoint in (("", _to_page), ("/", _page), ("/assets/{version}/{name:path}", _asset)):
        router.add_api_route(
            path,
            endpoint,
            methods=["GET", "HEAD"],
            include_in_schema=False,
            route_class_override=DashboardRoute,
        )


async def _to_page(request: Request) -> Response:
    # Relative, so that it is right with any prefix that a proxy removes. The page's own addresses are relative, too.
    return Response(status_code=307, headers={"Location": f"{request.url.path.rpartition('/')[2]}/"})


async def _page(request: Request) -> Response:
    assets = await run_in_threadpool(read_assets)
    return Response(assets.page, media_type="text/html; charset=utf-8")


async def _asset(request: Request, version: str, name: str) -> Response:
    assets = await run_in_threadpool(read_assets)
    asset = assets.files.get(name)
    if asset is None or version != assets.version:
        raise HTTPException(404, "There is no such file. After an update, load the page again.")
    headers = {"Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(asset.compressed, media_type=asset.media_type, headers=headers)
    return Response(asset.content, media_type=asset.media_type, headers=headers)
