"""Access control of the admin: every route names the permission that it needs, and refuses users without it."""

import asyncio
import json
import logging
import re
from contextlib import ExitStack
from http import HTTPStatus
from typing import Annotated, Any, cast
from urllib.parse import urlsplit

import orjson
from fastapi import Depends
from fastapi.dependencies.models import Dependant
from fastapi.security import APIKeyQuery, HTTPBasic, HTTPBearer
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.types import Message, Receive, Scope, Send

from rapids.dead_letters.exact_json import ExactFloat
from rapids.exceptions import DeserializationError
from rapids_fastapi.admin.auth import (
    TOKEN_VARIABLE,
    AdminAuth,
    AdminUser,
    Permission,
    TokenAuth,
    allow_anyone,
    authenticate,
    credentials_of,
)
from rapids_fastapi.admin.limits import Limited
from rapids_fastapi.admin.models import MAX_NAME
from rapids_fastapi.admin.payload import clean
from rapids_fastapi.admin.problems import MAX_FAULTS, Problem, ProblemRoute, included, redis_calls
from rapids_fastapi.admin.session_cookie import is_of_script, with_session
from rapids_fastapi.state import Running, running

__all__ = [
    "BODY_NEEDED",
    "CREDENTIALS",
    "MAX_BODY",
    "AdminRoute",
    "RunningDep",
    "UserDep",
    "admin_closed",
    "check_again",
    "is_foreign",
    "needs",
]

MAX_BODY = 64 * 1024
"""Bytes: a longer body of a request is refused."""

BODY_TIMEOUT = 15.0
"""Seconds within which a body must arrive."""

AUTH_TIMEOUT = 15.0
"""Seconds within which `admin_auth` must answer."""

SEND_TIMEOUT = 60.0
"""Seconds within which a client must take the part of an answer that is sent. Otherwise, the answer ends there."""

BODY_NEEDED: dict[str, Any] = {"requestBody": {"required": True}}
"""For the `openapi_extra` of a route whose fields all have defaults: a request must still have a JSON body, at least
`{}`."""

_logger = logging.getLogger("rapids")

_PERMISSION = "x-rapids-permission"
_LIMITED = "x-rapids-limited"
_USER = "rapids.admin_user"
_PLACE = "rapids.place"
_DEFAULT_PORTS = {"http": 80, "https": 443}
_CHALLENGES = {"Bearer": 'Bearer realm="rapids"', "Basic": 'Basic realm="rapids", charset="UTF-8"'}
MAX_SHOWN = 200
"""How many characters of a header an error shows."""

_READING = {"GET", "HEAD", "OPTIONS"}


def needs(*permissions: Permission, limited: Limited | None = None) -> dict[str, Any]:
    """For the `openapi_extra` of a route: the permission that it needs. Access control and the documentation use it.

    With several permissions, a user needs one of them, and the route itself must check which one the request needs.
    Without any, every user may. `limited` is the kind of requests of which a limited number is answered at a time.
    """
    needed = {_PERMISSION: permissions[0] if len(permissions) == 1 else list(permissions)}
    return needed if limited is None else {**needed, _LIMITED: limited}


