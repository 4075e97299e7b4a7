"""The cookie of a browser's session: a request that has it is checked like one with the credentials of the login."""

from starlette.requests import HTTPConnection
from starlette.responses import Response

from rapids.sessions import SESSION_SECONDS
from rapids_fastapi.state import Running

__all__ = ["clear_cookie", "is_of_script", "secrets_of", "set_cookie", "with_session"]

COOKIE = "rapids_session"


def secrets_of(connection: HTTPConnection) -> set[str]:
    """The secrets of sessions in a connection's cookies.

    There may be several: a sibling of the host may set a cookie of this name for it, too
    (https://www.rfc-editor.org/rfc/rfc6265#section-8.6).
    """
    parts = ";".join(connection.headers.getlist("cookie")).split(";")
    named = (part.strip().partition("=") for part in parts)
    return {value for name, _, value in named if name == COOKIE and value}


async def with_session(connection: HTTPConnection, parts: Running) -> HTTPConnection:
    """The connection with the credentials of its session, if it has one session and no credentials of its own. Of
    several, it cannot be known which one the user began.

    Raises `redis.exceptions.RedisError` if it has a cookie, and Redis is unavailable.
    """
    if "authorization" in connection.headers or len(secrets := secrets_of(connection)) != 1:
        return connection
    if (credentials := await parts.sessions.credentials(secrets.pop())) is None:
        return connection
    headers = [*connection.scope["headers"], (b"authorization", credentials)]
    return HTTPConnection({**connection.scope, "headers": headers})


def is_of_script(connection: HTTPConnection) -> bool:
    """Whether a page's script sent the request: `fetch` with the usual header for it, or an `EventSource`.

    Browsers add the other header only where the page came by https, or from this machine
    (https://www.w3.org/TR/fetch-metadata/).
    """
    headers = connection.headers
    return (
        "x-requested-with" in headers
        or headers.get("accept") == "text/event-stream"
        or headers.get("sec-fetch-mode", "navigate") != "navigate"
    )


def set_cookie(connection: HTTPConnection, response: Response, secret: str) -> None:
    """Give the browser the session's secret, for as long as the session lasts.

    Without a path, the cookie is for the directory of the request as the browser sees it
    (https://www.rfc-editor.org/rfc/rfc6265#section-5.1.4), also where a proxy removes a prefix that the application
    does not know.
    """
    response.set_cookie(
        COOKIE,
        secret,
        max_age=SESSION_SECONDS,
        path=None,
        secure=_is_https(connection),
        httponly=True,
        samesite="strict",
    )


def clear_cookie(connection: HTTPConnection, response: Response) -> None:
    """Make the browser forget its session. The request must have the path that `set_cookie` had."""
    response.set_cookie(
        COOKIE, "", max_age=0, path=None, secure=_is_https(connection), httponly=True, samesite="strict"
    )


def _is_https(connection: HTTPConnection) -> bool:
    """Whether the browser uses https. A proxy may end it, but not change the `Origin` that the browser sends."""
    return connection.url.scheme == "https" or connection.headers.get("origin", "").startswith("https://")
