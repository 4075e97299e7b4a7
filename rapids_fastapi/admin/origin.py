"""Whether a browser sent a request on behalf of somebody else's page."""

from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from rapids_fastapi.admin.auth import AdminAuth, TokenAuth, credentials_of

__all__ = ["is_foreign", "needs_origin_check"]

_DEFAULT_PORTS = {"http": 80, "https": 443}


def needs_origin_check(connection: HTTPConnection, auth: AdminAuth) -> bool:
    """Whether a browser may have added the credentials by itself, as it does for Basic and cookies, not for Bearer."""
    if credentials_of(connection)[0] != "bearer":
        return True
    # What a callable of the application goes by is its own business: with cookies there, it may be those.
    return not isinstance(auth, TokenAuth) and "cookie" in connection.headers


def is_foreign(connection: HTTPConnection) -> bool:
    """Whether the request says it comes from another origin than this application's. Says it nothing, it is no browser.

    `Sec-Fetch-Site` decides where there is one; else `Origin` against `Host`.
    """
    sites = connection.headers.getlist("sec-fetch-site")
    if sites:
        return sites not in (["same-origin"], ["none"])
    origins = connection.headers.getlist("origin")
    if not origins:
        return False
    return len(origins) > 1 or not _is_same(origins[0], connection.headers.get("host", ""))


def _is_same(origin: str, host: str) -> bool:
    """The scheme is not compared: behind a proxy that ends TLS, the application does not know its own."""
    try:
        parts = urlsplit(origin)
        here = urlsplit(f"{parts.scheme}://{host}")
        default = _DEFAULT_PORTS.get(parts.scheme)
        there = (parts.hostname, parts.port or default)
        return parts.hostname is not None and default is not None and there == (here.hostname, here.port or default)
    except ValueError:
        return False
