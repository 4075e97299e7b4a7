"""Worker processes of `rapids run`: signals, exit codes, children that die, the parent that dies, reloads, probes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from textwrap import dedent

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from redis.asyncio import Redis

from rapids import BaseEvent, EventEmitter
from rapids.inspection import Inspector
from tests.cli.running import RunningCommand, rapids_run
from tests.embedded.scripts import private_temp
from tests.fastapi.helpers import until
from tests.metrics.test_exposition import OPENMETRICS, Series, series, value
from tests.support import NO_TLS, PATIENCE, SOON, eventually, free_port
from tests.worker.helpers import as_text

__all__ = ["private_temp"]

pytestmark = pytest.mark.slow


class RunNoted(BaseEvent):
    n: int


BOTH_LOOPS = pytest.mark.parametrize("loop", [[], ["--uvloop"]], ids=["asyncio", "uvloop"])


async def emit(redis: Redis, *numbers: int, stream: str = "run") -> None:
    emitter = EventEmitter(redis, stream=stream)
    for n in numbers:
        await emitter.emit(RunNoted(n=n))


def answer(port: int, path: str = "ready") -> int:
    """The status of a probe; 0 while nothing listens."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/{path}", timeout=60, verify=NO_TLS).status_code
    except httpx.TransportError:
        return 0


def scrape(port: int) -> Series:
    """What Prometheus reads."""
    answer = httpx.get(f"http://127.0.0.1:{port}/metrics", headers={"Accept": OPENMETRICS}, timeout=60)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    return series(text_string_to_metric_families(answer.text))


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
    metrics_port = port if loop == "asyncio" else free_port()
    monkeypatch.setenv("RAPIDS_PROCESES", "3")
    monkeypatch.setenv("RAPIDS_METRICS_PORT", str(metrics_port))
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

        def handled() -> float:
            counted = value(scrape(metrics_port), "rapids_events_handled_total", group="notes")
            assert counted >= least, "a counter fell"
            return counted

        least = 0.0
        await eventually(lambda: handled() == 10)
        least = 10.0
        found = scrape(metrics_port)
        assert {labels["process"] for labels, _ in found["rapids_events_handled_total"]} <= {"1", "2"}
        assert value(found, "rapids_events_emitted_total", event_type="run.answered") == 10
        assert value(found, "rapids_handling_seconds", le="+Inf", handler="handle") == 10
        assert value(found, "rapids_process_starts_total") == 2
        assert (value(found, "rapids_up"), value(found, "rapids_group_consumers_alive", group="notes")) == (1, 2)
        assert value(found, "rapids_dead_letters", dlq="{run}:dlq", group="answers") == 0

        victim, *_ = living = first
        for pause in ("0.5", "1.0"):
            os.kill(victim, signal.SIGKILL)
            killed = rf"process [12] \(pid {victim}\) was killed by SIGKILL, perhaps since memory ran out: another one"
            command.says(rf"{killed} starts in {pause} s")
            before = living - {victim}
            living = await eventually(lambda before=before: len(now := set(command.children())) == 2 and now)
            [victim] = living - before  # killed at once, since a child that ran for long counts as sound
        assert answer(port) == 503
        handled()
        await eventually(lambda: answer(port) == 200)
        await eventually(lambda: value(scrape(metrics_port), "rapids_process_starts_total") == 4)
        await emit(redis, 10)
        await eventually(lambda: command.notes("answered", 10, "a pool"))
        await eventually(lambda: handled() == 11)

        assert command.stop() == 0
        assert set(command.notes("closed")) == living
        started = set(command.notes("opened", loop))
        assert "stopping on SIGTERM: running handlers have 30 s" in command.said
        assert "Traceback" not in command.said
        if log_format == "json":
            lines = [json.loads(line) for line in command.said.splitlines()]
            assert {line["pid"] for line in lines} == {command.process.pid, *started}
            summary = next(line for line in lines if "routers" in line)
            assert summary["message"].startswith("2 routers in 2 processes on ")
            assert [router["dlq_stream"] for router in summary["routers"]] == ["{run}:dlq"] * 2
            assert summary["routers"][1]["handlers"] == {"answered": ["run.answered"]}
        else:
            assert (
                f"2 routers in 2 processes on {redis_address}\n\nstream run  group answers\n  answered  run.answered"
                in (command.said)
            )


@BOTH_LOOPS
@pytest.mark.parametrize("how", ["SIGINT to one process", "SIGKILL to the parent of two"])
async def test_handlers_that_run_too_long_are_released_also_when_the_parent_is_killed(
    redis: Redis, redis_address: str, tmp_path: Path, how: str, loop: list[str]
) -> None:
    options = ["--graceful-timeout", "0.2", *loop]
    with rapids_run(tmp_path, redis_address, *options, "--processes", "1" if "one" in how else "2") as command:
        await emit(redis, -1)
        await eventually(lambda: command.notes("began", -1))
        if "one" in how:
            assert command.stop(signal.SIGINT) == 0
        else:
            assert command.stop(signal.SIGKILL) == -signal.SIGKILL
            assert f"the parent process {command.process.pid} is gone: stopping" in command.said
        assert "the time to stop is over: interrupting the running handlers" in command.said
        began = len(command.notes("began", -1))  # twice if the other process got it, which stops a moment later
    port = free_port()
    with rapids_run(tmp_path, redis_address, "--metrics-port", str(port)) as command:
        await eventually(lambda: len(command.notes("began", -1)) > began)  # not only after a lease of a minute
        found = scrape(port)  # of one process without a parent
    assert {labels["process"] for labels, _ in found["rapids_entries_delivered_total"]} == {"1"}
    assert (value(found, "rapids_up"), value(found, "rapids_process_starts_total")) == (1, 1)


