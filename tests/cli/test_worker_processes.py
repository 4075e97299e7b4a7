"""Worker processes of `rapids run`: signals, exit codes, children that die, the parent that dies, reloads, probes."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from rapids import BaseEvent, EventEmitter
from tests.cli.running import rapids_run
from tests.embedded.scripts import private_temp
from tests.fastapi.helpers import until
from tests.support import eventually, free_port

__all__ = ["private_temp"]

pytestmark = pytest.mark.slow


class RunNoted(BaseEvent):
    n: int


async def emit(redis: Redis, *numbers: int) -> None:
    emitter = EventEmitter(redis, stream="run")
    for n in numbers:
        await emitter.emit(RunNoted(n=n))


def answer(port: int, path: str = "ready") -> int:
    """The status of a probe; 0 while nothing listens."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/{path}", timeout=60).status_code
    except httpx.TransportError:
        return 0


@pytest.mark.parametrize(
    ("loop", "log_format"), [pytest.param("asyncio", "text", marks=pytest.mark.smoke), ("uvloop", "json")]
)
async def test_two_processes_share_the_work_and_a_dead_one_is_followed_by_another(
    redis: Redis,
    redis_address: str,
    tmp_path: Path,
    loop: str,
    log_format: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = free_port()
    monkeypatch.setenv("RAPIDS_PROCESES", "3")
    options = ["--processes", "2", "--health-port", str(port), "--log-format", log_format]
    options += ["--uvloop"] if loop == "uvloop" else []
    with rapids_run(tmp_path, redis_address, *options) as command:
        await eventually(lambda: answer(port) == 200)
        assert answer(port, "live") == 200
        assert command.said.count("RAPIDS_PROCESES (did you mean RAPIDS_PROCESSES?)") == 1
        first = set(command.notes("opened", loop))
        assert first == set(command.children())
        assert len(first) == 2
        await emit(redis, *range(10))
        await eventually(lambda: all(len(command.notes("answered", n, "a pool")) == 1 for n in range(10)))

        victim = min(first)
        os.kill(victim, signal.SIGKILL)
        command.says(rf"process [12] \(pid {victim}\) was killed by SIGKILL, perhaps since memory ran out: another one")
        assert answer(port) == 503
        await eventually(lambda: answer(port) == 200)
        living = set(command.notes("opened", loop)) - {victim}
        assert len(living) == 2
        await emit(redis, 10)
        await eventually(lambda: command.notes("answered", 10, "a pool"))

        assert command.stop() == 0
        assert set(command.notes("closed")) == living
        assert "stopping on SIGTERM: running handlers have 30 s" in command.said
        assert "Traceback" not in command.said
        if log_format == "json":
            lines = [json.loads(line) for line in command.said.splitlines()]
            assert {line["pid"] for line in lines} == {command.process.pid, *first, *living}
            summary = next(line for line in lines if "routers" in line)
            assert summary["message"].startswith("2 routers in 2 processes on ")
            assert [router["dlq_stream"] for router in summary["routers"]] == ["{run}:dlq"] * 2
            assert summary["routers"][1]["handlers"] == {"answered": ["run.answered"]}
        else:
            assert (
                f"2 routers in 2 processes on {redis_address}\n\nstream run  group answers\n  answered  run.answered"
                in (command.said)
            )


@pytest.mark.parametrize("how", ["SIGINT to one process", "SIGKILL to the parent of two"])
async def test_handlers_that_run_too_long_are_released_also_when_the_parent_is_killed(
    redis: Redis, redis_address: str, tmp_path: Path, how: str
) -> None:
    options = ["--graceful-timeout", "0.2"]
    with rapids_run(tmp_path, redis_address, *options, "--processes", "1" if "one" in how else "2") as command:
        await emit(redis, -1)
        await eventually(lambda: command.notes("began", -1))
        if "one" in how:
            assert command.stop(signal.SIGINT) == 0
        else:
            assert command.stop(signal.SIGKILL) == -signal.SIGKILL
            assert f"the parent process {command.process.pid} is gone: stopping" in command.said
        assert "the time to stop is over: interrupting the running handlers" in command.said
    with rapids_run(tmp_path, redis_address) as command:
        await eventually(lambda: len(command.notes("began", -1)) == 2)  # not only after a lease of a minute


async def test_a_second_signal_ends_at_once_with_exit_code_1(redis: Redis, redis_address: str, tmp_path: Path) -> None:
    with rapids_run(tmp_path, redis_address, "--processes", "2") as command:
        await emit(redis, -1)
        await eventually(lambda: command.notes("began", -1))
        command.process.send_signal(signal.SIGTERM)
        command.says("stopping on SIGTERM")
        assert command.stop(signal.SIGINT) == 1
        assert command.said.endswith("rapids: a second signal: ending without waiting for handlers\n")


def test_a_change_restarts_all_processes_and_a_syntax_error_waits_for_the_next(
    tmp_path: Path, private_temp: Path
) -> None:
    with rapids_run(tmp_path, "embedded:", "--reload", "--processes", "2") as command:
        command.says("started: router of group 'notes'", times=2)
        assert len(list(private_temp.glob("rapids-*/workers-*"))) == 1, "each process has a server of its own"
        works = command.workers.read_text()
        command.workers.write_text(works + "def (\n")
        command.says("run_workers.py changed: restarting")
        command.says(r"run_workers cannot be imported: SyntaxError[^§]*\bdef \([^§]*waiting for a change of the code")
        command.workers.write_text(works.replace("def answered", "def answered_later"))
        command.says("  answered_later  run.answered")
        command.says("started: router of group 'notes'", times=4)
        assert command.stop(signal.SIGINT) == 0
        assert command.said.count("SyntaxError: invalid syntax (") == 1


def test_what_a_handler_needs_and_does_not_get_is_said_before_anything_starts(tmp_path: Path) -> None:
    nothing = f"redis://127.0.0.1:{free_port()}"
    with rapids_run(tmp_path, nothing, lifespan=None) as command:
        assert until(lambda: command.process.poll()) == 2
    assert len(command.said.splitlines()) == 1
    assert command.said.startswith("rapids: handler 'answered' of group 'answers' on stream 'run' depends on lifespan_")
    assert "rapids run --lifespan module:name" in command.said


def test_what_cannot_start_says_why_once_and_exits_with_2(tmp_path: Path, private_temp: Path) -> None:
    nothing = f"redis://127.0.0.1:{free_port()}"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for said, url, options, targets in (
            (f"cannot reach Redis at {nothing}: Error 111", nothing, ["--processes", "2"], "run_workers:routers"),
            (
                "run_workers has no 'rooters'; near names are routers",
                nothing,
                ["--processes", "2"],
                "run_workers:rooters",
            ),
            ("cannot be used: Address already in use", nothing, ["--health-port", port], "run_workers:routers"),
        ):
            with rapids_run(tmp_path, url, *options, "--health-host", "127.0.0.1", targets=targets) as command:
                assert until(lambda: command.process.poll()) == 2
            assert command.said.count("rapids: ") == 1
            assert said in command.said
            assert "Traceback" not in command.said
