"""Lookups of servers' names, in threads of their own.

An event loop of asyncio looks names up in its default executor, where `asyncio.to_thread` runs functions, too. While
handlers use all threads of that, no lost connection could come back. uvloop has threads of its own for names.
"""

import asyncio
import socket
from collections.abc import Awaitable
from concurrent.futures import Future
from contextvars import ContextVar
from typing import TypeAlias, TypeVar
from weakref import WeakValueDictionary

from rapids._core.threads import in_own_thread

__all__ = ["looked_up_apart"]

Result = TypeVar("Result")
Name: TypeAlias = bytes | str | None
Address: TypeAlias = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
Found: TypeAlias = list[tuple[socket.AddressFamily, socket.SocketKind, int, str, Address]]

_is_apart: ContextVar[bool] = ContextVar("rapids_lookups", default=False)


async def looked_up_apart(connecting: Awaitable[Result]) -> Result:
    """What connecting returns. The names of servers are looked up without the default executor."""
    loop = asyncio.get_running_loop()
    if isinstance(loop, asyncio.BaseEventLoop) and not isinstance(loop.getaddrinfo, _Lookups):
        loop.getaddrinfo = _Lookups(loop)
    token = _is_apart.set(True)
    try:
        return await connecting
    finally:
        _is_apart.reset(token)


class _Lookups:
    """`getaddrinfo` of an event loop, the only way to its connections that they have in common. It does what it did
    before for all but `looked_up_apart`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._before = loop.getaddrinfo
        self._running: WeakValueDictionary[object, Future[Found]] = WeakValueDictionary()
        """One lookup for all connections that need it, so that a slow name server does not cost a thread for each."""

    async def __call__(
        self, host: Name, port: Name | int, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Found:
        if not _is_apart.get():
            return await self._before(host, port, family=family, type=type, proto=proto, flags=flags)
        question = (host, port, family, type, proto, flags)
        if (found := self._running.get(question)) is None or found.done():
            found = in_own_thread(lambda: socket.getaddrinfo(host, port, family, type, proto, flags))
            self._running[question] = found
        return await asyncio.wrap_future(found)