@pytest.mark.parametrize(
    ("number", "options"),
    [
        (signal.SIGTERM, ["--processes", "2"]),
        (signal.SIGHUP, ["--uvloop"]),
    ],
    ids=lambda one: one.name if isinstance(one, signal.Signals) else " ".join(one),
)
async def test_an_event_in_hand_is_handled_before_the_end(
    redis: Redis, redis_address: str, tmp_path: Path, number: signal.Signals, options: list[str]
) -> None:
    with rapids_run(tmp_path, redis_address, *options) as command:
        await emit(redis, -4)
        [(handled, _)] = await redis.xrange("run")
        await eventually(lambda: command.notes("began", -4))
        command.process.send_signal(number)
        command.says(f"stopping on {number.name}: running handlers have 30 s")
        if number == signal.SIGHUP:
            command.process.send_signal(number)  # the shell of a terminal that is closed sends it, too
        assert not command.notes("ended", -4)
        (tmp_path / "go").touch()
        assert command.process.wait(SOON) == 0
        assert len(command.notes("ended", -4)) == 1
        assert len(command.notes("closed")) == len(
            command.notes("opened", "uvloop" if "--uvloop" in options else "asyncio")
        )
    left = {one.entry_id for one in (await Inspector(redis).pending("run", "notes")).items}
    assert as_text(handled) not in left


@pytest.mark.parametrize("options", [["--uvloop"], ["--processes", "2"]], ids=" ".join)
async def test_a_second_signal_ends_at_once_with_exit_code_1(
    redis: Redis, redis_address: str, tmp_path: Path, options: list[str]
) -> None:
    with rapids_run(tmp_path, redis_address, *options) as command:
        await emit(redis, -2)  # its handler blocks the event loop
        await eventually(lambda: command.notes("began", -2))
        command.process.send_signal(signal.SIGTERM)
        await eventually(lambda: "--uvloop" in options or "stopping on SIGTERM" in command.said)
        assert command.stop(signal.SIGINT) == 1
        assert command.said.endswith("rapids: a second signal: ending without waiting for handlers\n")


def test_a_second_signal_that_interrupts_the_first_one_ends_the_process_too() -> None:
    script = """
        import faulthandler, signal
        from rapids.cli.worker_process import StopRequest

        faulthandler.dump_traceback_later = lambda *args, **options: signal.raise_signal(signal.SIGINT)
        stop = StopRequest(is_child=False)
        stop.take_signals(lambda: print("at once", flush=True))
        signal.raise_signal(signal.SIGTERM)
    """
    done = subprocess.run([sys.executable, "-c", dedent(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "at once\n"), done.stderr
    assert done.stderr == "rapids: a second signal: ending without waiting for handlers\n"


@BOTH_LOOPS
async def test_a_blocked_event_loop_ends_in_time_and_says_where_it_is(
    redis: Redis, redis_address: str, tmp_path: Path, loop: list[str]
) -> None:
    with ExitStack() as both:
        commands: list[RunningCommand] = []
        for processes in ("1", "2"):
            options = ["--graceful-timeout", "0", "--processes", processes, *loop]
            command = rapids_run(tmp_path / processes, redis_address, *options, stream=f"run-{processes}")
            commands.append(both.enter_context(command))
        for processes, command in zip(("1", "2"), commands, strict=True):
            await emit(redis, -3, stream=f"run-{processes}")
            await eventually(lambda command=command: command.notes("began", -3))
        for command in commands:
            command.process.send_signal(signal.SIGTERM)
        for command in commands:
            assert command.process.wait(PATIENCE) == 1
        assert "rapids: not stopped in time: ending. The main thread is at\n" in commands[0].said
        assert "time.sleep(3600)" in commands[0].said
        assert "not stop" in commands[1].said, "the parent says it, if it is faster than the child"


@BOTH_LOOPS
def test_a_change_restarts_all_processes_and_a_syntax_error_waits_for_the_next(
    tmp_path: Path, private_temp: Path, loop: list[str]
) -> None:
    with rapids_run(tmp_path, "embedded:", "--reload", "--processes", "2", *loop) as command:
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


def test_the_metrics_of_several_processes_are_of_their_embedded_server(tmp_path: Path, private_temp: Path) -> None:
    port = free_port()
    options = ["--processes", "2", "--metrics-port", str(port), "--metrics-host", "127.0.0.1"]
    with rapids_run(tmp_path, "embedded:", *options) as command:
        command.says("started: router of group 'notes'", times=2)
        command.says(rf"metrics: GET /metrics on 127\.0\.0\.1 port {port}")
        assert len(list(private_temp.glob("rapids-*/*"))) == 1, "one server for all"
        until(lambda: value(scrape(port), "rapids_group_consumers_alive", group="notes") == 2)
        assert command.stop() == 0
    assert "Traceback" not in command.said


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


@pytest.mark.standalone("makes a user of one server")
@pytest.mark.parametrize("processes", ["1", "2"])
async def test_a_missing_permission_is_one_line(
    redis: Redis, redis_address: str, tmp_path: Path, processes: str
) -> None:
    await redis.execute_command("ACL", "SETUSER", "few", "on", ">pw", "~*", "&*", "+@all", "-xgroup")
    url = redis_address.replace("redis://", "redis://few:pw@").replace("unix://", "unix://few:pw@")
    try:
        with rapids_run(tmp_path, url, "--processes", processes, targets="run_workers:routers") as command:
            assert until(lambda: command.process.poll()) == 2
    finally:
        await redis.execute_command("ACL", "DELUSER", "few")
    assert "User few has no permissions to run the 'xgroup|create' command; rapids doctor" in command.said
    assert "Traceback" not in command.said
    assert command.said.count("rapids: ") == 1
