"""The logging of a web process, as docs/running.md prints it, in a real server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.docs.pages import DOCS, blocks
from tests.support import eventually, free_port

LOGGING = """
import logs
import logging
from fastapi import FastAPI
from rapids import BaseEvent, EventRouter
from rapids_fastapi import CorrelationMiddleware, EmitterDep, Rapids

class OrderPlaced(BaseEvent):
    order_id: str

router = EventRouter(stream="orders", group="billing", max_deliveries=1)

@router.on(OrderPlaced)
async def charge(event: OrderPlaced) -> None:
    raise ConnectionError("the bank is closed")

app = FastAPI(lifespan=Rapids(routers=[router]).lifespan)
app.add_middleware(CorrelationMiddleware)

@app.post("/orders/{order_id}")
async def place_order(order_id: str, emitter: EmitterDep) -> None:
    logging.getLogger("app.web").info("an order was placed")
    await emitter.emit(OrderPlaced(order_id=order_id))
"""


@pytest.mark.slow
async def test_a_web_process_logs_everything_with_the_correlation_id(redis_url: str, tmp_path: Path) -> None:
    [block] = [block.text for block in blocks(DOCS / "running.md") if block.heading == "Logs of a web process"]
    (tmp_path / "logs.py").write_text(block)
    (tmp_path / "main.py").write_text(LOGGING)
    port, seen = free_port(), tmp_path / "output"
    command = [sys.executable, "-u", "-m", "uvicorn", "main:app", "--port", str(port)]
    environment = {**os.environ, "RAPIDS_REDIS_URL": redis_url}
    with seen.open("w+") as output:
        server = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                await eventually(lambda: _answers(client))
                await client.post("/orders/A-1", headers={"X-Correlation-ID": "req-7"})
            await eventually(lambda: "the bank is closed" in seen.read_text())
        finally:
            server.terminate()
            assert server.wait(timeout=60) in (0, -15)
    lines = [re.sub(r"^\S+ \S+ ", "", line) for line in seen.read_text().splitlines()]
    assert any(line.startswith("INFO     rapids.worker [-] started: router of group 'billing'") for line in lines)
    assert "INFO     app.web [req-7] an order was placed" in lines
    [access] = [line for line in lines if "POST /orders/A-1" in line]
    assert access.startswith("INFO     uvicorn.access [req-7] 127.0.0.1:")
    [failed] = [line for line in lines if "dead letter of handler 'charge'" in line]
    assert failed.startswith("ERROR    rapids.worker [req-7] ")


async def _answers(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/rapids/health/live")).status_code in (
            200,
            404,
        )  # 404: without the admin
    except httpx.TransportError:
        return False
