"""The service as `uvicorn example_app.app:app` runs it, with nothing set at all."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import NO_TLS, eventually, free_port

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ORDER = {"customer": "Ada", "items": ["lamp"], "total": "48.90", "card": "visa"}


@asynccontextmanager
async def uvicorn(*arguments: str) -> AsyncIterator[str]:
    """Run it for as long as the block; yields its address."""
    port = free_port()
    command = (sys.executable, "-m", "uvicorn", "example_app.app:app", "--port", str(port), *arguments)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=os.environ, stderr=pipe, stdout=pipe)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)
        out, errors = await asyncio.wait_for(process.communicate(), 30)
    assert b"Traceback" not in out + errors, errors.decode()


async def ask(address: str, method: str, path: str, **more: Any) -> httpx.Response:
    # A connection for each request, so that every worker gets some.
    async with httpx.AsyncClient(base_url=address, trust_env=False, timeout=60, verify=NO_TLS) as http:
        return await http.request(method, path, **more)


async def is_ready(address: str) -> bool:
    try:
        return (await ask(address, "GET", "/rapids/health/ready")).status_code == 200
    except httpx.TransportError:
        return False


async def test_orders_are_shipped_and_seen_by_every_worker(private_temp: Path) -> None:
    async with uvicorn("--workers", "2") as address:
        await eventually(lambda: is_ready(address))
        answers = [await ask(address, "POST", "/orders", json=ORDER) for _ in range(6)]
        for order_id in [answer.json()["order_id"] for answer in answers]:

            async def shipped(path: str = f"/orders/{order_id}") -> bool:
                return (await ask(address, "GET", path)).json()["status"] == "shipped"

            await eventually(shipped)
