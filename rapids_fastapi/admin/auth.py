"""Users of the admin, and what they may do there."""

import asyncio
import base64
import binascii
import hmac
import inspect
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

import anyio
import anyio.to_thread
from starlette.requests import HTTPConnection

__all__ = [
    "ALL_PERMISSIONS",
    "TOKEN_VARIABLE",
    "AdminAuth",
    "AdminUser",
    "AuthThreads",
    "Permission",
    "TokenAuth",
    "allow_anyone",
    "authenticate",
    "credentials_of",
]

TOKEN_VARIABLE = "RAPIDS_ADMIN_TOKEN"  # noqa: S105 - the name of a variable

Permission: TypeAlias = Literal["read", "replay", "edit", "discard", "metrics"]
"""`read`: see everything. `replay`: replay dead letters. `edit`: replay them with changed data, pause and resume
groups, and rebuild an index. `discard`: discard and restore dead letters. `metrics`: read metrics, such as Prometheus
does, which name streams, groups, event types and handlers."""

ALL_PERMISSIONS: frozenset[Permission] = frozenset(get_args(Permission))

_MAX_NAME = 128

AUTH_THREADS = 10

MIN_TOKEN = 4
"""Characters of a token. Use many more: `openssl rand -base64 32`."""


@dataclass(frozen=True, slots=True)
class AdminUser:
    """A user of the admin. Histories and audit logs show `name` for each change (1 to 128 printable characters).

    Raises `ValueError` for another name, and for unknown permissions.
    """

    name: str
    permissions: Iterable[Permission]

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not 0 < len(self.name) <= _MAX_NAME or not self.name.isprintable():  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
            raise ValueError(f"name must be 1 to {_MAX_NAME} printable characters, not {self.name!r}")
        given = {self.permissions} if isinstance(self.permissions, str) else set(self.permissions)
        if unknown := given - ALL_PERMISSIONS:
            allowed = ", ".join(get_args(Permission))
            raise ValueError(f"permissions must be of {allowed}, not {', '.join(sorted(map(str, unknown)))}")
        object.__setattr__(self, "permissions", frozenset(given))

    def may(self, permission: Permission) -> bool:
        """Whether this user has the permission."""
        return permission in frozenset(self.permissions)


AdminAuth: TypeAlias = Callable[[HTTPConnection], AdminUser | Awaitable[AdminUser | None] | None]
"""Returns the user of a connection, or None if somebody may not use the admin. A plain function runs in a thread."""


def allow_anyone(connection: HTTPConnection) -> AdminUser:
    """Gives everybody all permissions: `Rapids(admin_auth=allow_anyone)`. For a machine that only you can reach.

    Your browser can reach it, too, and a page of any site may point a name of its own at your machine (DNS rebinding).
    So check the name: `app.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1"])`.
    """
    return AdminUser("anyone", ALL_PERMISSIONS)


@dataclass(frozen=True, slots=True)
class TokenAuth:
    """Gives all permissions to everybody who has the token.

    The token is sent as `Authorization: Bearer`, or as the password of HTTP Basic. Histories show the user name of
    HTTP Basic. Any name is accepted, so that it proves nothing.

    Raises `ValueError` for a token that is easily guessed, or that no request can send.
    """

    token: str = field(repr=False)

    def __post_init__(self) -> None:
        # The token itself is not in the messages, since they are logged.
        if not isinstance(self.token, str) or len(self.token.strip()) < MIN_TOKEN:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"token must be a string of at least {MIN_TOKEN} characters, so that it is not guessed")
        if self.token != self.token.strip():
            raise ValueError("token must not begin or end with white space, such as a newline: no request can send it")
        if not self.token.isprintable():
            raise ValueError("token must not have control characters: no request can send it")

    def __call__(self, connection: HTTPConnection) -> AdminUser | None:
        """The user, if the connection has the token; else None."""
        scheme, value = credentials_of(connection)
        if scheme == "bearer":
            return AdminUser("admin", ALL_PERMISSIONS) if self._is_token(value) else None
        if scheme == "basic":
            try:
                name, _, password = base64.b64decode(value, validate=True).partition(b":")
            except binascii.Error:
                return None
            printable = "".join(filter(str.isprintable, name.decode(errors="replace")))[:_MAX_NAME]
            return AdminUser(printable or "admin", ALL_PERMISSIONS) if self._is_token(password) else None
        return None

    def _is_token(self, given: bytes) -> bool:
        return hmac.compare_digest(given, self.token.encode())


def credentials_of(connection: HTTPConnection) -> tuple[str, bytes]:
    """The scheme (in lower case) and the value of the Authorization header; both empty unless there is exactly one."""
    # The raw headers, since Starlette decodes them as Latin-1 and a token is bytes.
    found = [value for name, value in connection.headers.raw if name == b"authorization"]
    scheme, _, value = found[0].partition(b" ") if len(found) == 1 else (b"", b"", b"")
    return scheme.decode("latin-1").lower(), value.strip()


class AuthThreads:
    """The threads in which a plain `admin_auth` is called, at most `AUTH_THREADS` at a time.

    A thread cannot be cancelled. One that does not answer keeps its place until it ends, also after its request was
    answered. Otherwise, anybody's requests would start more and more of them, or take all those of the application's
    own endpoints.
    """

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(AUTH_THREADS)

    async def call(self, auth: Callable[[HTTPConnection], Any], connection: HTTPConnection) -> Any:
        """What the function returns, or raises."""
        await self._places.acquire()
        loop = asyncio.get_running_loop()
        has_begun, is_held = False, True

        def release() -> None:
            nonlocal is_held
            if is_held:
                is_held = False
                self._places.release()

        def ask() -> Any:
            nonlocal has_begun
            has_begun = True
            try:
                return auth(connection)
            finally:
                with suppress(RuntimeError):  # the event loop has ended
                    loop.call_soon_threadsafe(release)

        try:
            return await anyio.to_thread.run_sync(ask, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1))
        finally:
            if not has_begun:
                release()


async def authenticate(auth: AdminAuth, connection: HTTPConnection, threads: AuthThreads) -> AdminUser | None:
    """The user that `admin_auth` returns for the connection, or None.

    Raises `TypeError` if it returns anything else, for example True.
    """
    call: Any = getattr(auth, "__call__", auth)  # noqa: B004 - an object's own method shows whether it is async
    if isinstance(auth, TokenAuth) or inspect.iscoroutinefunction(auth) or inspect.iscoroutinefunction(call):
        answer = auth(connection)
    else:
        answer = await threads.call(auth, connection)
    user: Any = await answer if inspect.isawaitable(answer) else answer
    if user is None or isinstance(user, AdminUser):
        return user
    raise TypeError(f"admin_auth must return an AdminUser or None, not a {type(user).__name__}")