class AdminRoute(ProblemRoute):
    """A route for users with the permission that it `needs`."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the route. What it has taken is given back when its answer is sent, or its client has left or takes
        nothing for `SEND_TIMEOUT` seconds."""
        limit = asyncio.timeout(None)

        def end_at(moment: float | None) -> None:
            if not limit.expired():
                limit.reschedule(moment)

        async def sent(message: Message) -> None:
            end_at(asyncio.get_running_loop().time() + SEND_TIMEOUT)
            await send(message)
            end_at(None)

        try:
            async with limit:
                with ExitStack() as scope[_PLACE]:
                    await super().handle(scope, receive, sent)
        except TimeoutError:
            if not limit.expired():
                raise
            _logger.warning(
                "admin: an answer to %s was ended: its client took nothing for %g s", scope["path"], SEND_TIMEOUT
            )

    async def admit(self, request: Request) -> Request:
        """Check the user, the permission, the parameters, the origin, the body, and whether too many such
        requests are answered now, in this order.

        Raises `Problem` for the first check that fails.
        """
        parts = running(request)
        if parts.admin_auth is None:
            raise admin_closed()
        bounded = _BoundedRequest(request)
        await parts.failed_logins.wait(bounded)
        async with redis_calls(AUTH_TIMEOUT):  # `admin_auth` has no part in it
            connection = await with_session(bounded, parts)
        has_session = connection is not bounded
        has_credentials = any(bounded.headers.getlist("authorization"))  # of two, `admin_auth` may look at one
        limit = asyncio.timeout(AUTH_TIMEOUT)
        try:
            async with limit:
                user = await authenticate(parts.admin_auth, connection, parts.auth_threads)
        except HTTPException as error:
            if has_credentials and error.status_code == HTTPStatus.UNAUTHORIZED:
                parts.failed_logins.add(bounded)
            raise
        except (RedisError, OSError) as error:  # a TimeoutError is an OSError
            late = f"did not answer within {AUTH_TIMEOUT:g} s" if limit.expired() else ""
            _logger.warning("admin_auth %s", late or f"failed: {type(error).__name__}: {error}")
            headers = [("Retry-After", "5")]
            raise Problem("auth-unavailable", f"admin_auth {late or 'failed'}.", headers=headers) from error
        if user is None:
            if has_credentials:
                parts.failed_logins.add(bounded)
            # With Basic, a browser asks its user for a password, which an own `admin_auth` may not accept. The
            # dashboard has a form for it.
            asks = isinstance(parts.admin_auth, TokenAuth) and not is_of_script(request)
            schemes = ["Bearer", "Basic"] if asks else ["Bearer"]
            challenges = [("WWW-Authenticate", _CHALLENGES[scheme]) for scheme in schemes]
            raise Problem("unauthenticated", "The credentials are missing or wrong.", headers=challenges)
        # A route that names no permission raises KeyError here, so that nobody can use it.
        needed: Permission | list[Permission] = (self.openapi_extra or {})[_PERMISSION]
        allowed: list[Permission] = [needed] if isinstance(needed, str) else needed
        if allowed and not any(user.may(permission) for permission in allowed):
            names = " or ".join(map(repr, allowed))
            raise Problem("forbidden", f"This needs the permission {names}.", permission=" or ".join(allowed))
        names = [name for name, _ in request.query_params.multi_items()]
        if len(names) != len(set(names)):  # no route has a parameter that may be repeated
            raise Problem("invalid", "A parameter is given more than once.")
        if not set(names) <= _parameters(self.dependant):
            # Where the application included the router, it may have added dependencies with parameters.
            mine = [one for one in included(request.app) if getattr(one, "original_route", one) is self]
            known = _parameters(self.dependant).union(*(_parameters(one.dependant) for one in mine))
            if unknown := sorted(set(names) - known)[:MAX_FAULTS]:
                why = f"unknown; there is {', '.join(sorted(known)) or 'none'}"
                faults = [{"where": clean(f"query.{name}", MAX_NAME), "message": why} for name in unknown]
                raise Problem("invalid", "There is no such parameter.", errors=faults)
        if request.method not in _READING:
            if (has_session or needs_origin_check(request, parts.admin_auth)) and is_foreign(request):
                raise Problem("cross-origin", _why_foreign(request))
            await bounded.check_json()
        if (kind := (self.openapi_extra or {}).get(_LIMITED)) is not None:
            request.scope[_PLACE].enter_context(parts.in_progress.place(kind))
        request.scope[_USER] = user
        return bounded

    def problem(self, error: Exception, request: Request) -> Problem:
        """The problem for an error. Without the permission `read`, it does not quote the letter."""
        user: AdminUser | None = request.scope.get(_USER)
        if isinstance(error, DeserializationError) and user is not None and not user.may("read"):
            return Problem("letter-unreadable", "What is wrong with it is shown to users with the permission 'read'.")
        return super().problem(error, request)


def admin_closed() -> Problem:
    """The problem that nobody may use the admin, with what opens it."""
    return Problem(
        "admin-closed",
        f"Set {TOKEN_VARIABLE} in the service's environment and send its value as a bearer token or as the "
        "password of HTTP Basic, or give Rapids(admin_auth=...) a callable that says who may use it.",
    )


async def check_again(parts: Running, connection: HTTPConnection, needed: Permission) -> None:
    """For a long answer: raises `Problem` if its user has lost the permission, or the credentials are withdrawn."""
    auth = parts.admin_auth
    async with asyncio.timeout(AUTH_TIMEOUT):
        user = None
        if auth is not None:
            user = await authenticate(auth, await with_session(connection, parts), parts.auth_threads)
    if user is None or not user.may(needed):
        raise Problem("forbidden", f"The permission {needed!r} was withdrawn.", permission=needed)


def _parameters(dependant: Dependant) -> set[str]:
    """The names of all parameters of the query that a route and its dependencies have."""
    names = {field.alias for field in dependant.query_params}
    if isinstance(dependant.call, APIKeyQuery):
        names.add(dependant.call.model.name)
    return names.union(*map(_parameters, dependant.dependencies))


def needs_origin_check(connection: HTTPConnection, auth: AdminAuth) -> bool:
    """Whether a browser may have added the credentials by itself. It does so for Basic and cookies, not for Bearer."""
    if credentials_of(connection)[0] != "bearer" or auth is allow_anyone:  # who needs no credentials can make some up
        return True
    # The application's own callable may accept cookies.
    return not isinstance(auth, TokenAuth) and "cookie" in connection.headers


