"""`python -m example_app`, run as a user runs it."""

import asyncio
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import pytest
from redis.asyncio import Redis

from example_app.__main__ import main
from example_app.demo import story
from example_app.outside import Courier, CourierBusyError
from tests.support import NO_TLS, SOON

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


class Demo:
    """The demo in a process of its own."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.arguments = arguments
        self.environment = {**os.environ, **environment}
        self.printed = ""

    async def __aenter__(self) -> Self:
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, "-m", "example_app", *self.arguments)
        self.process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, env=self.environment, stdout=pipe, stderr=pipe
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.communicate()

    async def hears(self, words: str) -> None:
        """Read until these words are printed."""
        assert self.process.stdout is not None
        async with asyncio.timeout(120):
            while words not in self.printed:
                line = await self.process.stdout.readline()
                assert line, f"{words!r} was never printed, but:\n{self.printed}"
                self.printed += line.decode()

    async def ends(self) -> tuple[int, str]:
        """Its exit code, and what it wrote on stderr."""
        out, err = await asyncio.wait_for(self.process.communicate(), 120)
        self.printed += out.decode()
        assert self.process.returncode is not None
        return self.process.returncode, err.decode()


def processes_in(folder: Path) -> list[str]:
    seen = subprocess.run(["ps", "-eo", "args="], capture_output=True, text=True, check=True)
    return [line for line in seen.stdout.splitlines() if str(folder) in line]


@pytest.mark.smoke
async def test_once_runs_the_story_checks_it_and_leaves_nothing(private_temp: Path) -> None:
    async with Demo("--once") as demo:
        code, errors = await demo.ends()
    assert (code, errors) == (0, ""), demo.printed
    assert processes_in(private_temp) == []
    for sign in (
        "answered 202",
        "CourierBusyError: no van is free",
        "(attempt 2)",
        "non_retryable: rapids.exceptions.NonRetryableError",
        "/replay",
        "(replayed)",
        "Edsger's order is shipped",
    ):
        assert sign in demo.printed
    assert demo.printed.count("  ok  ") == 4
    assert "\x1b[" not in demo.printed


async def test_two_runs_of_once_work_at_the_same_time_on_their_own_streams(redis_url: str, redis: Redis) -> None:
    given = {"RAPIDS_REDIS_URL": redis_url, "EXAMPLE_STREAM": "mine"}
    async with Demo("--once", **given) as one, Demo("--once", **given) as two:
        for demo in (one, two):
            assert await demo.ends() == (0, ""), demo.printed
    assert await redis.xlen("mine") == 2 * 5 * 3
    assert all(key.startswith((b"mine", b"{mine}")) or key == b"rapids:routers" for key in await redis.keys())


async def test_once_works_on_a_used_redis_after_a_killed_run(redis_url: str) -> None:
    async with Demo(RAPIDS_REDIS_URL=redis_url) as demo:
        await demo.hears("Edsger's card is declined")
        demo.process.kill()
        await demo.process.communicate()
    async with Demo("--once", RAPIDS_REDIS_URL=redis_url) as demo:
        assert await demo.ends() == (0, ""), demo.printed


@pytest.fixture
async def running(private_temp: Path) -> AsyncIterator[Demo]:
    async with Demo() as demo:
        yield demo


async def is_answered(command: str) -> None:
    """The request that curl would make gets the dead letters that the demo leaves to look at."""
    _, _, _, _, header, url = shlex.split(command)
    name, _, value = header.partition(": ")
    async with httpx.AsyncClient(trust_env=False, timeout=60, verify=NO_TLS) as http:
        answer = await http.get(url, headers={name: value})
    assert answer.status_code == 200
    assert {letter["handler"] for letter in answer.json()["items"]} == {"take_payment"}


async def logs_in_once(demo: Demo) -> None:
    """The link stands first, and its code is exchanged for a session as the dashboard does it."""
    [_, title, line, *_] = demo.printed.splitlines()
    assert title.startswith("Dashboard: http://")
    address, _, code = line.split()[-1].partition("#login=")
    assert title == f"Dashboard: {address}"
    headers = {"Authorization": f"Offer {code}", "Content-Type": "application/json"}
    async with httpx.AsyncClient(trust_env=False, timeout=60, verify=NO_TLS) as http:
        answers = [await http.post(f"{address}api/session", headers=headers, content=b"{}") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 401]
    assert answers[0].json()["name"] == "you"


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("Ctrl-C stops everything.", signal.SIGINT),
        ("CourierBusyError", signal.SIGTERM),
        ("Order fulfilment at", signal.SIGINT),
    ],
)
async def test_the_demo_stops_at_once_and_leaves_nothing(
    running: Demo, private_temp: Path, moment: str, number: signal.Signals
) -> None:
    """At its end, before it is stopped, the admin command that it printed works."""
    await running.hears(moment)
    if moment == "Ctrl-C stops everything.":
        [line] = [line for line in running.printed.splitlines() if "dead letters  curl" in line]
        await is_answered(line)
        await logs_in_once(running)
    began = time.monotonic()
    running.process.send_signal(number)
    code, errors = await running.ends()
    assert time.monotonic() - began < SOON
    assert (code in (0, 130), errors) == (True, "")
    assert processes_in(private_temp) == []


async def test_ctrl_c_twice_ends_the_demo_too(running: Demo, private_temp: Path) -> None:
    await running.hears("Ctrl-C stops everything.")
    running.process.send_signal(signal.SIGINT)
    await running.hears("stopping")
    running.process.send_signal(signal.SIGINT)
    code, errors = await running.ends()
    assert (code in (0, 130), errors) == (True, "")


async def test_once_fails_when_it_is_interrupted(private_temp: Path) -> None:
    async with Demo("--once") as demo:
        await demo.hears("Grace")
        demo.process.send_signal(signal.SIGINT)
        assert await demo.ends() == (130, "")


async def test_a_token_that_is_set_is_used_and_not_printed(private_temp: Path) -> None:
    async with Demo(RAPIDS_ADMIN_TOKEN="my very own") as demo:
        await demo.hears("Ctrl-C stops everything.")
        assert "RAPIDS_ADMIN_TOKEN" in demo.printed
        assert "my very own" not in demo.printed


async def test_a_port_in_use_is_not_used(redis_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with Demo("--port", str(port), RAPIDS_REDIS_URL=redis_url) as demo:
            await demo.hears("Order fulfilment at http://127.0.0.1:")
            assert f":{port}" not in demo.printed


@pytest.mark.parametrize(
    ("environment", "why", "arguments"),
    [
        ({"RAPIDS_REDIS_URL": "redis://me:secret@localhost:1"}, "cannot reach Redis (RAPIDS_REDIS_URL)", ()),
        (
            {"RAPIDS_REDIS_URL": "redis+sentinel://localhost:1/primary"},
            "cannot reach Redis (RAPIDS_REDIS_URL): No master found for 'primary': no Sentinel that",
            ("--once",),
        ),
        ({"RAPIDS_REDIS_URL": "redis+sentinel://localhost:1/a?b=1"}, "RAPIDS_REDIS_URL: 'redis+sentinel://", ()),
        ({"RAPIDS_REDIS_URL": "http://localhost"}, "RAPIDS_REDIS_URL must be one of ", ("--once",)),
        ({"EXAMPLE_STREAM": "a}b"}, "the service did not start: ValueError: stream must", ()),
    ],
)
def test_a_setting_that_cannot_work_is_reported_in_one_line(
    private_temp: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    environment: dict[str, str],
    why: str,
    arguments: tuple[str, ...],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main([*arguments]) == 1
    errors = capsys.readouterr().err
    assert errors.startswith(f"example_app: {why}")
    assert errors.count("\n") == 1
    assert "secret" not in errors


def test_once_fails_when_an_order_gets_stuck(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def never(self: Courier, order_id: str) -> str:
        raise CourierBusyError("on strike")

    monkeypatch.setattr(Courier, "book", never)
    monkeypatch.setattr(story, "PATIENCE", 0.5)
    monkeypatch.setenv("RAPIDS_REDIS_URL", redis_url)
    assert main(["--once"]) == 1
    assert "of Ada did not become shipped within 0.5 s" in capsys.readouterr().err
