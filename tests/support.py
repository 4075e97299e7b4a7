"""Helpers several test modules share."""

from __future__ import annotations

import asyncio
import inspect
import signal
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

from rapids import Event, EventRouter

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds until a condition counts as never true: a busy machine is slow, and a test that passes waits no longer."""

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients of servers without TLS: httpx would read all authorities for each client, in a tenth of a second."""

SOON = 30.0
"""Seconds within which something ends, on a busy machine too, that would take a minute or more if it had to wait."""


def free_port() -> int:
    """A port of this machine on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def eventually(condition: Callable[[], T | Awaitable[T]], timeout: float = PATIENCE, interval: float = 0.01) -> T:
    """Wait until `condition` (a plain or an async callable) is truthy and return what it gave.

    It is asked at once and then every `interval` seconds. After `timeout` seconds an AssertionError
    shows the last value. An exception it raises is not held back, except AssertionError, which counts
    as "not yet" and is shown at the end.
    """
    deadline = time.monotonic() + timeout
    while True:
        seen: object
        try:
            given = condition()
            value = await given if inspect.isawaitable(given) else given
            if value:
                return value  # type: ignore[return-value]
            seen = value
        except AssertionError as error:
            seen = error
        if time.monotonic() >= deadline:
            raise AssertionError(f"not true within {timeout:g} s; the last value seen was {seen!r}")
        await asyncio.sleep(interval)


@asynccontextmanager
async def full_thread_pool() -> AsyncIterator[None]:
    """All threads of the event loop's default executor are in use until the end of the block."""
    over = threading.Event()
    loop = asyncio.get_running_loop()
    tasks = [loop.run_in_executor(None, over.wait) for _ in range(64)]  # it has 32 threads at most
    try:
        yield
        assert not any(task.done() for task in tasks)
    finally:
        over.set()
        await asyncio.wait(tasks)


@contextmanager
def interruptible() -> Iterator[None]:
    """Python, and what it starts, handles SIGINT and SIGHUP as by default.

    A shell's background job ignores the first, and what `nohup` starts the second.
    """
    before = [
        (signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler)),
        (signal.SIGHUP, signal.signal(signal.SIGHUP, signal.SIG_DFL)),
    ]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


async def ignore(event: Event) -> None:
    """A handler that does nothing."""


def idle_router(*arguments: Any, **options: Any) -> EventRouter:
    """A router with a handler for events that no test emits: one without handlers does not start."""
    router = EventRouter(*arguments, **options)
    router.on("no.such.event")(ignore)
    return router
