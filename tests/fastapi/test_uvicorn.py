"""The plug-in under a real server, in processes of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.embedded.scripts import is_gone, private_temp
from tests.fastapi.helpers import until
from tests.support import NO_TLS, SOON, free_port

__all__ = ["private_temp"]

pytestmark = [pytest.mark.slow, pytest.mark.integration, pytest.mark.usefixtures("private_temp")]

APP = """
import os
from fastapi import FastAPI
from rapids import BaseEvent, EventRouter
from rapids_fastapi import CorrelationMiddleware, EmitterDep, Rapids, rapids_admin

class FaServedNoted(BaseEvent):
    n: int

router = EventRouter(stream="served")
handled = []

@router.on(FaServedNoted)
async def handle(event: FaServedNoted) -> None:
    handled.append(event.n)

rapids = Rapids(routers=[router])
app = FastAPI(lifespan=rapids.lifespan)
app.add_middleware(CorrelationMiddleware)
app.include_router(rapids_admin)

@app.post("/{n}")
async def emit(n: int, emitter: EmitterDep) -> dict:
    return {"pid": os.getpid(), "entry": await emitter.emit(FaServedNoted(n=n))}

@app.get("/seen")
async def seen() -> dict:
    lag = await router.get_consumer_lag()
    return {"pid": os.getpid(), "length": lag.stream_length, "pending": lag.pending_count,
            "consumers": lag.consumers_count, "handled": handled}
"""


class Served:
    def __init__(self, process: subprocess.Popen[str], url: str, app: Path) -> None:
        self.process = process
        self.url = url
        self.app = app

    def ask(self, method: str, path: str) -> Any:
        # A new connection each time, so that the workers share the requests.
        response = httpx.request(method, self.url + path, timeout=60, verify=NO_TLS)
        assert response.status_code == 200, response.text
        return response.json()

    def answers(self, path: str = "/rapids/health/ready") -> bool:
        try:
            return httpx.get(self.url + path, timeout=60, verify=NO_TLS).status_code == 200
        except httpx.TransportError:
            assert self.process.poll() is None, "uvicorn ended"
            return False


@contextmanager
def served(folder: Path, *options: str, url: str = "embedded:", more: str = "", **environment: str) -> Iterator[Served]:
    app = folder / "served_app.py"
    app.write_text(APP + more)
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "served_app:app", "--app-dir", str(folder), "--port", str(port), *options],
        env={**os.environ, "RAPIDS_REDIS_URL": url, "PYTHONPATH": os.getcwd(), **environment},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield Served(process, f"http://127.0.0.1:{port}", app)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)


def descendants(pid: int) -> set[int]:
    """The process and all its descendants."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [tuple(map(int, line.split())) for line in listed.splitlines()]
    found = {pid}
    while more := {child for child, parent in pairs if parent in found} - found:
        found |= more
    return found


def stop(server: Served, number: signal.Signals = signal.SIGTERM, within: float = SOON) -> None:
    pids = descendants(server.process.pid)
    began = time.monotonic()
    server.process.send_signal(number)
    server.process.wait(within)
    until(lambda: all(is_gone(pid) for pid in pids), timeout=within)
    assert time.monotonic() - began < within


@pytest.mark.smoke
def test_one_worker_serves_and_ends_cleanly(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        until(server.answers)
        server.ask("POST", "/1")
        until(lambda: server.ask("GET", "/seen")["handled"] == [1])
        stop(server)
        output = server.process.communicate(timeout=60)[0]
    assert "Traceback" not in output
    assert "Application shutdown complete" in output


def test_two_workers_share_one_embedded_server_and_leave_nothing(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "2") as server:
        until(server.answers)
        pids: set[int] = set()
        sent = 0

        def both_answered() -> bool:
            nonlocal sent
            pids.add(server.ask("POST", f"/{sent}")["pid"])
            sent += 1
            return len(pids) == 2

        until(both_answered)
        lengths: dict[int, int] = {}

        def both_see_all() -> bool:
            seen = server.ask("GET", "/seen")
            lengths[seen["pid"]] = seen["length"]
            return len(lengths) == 2

        until(both_see_all)
        assert set(lengths.values()) == {sent}
        assert set(lengths) == pids
        handled: dict[int, list[int]] = {}

        def all_handled_once() -> bool:
            seen = server.ask("GET", "/seen")
            handled[seen["pid"]] = seen["handled"]
            assert seen["consumers"] == 2
            return sorted(n for each in handled.values() for n in each) == list(range(sent))

        until(all_handled_once)
        stop(server)


def test_a_reload_keeps_the_embedded_servers_data(tmp_path: Path) -> None:
    with served(tmp_path, "--reload", "--reload-dir", str(tmp_path)) as server:
        until(server.answers)
        first = server.ask("POST", "/1")["pid"]
        server.app.write_text(APP + "\n# changed\n")

        def reloaded() -> bool:
            try:
                return server.ask("GET", "/seen")["pid"] != first
            except httpx.TransportError:  # the old process is just ending, or the new one is not there yet
                return False

        until(reloaded)
        assert server.ask("GET", "/seen")["length"] == 1
        stop(server)


def test_an_unreachable_redis_is_one_line_and_an_exit_code(tmp_path: Path) -> None:
    began = time.monotonic()
    with served(tmp_path, url=f"redis://me:hunter2@127.0.0.1:{free_port()}/0") as server:
        output = server.process.communicate(timeout=60)[0]
    assert server.process.returncode not in (0, None)
    assert time.monotonic() - began < SOON
    lines = [line for line in output.splitlines() if "cannot reach Redis at redis://me:***@127.0.0.1:" in line]
    assert len(lines) in (1, 2)  # our line, and what uvicorn prints of the error
    assert "hunter2" not in output
    assert "During handling of the above exception" not in output
    assert "direct cause" not in output
