"""Probes over HTTP for worker processes: `GET /health/live` and `GET /health/ready`."""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus

from rapids.exceptions import RapidsError

__all__ = ["Probe", "ProbesError", "probes_answered"]

Probe = Callable[[], Awaitable[bool]]

MAX_HEAD = 8 * 1024
"""Bytes of a request's head."""
MAX_SECONDS = 5.0
"""Seconds for one request and its answer."""

MAX_OPEN = 100
"""Connections at a time. For a further one, the oldest ends: who reaches the port cannot take all file descriptors of
the process, and probes are still answered."""

_logger = logging.getLogger("rapids")


class ProbesError(RapidsError):
    """The port for probes cannot be used."""


@asynccontextmanager
async def probes_answered(host: str, port: int, *, live: Probe, ready: Probe) -> AsyncGenerator[None]:
    """Answer probes during the block: 200 or, if the probe is false, 503. Raises `ProbesError`."""
    probes = {"/health/live": live, "/health/ready": ready}

    connections: dict[asyncio.StreamWriter, None] = {}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections[writer] = None
        if len(connections) > MAX_OPEN:
            oldest = next(iter(connections))
            del connections[oldest]
            oldest.transport.abort()
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                async with asyncio.timeout(MAX_SECONDS):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(await _answer(head, probes))
                    await writer.drain()
        finally:
            connections.pop(writer, None)
            writer.close()

    try:
        server = await asyncio.start_server(answer, host, port, limit=MAX_HEAD)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else error
        raise ProbesError(f"--health-port {port} on {host} cannot be used: {why}") from None
    async with server:
        at = server.sockets[0].getsockname()
        _logger.info("probes: GET /health/live and /health/ready on %s port %d", at[0], at[1])
        yield


async def _answer(head: bytes, probes: dict[str, Probe]) -> bytes:
    method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
    probe = probes.get(rest.partition(" ")[0].partition("?")[0])
    more = ""
    if probe is None:
        status, word = HTTPStatus.NOT_FOUND, "not-found"
    elif method not in ("GET", "HEAD"):
        status, word, more = HTTPStatus.METHOD_NOT_ALLOWED, "method-not-allowed", "Allow: GET, HEAD\r\n"
    elif await probe():
        status, word = HTTPStatus.OK, "ok"
    else:
        status, word = HTTPStatus.SERVICE_UNAVAILABLE, "not-ready"
    body = f'{{"status":"{word}"}}'
    lines = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"Cache-Control: no-store\r\nConnection: close\r\n{more}\r\n"
    )
    return (lines + ("" if method == "HEAD" else body)).encode()
