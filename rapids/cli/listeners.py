"""Listeners: small HTTP servers of worker processes, for probes and for Prometheus."""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus

from rapids.exceptions import RapidsError
from rapids.metrics import Metrics

__all__ = ["Address", "ListenerError", "Probe", "listening"]

Address = tuple[str, int]
"""A host and a port; port 0 is any free one."""

Probe = Callable[[], Awaitable[bool]]

MAX_HEAD = 8 * 1024
"""Bytes of a request's head."""
MAX_SECONDS = 10.0
"""Seconds for one request and its answer. The figures of groups may take 5."""

MAX_OPEN = 100
"""Connections at a time. For a further one, the oldest ends: who reaches the port cannot take all file descriptors of
the process, and probes are still answered."""

_logger = logging.getLogger("rapids")


class ListenerError(RapidsError):
    """The port for probes or metrics cannot be used."""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: HTTPStatus
    body: bytes
    content_type: str = "application/json"
    more: str = ""
    """Further lines of the head."""


_Page = Callable[[str], Awaitable[_Answer]]
"""Makes an answer for the header `Accept` of a request."""


@asynccontextmanager
async def listening(
    health: Address | None, metrics: Address | None, *, live: Probe, ready: Probe, shown: Metrics
) -> AsyncGenerator[None]:
    """Answer probes and scrapes during the block: at one address, if both have the same. Raises `ListenerError`."""

    async def scraped(accept: str) -> _Answer:
        scrape = await shown.scrape(accept)
        return _Answer(HTTPStatus.OK, scrape.body, scrape.content_type)

    probes: dict[str, _Page] = {"/health/live": _page_of(live), "/health/ready": _page_of(ready)}
    scrapes: dict[str, _Page] = {"/metrics": scraped}
    async with AsyncExitStack() as listeners:
        is_shared = metrics == health and metrics is not None and metrics[1] != 0
        if health is not None:
            pages = {**probes, **scrapes} if is_shared else probes
            host, port = await _listen(listeners, health, "--health-port", pages)
            _logger.info("probes: GET /health/live and /health/ready on %s port %d", host, port)
            if is_shared:
                _logger.info("metrics: GET /metrics on %s port %d", host, port)
        if metrics is not None and not is_shared:
            host, port = await _listen(listeners, metrics, "--metrics-port", scrapes)
            _logger.info("metrics: GET /metrics on %s port %d", host, port)
        yield


async def _listen(listeners: AsyncExitStack, at: Address, option: str, pages: Mapping[str, _Page]) -> Address:
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
                    writer.write(await _respond(head, pages))
                    await writer.drain()
        finally:
            connections.pop(writer, None)
            writer.close()

    host, port = at
    try:
        server = await asyncio.start_server(answer, host, port, limit=MAX_HEAD)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else error
        raise ListenerError(f"{option} {port} on {host} cannot be used: {why}") from None
    await listeners.enter_async_context(server)
    name = server.sockets[0].getsockname()
    return name[0], name[1]


def _page_of(probe: Probe) -> _Page:
    """200 or, if the probe is false, 503."""

    async def page(accept: str) -> _Answer:
        return _word(HTTPStatus.OK, "ok") if await probe() else _word(HTTPStatus.SERVICE_UNAVAILABLE, "not-ready")

    return page


def _word(status: HTTPStatus, word: str, more: str = "") -> _Answer:
    return _Answer(status, f'{{"status":"{word}"}}'.encode(), more=more)


async def _respond(head: bytes, pages: Mapping[str, _Page]) -> bytes:
    request, *headers = head.decode("latin-1").split("\r\n")
    method, _, rest = request.partition(" ")
    page = pages.get(rest.partition(" ")[0].partition("?")[0])
    if page is None:
        answer = _word(HTTPStatus.NOT_FOUND, "not-found")
    elif method not in ("GET", "HEAD"):
        answer = _word(HTTPStatus.METHOD_NOT_ALLOWED, "method-not-allowed", "Allow: GET, HEAD\r\n")
    else:
        accepted = (line.partition(":")[2] for line in headers if line.lower().startswith("accept:"))
        answer = await page(",".join(accepted))
    lines = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\nContent-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\nCache-Control: no-store\r\nConnection: close\r\n{answer.more}\r\n"
    )
    return lines.encode() + (b"" if method == "HEAD" else answer.body)
