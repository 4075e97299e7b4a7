"""The browser session over HTTP: log in once, and the browser's requests are those of that user for 12 hours."""

import logging
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict

from rapids.sessions import MAX_CREDENTIALS, SESSION_SECONDS
from rapids_fastapi.admin.access import CREDENTIALS, AdminRoute, RunningDep, UserDep, is_foreign, needs
from rapids_fastapi.admin.auth import Permission, credentials_of
from rapids_fastapi.admin.models import Answer, example
from rapids_fastapi.admin.problems import Problem, answers, redis_calls
from rapids_fastapi.admin.session_cookie import clear_cookie, secrets_of, set_cookie
from rapids_fastapi.state import running

__all__ = ["router"]

_PROBLEMS = (
    *("admin-closed", "unauthenticated", "auth-unavailable", "cross-origin", "invalid"),
    *("not-json", "too-large", "too-slow", "redis-unavailable", "not-running"),
)

_logger = logging.getLogger("rapids")


class SessionRoute(AdminRoute):
    """A route that also accepts the code of an offer as credentials: `Authorization: Offer CODE`."""

    async def admit(self, request: Request) -> Request:
        """Check the request, with the credentials of the offer in place of its code. Raises `Problem`."""
        scheme, code = credentials_of(request)
        if scheme == "offer" and request.method == "POST":
            async with redis_calls():
                credentials = await running(request).sessions.take(code.decode("latin-1"))
            if credentials is not None:
                others = [(name, value) for name, value in request.headers.raw if name != b"authorization"]
                scope = {**request.scope, "headers": [*others, (b"authorization", credentials)]}
                request = Request(scope, request.receive)
        return await super().admit(request)


router: APIRouter = APIRouter(prefix="/api/session", route_class=SessionRoute, dependencies=CREDENTIALS)


class Session(Answer):
    """A session of a browser, which the answer's cookie opens."""

    model_config: ClassVar[ConfigDict] = example(
        name="ann", permissions=["read", "replay"], ends_at="2025-11-24T09:00:00Z"
    )

    name: str
    permissions: list[Permission]
    ends_at: datetime
    """When it ends by itself. While the credentials of the login are refused, it opens nothing."""


@router.post(
    "",
    summary="Log in with a browser",
    openapi_extra=needs(),
    responses=answers(*_PROBLEMS, headers={"Set-Cookie": "The session's secret."}),
)
async def begin_session(request: Request, response: Response, parts: RunningDep, user: UserDep) -> Session:
    """Exchange the credentials of this request for a cookie. Needs no permission.

    The cookie (`HttpOnly`, `SameSite=Strict`, and `Secure` with https) is worth what the credentials are: each request
    with it is checked by them again, and refused while they are. It ends after 12 hours, by DELETE, or by another login
    of the same browser. A code of `rapids.sessions.Sessions.offer` is exchanged once, as `Authorization: Offer CODE`.
    """
    if is_foreign(request):  # also with a Bearer token: another site must not log somebody in
        raise Problem("cross-origin", "A page of another origin may not log in here.")
    credentials = [value for name, value in request.headers.raw if name == b"authorization"]
    if len(credentials) != 1:
        why = "Send the credentials as the header Authorization. Without one, there is nothing to keep."
        raise Problem("invalid", why)
    if len(credentials[0]) > MAX_CREDENTIALS:
        raise Problem("invalid", f"Credentials of a session may have {MAX_CREDENTIALS:,} bytes.")
    if len(before := secrets_of(request)) > 1:
        why = "The browser has several sessions here, and a sibling of this host may have set one"
        raise Problem("invalid", f"{why}: delete the cookies of the name rapids_session.")
    set_cookie(request, response, await parts.sessions.begin(credentials[0]))
    for secret in before:  # the browser forgets it now
        await parts.sessions.end(secret)
    _logger.info("admin: %r logged in with a browser", user.name)
    ends_at = datetime.now(UTC) + timedelta(seconds=SESSION_SECONDS)
    return Session(name=user.name, permissions=sorted(user.permissions), ends_at=ends_at)


@router.delete(
    "",
    summary="Log out with a browser",
    status_code=204,
    openapi_extra=needs(),
    responses=answers(*_PROBLEMS, status=204, description="The session has ended"),
)
async def end_session(request: Request, parts: RunningDep, user: UserDep) -> Response:
    """End the session of the request's cookie in all processes, and make the browser forget it. Needs no permission."""
    secrets = secrets_of(request)
    for secret in secrets:
        await parts.sessions.end(secret)
    if secrets:
        _logger.info("admin: %r logged out", user.name)
    response = Response(status_code=204)
    clear_cookie(request, response)
    return response
