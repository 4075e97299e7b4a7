"""`python -m benchmarks.http_load`: 64 connections that each send the next request when the last is answered.

Raw HTTP/1.1 on a protocol class, so that the load costs far less than the server it is put on.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from dataclasses import asdict, dataclass

from benchmarks.jobs import FIRST, order

CONNECTIONS = 64
CONNECT_PATIENCE = 30.0
ANSWER_PATIENCE = 30.0
EXPECTED = b"HTTP/1.1 202"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Load:
    """Requests to one path of the server at a unix socket."""

    socket: str
    path: str
    warm_seconds: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers in all, and those the clock ran for."""

    total: int
    timed: int
    seconds: float


class _Connection(asyncio.Protocol):
    """One keep-alive connection: at most one request is under way."""

    def __init__(self, request: bytes) -> None:
        self.answered = 0
        self.stopping = False
        self.idle = asyncio.get_running_loop().create_future()
        self._request = request
        self._received = b""
        self._expected = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self) -> None:
        assert self._transport is not None
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._expected:
            self._expected = self._length()
        if self._expected and len(self._received) >= self._expected:
            self._received, self._expected = b"", 0
            self.answered += 1
            if not self.stopping:
                self.send()
            elif not self.idle.done():
                self.idle.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.idle.done():
            self.idle.set_exception(error or ConnectionError("the server closed a connection"))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _length(self) -> int:
        """Bytes of the whole answer, or 0 while its head is not complete."""
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return 0
        length = _LENGTH.search(self._received, 0, end + 2)
        if not self._received.startswith(EXPECTED) or length is None:
            self.idle.set_exception(AssertionError(f"not the answer expected: {self._received[:200]!r}"))
            self.close()
            return 0
        return end + 4 + int(length[1])


async def put_on(load: Load) -> Answers:
    connections = [await _connect(load) for _ in range(CONNECTIONS)]
    try:
        for connection in connections:
            connection.send()
        await _wait(connections, load.warm_seconds)
        before, began = _answered(connections), time.perf_counter()
        await _wait(connections, load.seconds)
        timed, seconds = _answered(connections) - before, time.perf_counter() - began
        for connection in connections:
            connection.stopping = True
        async with asyncio.timeout(ANSWER_PATIENCE):
            await asyncio.gather(*(connection.idle for connection in connections))
    finally:
        for connection in connections:
            connection.close()
    return Answers(_answered(connections), timed, seconds)


async def _wait(connections: list[_Connection], seconds: float) -> None:
    """Let the load run. Raises as soon as a connection fails."""
    done, _ = await asyncio.wait(
        [connection.idle for connection in connections], timeout=seconds, return_when=asyncio.FIRST_EXCEPTION
    )
    for failed in done:
        failed.result()


def _answered(connections: list[_Connection]) -> int:
    return sum(connection.answered for connection in connections)


async def _connect(load: Load) -> _Connection:
    """Connect, once the server listens."""
    request = _request(load.path)
    async with asyncio.timeout(CONNECT_PATIENCE):
        while True:
            try:
                _, connection = await asyncio.get_running_loop().create_unix_connection(
                    lambda: _Connection(request), load.socket
                )
            except (FileNotFoundError, ConnectionRefusedError):
                await asyncio.sleep(0.05)
            else:
                return connection


def _request(path: str) -> bytes:
    body = json.dumps({name: value for name, value in order(FIRST).items() if name != "note"}).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(put_on(Load(**json.loads(sys.argv[1])))))))
