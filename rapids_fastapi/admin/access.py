"""The door of the admin: every route behind it names the permission it needs, and lets in nobody without."""

import json
from typing import Annotated, Any

import orjson
from fastapi import Depends
from fastapi.security import HTTPBasic, HTTPBearer
from starlette.requests import HTTPConnection, Request

from rapids_fastapi.admin.auth import TOKEN_VARIABLE, AdminUser, Permission, TokenAuth, authenticate
from rapids_fastapi.admin.origin import is_foreign, needs_origin_check
from rapids_fastapi.admin.problems import Problem, ProblemRoute
from rapids_fastapi.state import Running, running

__all__ = ["BODY_NEEDED", "CREDENTIALS", "MAX_BODY", "AdminRoute", "RunningDep", "UserDep", "needs"]

MAX_BODY = 64 * 1024
"""Bytes of a request's body."""

BODY_NEEDED: dict[str, Any] = {"requestBody": {"required": True}}
"""For the `openapi_extra` of a change where every field has a default: it must send JSON, `{}` at least."""

_PERMISSION = "x-rapids-permission"
_USER = "rapids.admin_user"
_READING = {"GET", "HEAD", "OPTIONS"}


def needs(*permissions: Permission) -> dict[str, Any]:
    """For a route's `openapi_extra`: the permission it needs, for the door and for the documentation.

    With several, one of them opens the door, and the route itself must see to which it takes.
    """
    return {_PERMISSION: permissions[0] if len(permissions) == 1 else list(permissions)}


class AdminRoute(ProblemRoute):
    """A route for those who have the permission it `needs`."""

    async def admit(self, request: Request) -> Request:
        """Who it is, what they may do, where the request comes from and what it holds: in this order.

        Raises `Problem`.
        """
        parts = running(request)
        if parts.admin_auth is None:
            raise Problem(
                "admin-closed",
                f"Set {TOKEN_VARIABLE} in the service's environment and send its value as a bearer token or as the "
                "password of HTTP Basic, or give Rapids(admin_auth=...) a callable that says who may come in.",
            )
        bounded = _BoundedRequest(request)
        user = await authenticate(parts.admin_auth, bounded)
        if user is None:
            raise Problem(
                "unauthenticated", "The credentials are missing or wrong.", headers=_challenges(parts.admin_auth)
            )
        # A route that names none raises KeyError here: closed rather than open.
        needed: Permission | list[Permission] = (self.openapi_extra or {})[_PERMISSION]
        allowed: list[Permission] = [needed] if isinstance(needed, str) else needed
        if not any(user.may(permission) for permission in allowed):
            told = " or ".join(map(repr, allowed))
            raise Problem("forbidden", f"This needs the permission {told}.", permission=" or ".join(allowed))
        _check_query(request)
        if request.method not in _READING:
            await _check_change(bounded, foreign=needs_origin_check(request, parts.admin_auth) and is_foreign(request))
        request.scope[_USER] = user
        return bounded


def _check_query(request: Request) -> None:
    """Nothing here takes a parameter twice; to go by one of them would be a guess at what was meant."""
    names = [name for name, _ in request.query_params.multi_items()]
    if len(names) != len(set(names)):
        raise Problem("invalid", "A parameter is there more than once.")


async def _check_change(request: "_BoundedRequest", *, foreign: bool) -> None:
    if foreign:
        raise Problem("cross-origin", "A page of another origin may not change anything here.")
    body = await request.body()
    if not _is_json(request.headers.get("content-type", "")) and (body or request.method != "DELETE"):
        raise Problem("not-json", "Send the body as application/json.", headers=[("Accept", "application/json")])
    if body and not _can_be_read(body):
        raise Problem("invalid", "The body is not JSON.")


def _can_be_read(body: bytes) -> bool:
    """Whether it is JSON in UTF-8 that FastAPI can read, too: it answers 400 to numbers of thousands of digits."""
    try:
        orjson.loads(body)
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or (media_type.startswith("application/") and media_type.endswith("+json"))


def _challenges(auth: object) -> list[tuple[str, str]]:
    bearer = ("WWW-Authenticate", 'Bearer realm="rapids"')
    # Basic makes browsers ask for a password, which is of no use where the application has its own ways.
    basic = ("WWW-Authenticate", 'Basic realm="rapids", charset="UTF-8"')
    return [bearer, basic] if isinstance(auth, TokenAuth) else [bearer]


class _BoundedRequest(Request):
    """A request whose body is read once, and only up to `MAX_BODY` bytes."""

    def __init__(self, request: Request) -> None:
        super().__init__(request.scope, request.receive)
        self._bounded: bytes | None = None

    async def body(self) -> bytes:
        """The body. Raises `Problem` where it is too large."""
        if self._bounded is None:
            declared = self.headers.get("content-length", "")
            if declared.isdigit() and int(declared[:19]) > MAX_BODY:
                raise _too_large()
            read = bytearray()
            async for chunk in self.stream():
                read += chunk
                if len(read) > MAX_BODY:
                    raise _too_large()
            self._bounded = bytes(read)
        return self._bounded


def _too_large() -> Problem:
    return Problem(
        "too-large",
        f"A body may have {MAX_BODY} bytes. To replay a dead letter with larger data, use "
        "DeadLetterQueue.replay(data=...) in Python.",
    )


class _BearerInDocs(HTTPBearer):
    """Tells OpenAPI of the bearer token; the door does the checking."""

    async def __call__(self, request: HTTPConnection) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] - its parameter changed its type between versions
        return None


class _BasicInDocs(HTTPBasic):
    """Tells OpenAPI of HTTP Basic; the door does the checking."""

    async def __call__(self, request: HTTPConnection) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        return None


CREDENTIALS = [
    Depends(_BearerInDocs(scheme_name="RapidsToken", description=f"The value of {TOKEN_VARIABLE}.")),
    Depends(_BasicInDocs(scheme_name="RapidsPassword", description=f"{TOKEN_VARIABLE} as password; any user name.")),
]
"""For the routers of admin routes, so that OpenAPI shows what to send."""


async def _user(connection: HTTPConnection) -> AdminUser:
    return connection.scope[_USER]


async def _running(connection: HTTPConnection) -> Running:
    return running(connection)


UserDep = Annotated[AdminUser, Depends(_user)]
"""Whoever the door let in."""

RunningDep = Annotated[Running, Depends(_running)]
"""The running application's parts."""