def is_foreign(connection: HTTPConnection) -> bool:
    """Whether the request comes from another origin.

    `Sec-Fetch-Site` (https://www.w3.org/TR/fetch-metadata/) says so. Without it, `Origin` is compared with `Host`. A
    request without both headers does not come from a browser.
    """
    sites = connection.headers.getlist("sec-fetch-site")
    if sites:
        return sites not in (["same-origin"], ["none"])
    origins = connection.headers.getlist("origin")
    if not origins:
        return False
    try:
        # The scheme is not compared: if a proxy ends TLS, the application does not know its own scheme.
        parts = urlsplit(origins[0])
        here = urlsplit(f"{parts.scheme}://{connection.headers.get('host', '')}")
        default = _DEFAULT_PORTS.get(parts.scheme)
        is_same = (parts.hostname, parts.port or default) == (here.hostname, here.port or default)
        return len(origins) > 1 or parts.hostname is None or default is None or not is_same
    except ValueError:
        return True


def _why_foreign(connection: HTTPConnection) -> str:
    """Why a request counts as foreign. A proxy that replaces `Host` looks like another origin."""
    why = "A page of another origin may not change anything here."
    if "sec-fetch-site" in connection.headers:
        return why
    origin, host = (connection.headers.get(name, "")[:MAX_SHOWN] for name in ("origin", "host"))
    return (
        f"{why} The request's Origin is {origin!r}, and its Host is {host!r}. If a proxy replaces Host, let it pass on "
        "the one of the browser, in nginx with `proxy_set_header Host $http_host;`. With a Bearer token neither header "
        "is compared."
    )


class _BoundedRequest(Request):
    """A request whose body is read once, up to `MAX_BODY` bytes."""

    def __init__(self, request: Request) -> None:
        super().__init__(request.scope, request.receive)
        self._bounded: bytes | None = None

    async def body(self) -> bytes:
        """The body. Raises `Problem` if it is too large."""
        if self._bounded is None:
            declared = self.headers.get("content-length", "")
            if declared.isdigit() and int(declared[:19]) > MAX_BODY:
                raise _too_large()
            read = bytearray()
            try:
                async with asyncio.timeout(BODY_TIMEOUT):
                    async for chunk in self.stream():
                        read += chunk
                        if len(read) > MAX_BODY:
                            raise _too_large()
            except TimeoutError as error:
                raise Problem("too-slow", f"The body did not arrive within {BODY_TIMEOUT:g} s.") from error
            except ClientDisconnect as error:
                raise Problem("invalid", "The body is not complete.") from error
            self._bounded = bytes(read)
        return self._bounded

    async def json(self) -> Any:
        """The body as a JSON value. The numbers of changed data keep their digits. Raises `ValueError`."""
        body = await self.body()
        found: Any = json.loads(body)
        if not isinstance(found, dict):
            return found
        # Nowhere else: Pydantic makes models with `from_attributes` of a subclass of float, and refuses a float.
        exact: dict[str, Any] = json.loads(body, parse_float=ExactFloat)
        return {**cast("dict[str, Any]", found), **{name: exact[name] for name in ("data", "patch") if name in exact}}

    async def check_json(self) -> None:
        """Raises `Problem` if the body is not JSON. DELETE needs no body."""
        body = await self.body()
        media_type = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        is_json = media_type == "application/json" or re.fullmatch(r"application/.*\+json", media_type)
        if not is_json and (body or self.method != "DELETE"):
            raise Problem("not-json", "Send the body as application/json.", headers=[("Accept", "application/json")])
        if body:
            try:
                orjson.loads(body)
                json.loads(body)  # as FastAPI does, which answers 400 to a number with thousands of digits
            except (ValueError, RecursionError) as error:
                raise Problem("invalid", "The body is not JSON.") from error


def _too_large() -> Problem:
    return Problem(
        "too-large",
        f"A body may have {MAX_BODY} bytes. To replay a dead letter with larger data, use "
        "DeadLetterQueue.replay(data=...) in Python.",
    )


class _BearerInDocs(HTTPBearer):
    """Describes the bearer token in OpenAPI; `AdminRoute` checks it."""

    async def __call__(self, request: HTTPConnection) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] - its parameter changed its type between versions
        return None


class _BasicInDocs(HTTPBasic):
    """Describes HTTP Basic in OpenAPI; `AdminRoute` checks it."""

    async def __call__(self, request: HTTPConnection) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        return None


CREDENTIALS = [
    Depends(_BearerInDocs(scheme_name="RapidsToken", description=f"The value of {TOKEN_VARIABLE}.")),
    Depends(_BasicInDocs(scheme_name="RapidsPassword", description=f"{TOKEN_VARIABLE} as password; any user name.")),
]
"""Dependencies of the admin's routers. They only document in OpenAPI which credentials a request needs."""


async def user_of(connection: HTTPConnection) -> AdminUser:
    """The user that access control accepted."""
    return connection.scope[_USER]


async def running_in(connection: HTTPConnection) -> Running:
    """The running application's parts. Raises `NotConfiguredError` if the lifespan is not running."""
    return running(connection)


UserDep = Annotated[AdminUser, Depends(user_of)]
"""The user of the request."""

RunningDep = Annotated[Running, Depends(running_in)]
"""The running application's parts."""
