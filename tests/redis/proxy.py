"""A TCP proxy in front of the server, to break connections on purpose."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from urllib.parse import unquote, urlparse


class Proxy:
    """Forwards to the server at `url` (unix socket or TCP), until a test makes it misbehave."""

    def __init__(self, url: str) -> None:
        self._target = urlparse(url)
        self._server: asyncio.Server | None = None
        self.port = 0
        self._links: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._lose_reply_to: bytes | None = None
        self._rewrite: tuple[bytes, Callable[[bytes], bytes]] | None = None
        self.delay = 0.0
        """Seconds each chunk of a reply is held up."""
        self.rate = math.inf
        """Bytes per second that a connection brings of its replies."""
        self._hold_up: bytes | None = None
        self._let_through = asyncio.Event()
        self.lost_words: list[bytes] = []
        """For each of these, the next reply that contains it is lost with its connection."""
        self.swallows = False
        """Whether replies get lost on the way, while the connections stay as they are."""
        self.requests = 0
        """Chunks of requests seen."""
        self.words: tuple[bytes, ...] = ()
        self.requests_with_words = 0
        """Chunks of requests seen that contain one of the `words`."""
        self.connections = 0
        """Connections accepted."""

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def lead_to(self, url: str) -> None:
        """Forward later connections to another server, as a name that leads to another address."""
        self._target = urlparse(url)

    async def accept(self) -> None:
        """Take connections (again), always at the same address."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Take no more connections, and cut those there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._let_through.set()
        await self.cut()

    async def cut(self) -> None:
        """Cut every connection there is."""
        pumps = set(self._pumps)
        for link in list(self._links):
            link.transport.abort()
        if pumps:
            await asyncio.wait(pumps)

    def lose_reply_to(self, request: bytes) -> None:
        """Forward the next request that contains these bytes, and cut its connection instead of bringing the reply."""
        self._lose_reply_to = request

    @property
    def loses_next_reply(self) -> bool:
        """Whether the request whose reply is to be lost is still to come."""
        return self._lose_reply_to is not None

    def rewrite_reply_to(self, request: bytes, how: Callable[[bytes], bytes]) -> None:
        """Change the reply to the next request that contains these bytes."""
        self._rewrite = (request, how)

    def hold_up(self, request: bytes) -> None:
        """Keep the next request that contains these bytes, and what its connection sends later, until `let_through`."""
        self._hold_up = request
        self._let_through.clear()

    @property
    def holds(self) -> bool:
        """Whether the request to hold up has come."""
        return self._hold_up is None and not self._let_through.is_set()

    def let_through(self) -> None:
        """Forward what was held up, late."""
        self._let_through.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            upstream = await self._connect()
        except OSError:  # the server is down
            writer.transport.abort()
            return
        if self._server is None:  # refused in the meantime
            writer.transport.abort()
            upstream[1].transport.abort()
            return
        link = _Link(self)
        self._links |= {writer, upstream[1]}
        for task in (
            asyncio.create_task(link.requests(reader, upstream[1])),
            asyncio.create_task(link.replies(upstream[0], writer)),
        ):
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._target.scheme == "unix":
            return await asyncio.open_unix_connection(unquote(self._target.path))
        return await asyncio.open_connection(self._target.hostname, self._target.port)

    def forget(self, writer: asyncio.StreamWriter) -> None:
        self._links.discard(writer)

    def loses_reply_to(self, chunk: bytes) -> bool:
        if self._lose_reply_to is None or self._lose_reply_to not in chunk:
            return False
        self._lose_reply_to = None
        return True

    def loses(self, reply: bytes) -> bool:
        """Whether this reply gets lost, as it has one of the `lost_words`."""
        word = next((word for word in self.lost_words if word in reply), None)
        if word is not None:
            self.lost_words.remove(word)
        return word is not None

    def rewriter_of(self, chunk: bytes) -> Callable[[bytes], bytes] | None:
        """How the reply to this request is to be changed, if it is."""
        if self._rewrite is None or self._rewrite[0] not in chunk:
            return None
        _, how = self._rewrite
        self._rewrite = None
        return how

    async def forwards(self, chunk: bytes) -> None:
        """Wait until a request may go on."""
        if self._hold_up is not None and self._hold_up in chunk:
            self._hold_up = None
            await self._let_through.wait()


class _Link:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._loses_reply = False
        self._rewriter: Callable[[bytes], bytes] | None = None

    async def requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(65_536):
                self._proxy.requests += 1
                self._proxy.requests_with_words += any(word in chunk for word in self._proxy.words)
                self._loses_reply = self._loses_reply or self._proxy.loses_reply_to(chunk)
                self._rewriter = self._proxy.rewriter_of(chunk) or self._rewriter
                await self._proxy.forwards(chunk)
                writer.write(chunk)
                await writer.drain()
        self._end(writer)

    async def replies(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(65_536):
                if self._loses_reply or self._proxy.loses(chunk):
                    break
                if self._proxy.swallows:
                    continue
                if self._rewriter is not None:
                    chunk, self._rewriter = self._rewriter(chunk), None
                if wait := self._proxy.delay + len(chunk) / self._proxy.rate:
                    await asyncio.sleep(wait)
                writer.write(chunk)
                await writer.drain()
        self._end(writer)

    def _end(self, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()
        self._proxy.forget(writer)


@asynccontextmanager
async def proxy_to(url: str) -> AsyncIterator[Proxy]:
    """A proxy that accepts connections, gone after the block."""
    proxy = Proxy(url)
    await proxy.accept()
    try:
        yield proxy
    finally:
        await proxy.refuse()
