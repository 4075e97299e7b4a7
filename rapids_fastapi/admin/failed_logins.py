"""Failed logins: wrong credentials are logged, and slow down the next requests from their address."""

import asyncio
import ipaddress
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from rapids_fastapi.admin.problems import Problem

__all__ = ["FailedLogins"]

_logger = logging.getLogger("rapids")

MAX_LOGGED = 10
"""Wrong credentials in a minute that are logged one by one."""

FREE = 10
"""Wrong credentials from one address before its requests are slowed down."""
SECONDS = 60.0
"""Seconds after its last wrong credentials when an address is no longer slowed down; also those of `MAX_LOGGED`."""
DELAY = 2.0
"""Seconds that a request waits before its credentials are checked."""
MAX_WAITING, MAX_WAITING_IN_ALL = 10, 100
"""Requests that wait at a time, from one address and from all. Others are refused. So one address can try five
credentials a second, and the memory and sockets that waiting takes are bounded."""
MAX_ADDRESSES = 1_000
"""Addresses that are remembered: those with the latest wrong credentials."""


@dataclass(slots=True)
class _Address:
    """The wrong credentials that came from an address."""

    count: int = 0
    at: float = 0.0
    """When the last ones came."""
    waiting: int = 0


class FailedLogins:
    """Logs wrong credentials: ten in a minute each, then how many more there were. Slows down where they come from.

    After ten of them, every request from the same address waits before its credentials are checked, also one with right
    credentials: a quicker answer to those would tell, without the wait, which ones are right. Requests from other
    addresses do not wait. Behind a proxy, all have the address of the proxy, unless the server takes the client's from
    the proxy's headers, as uvicorn does with `--forwarded-allow-ips`.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._addresses = OrderedDict[str, _Address]()
        self._waiting = 0
        self._began = clock() - SECONDS
        self._count = 0

    async def wait(self, connection: HTTPConnection) -> None:
        """Wait if many wrong credentials came from the connection's address. Raises `Problem` if too many wait."""
        address = self._addresses.get(_address_of(connection))
        if address is None or address.count < FREE or self._clock() - address.at >= SECONDS:
            return
        if address.waiting >= MAX_WAITING or self._waiting >= MAX_WAITING_IN_ALL:
            why = "Too many wrong credentials came from this address, and too many requests from there wait already."
            raise Problem("auth-unavailable", why, headers=[("Retry-After", f"{max(1, round(DELAY))}")])
        address.waiting += 1
        self._waiting += 1
        try:
            await self._sleep(DELAY)
        finally:
            address.waiting -= 1
            self._waiting -= 1

    def add(self, connection: HTTPConnection) -> None:
        """Log that the credentials of a connection were wrong, without them, and remember its address."""
        now = self._clock()
        name = _address_of(connection)
        address = self._addresses.setdefault(name, _Address())
        self._addresses.move_to_end(name)
        address.count = 1 if now - address.at >= SECONDS else address.count + 1
        address.at = now
        if len(self._addresses) > MAX_ADDRESSES:
            self._addresses.popitem(last=False)
        if now - self._began >= SECONDS:
            if (more := self._count - MAX_LOGGED) > 0:
                _logger.warning("admin: wrong credentials %d more times", more)
            self._began, self._count = now, 0
        self._count += 1
        if self._count <= MAX_LOGGED:
            client = connection.client.host if connection.client else "an unknown address"
            _logger.warning("admin: wrong credentials from %s for %s", client, connection.scope["path"])


def _address_of(connection: HTTPConnection) -> str:
    """The address of the client. Of IPv6 only the network, since one client may have all addresses in it."""
    host = connection.client.host if connection.client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a Unix socket, or a name
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address), 64), strict=False))
