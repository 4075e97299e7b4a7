"""The listeners of worker processes, over real connections."""

from __future__ import annotations

import asyncio

import pytest

from rapids.cli import listeners
from rapids.cli.listeners import listening
from rapids.metrics import Metrics


async def yes() -> bool:
    return True


async def asked(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer


async def test_silent_connections_are_limited_and_probes_are_answered_beside_them(
    monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    monkeypatch.setattr(listeners, "MAX_OPEN", 3)
    monkeypatch.setattr(listeners, "MAX_SECONDS", 3600.0)
    async with listening(("127.0.0.1", unused_tcp_port), None, live=yes, ready=yes, shown=Metrics()):
        silent = [await asyncio.open_connection("127.0.0.1", unused_tcp_port) for _ in range(5)]

        assert (await asked(unused_tcp_port)).startswith(b"HTTP/1.1 200 OK")

        ended = [asyncio.create_task(reader.read()) for reader, _ in silent]
        done, _ = await asyncio.wait(ended[:3])
        assert {type(one.exception()) for one in done} <= {type(None), ConnectionResetError}
        assert not any(one.done() for one in ended[3:]), "the newest are still waited for"
        for _, writer in silent:
            writer.close()
        await asyncio.wait(ended)
