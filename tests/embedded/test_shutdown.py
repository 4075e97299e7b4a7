"""The end of an embedded server, however its users, its supervisor or the server itself ended."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from redis.asyncio import Redis

from rapids.embedded import embedded_server
from tests.embedded.scripts import USER, ScriptRunner, is_gone
from tests.support import SOON, eventually

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("private_temp")]


async def test_everything_is_removed_soon_after_the_block_ends(private_temp: Path) -> None:
    async with embedded_server() as server:
        pids = server.pid, server.supervisor_pid
        started = time.monotonic()
    assert time.monotonic() - started < SOON
    assert all(is_gone(pid) for pid in pids)
    assert list(private_temp.iterdir()) == []
    with pytest.raises(ChildProcessError):  # the supervisor was reaped, too
        os.waitpid(pids[1], os.WNOHANG)


async def test_everything_is_removed_after_an_error_in_the_block(private_temp: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with embedded_server():
            _ = 1 / 0
    assert list(private_temp.iterdir()) == []


async def test_kill_9_of_its_user_ends_it(run_script: ScriptRunner, private_temp: Path) -> None:
    user = run_script(USER, "embedded:")
    _, *pids = await user.hear()
    user.kill()
    await eventually(lambda: all(is_gone(pid) for pid in pids) and not list(private_temp.iterdir()))


async def test_kill_9_of_all_that_share_it_ends_it(
    run_script: ScriptRunner, private_temp: Path, tmp_path: Path
) -> None:
    url = f"embedded:{tmp_path / 'data'}"
    one, other = run_script(USER, url), run_script(USER, url)
    seen = await one.hear()
    assert await other.hear() == seen
    one.kill()
    async with Redis.from_url(seen[0]) as client:
        assert await client.ping()
    other.kill()
    await eventually(lambda: all(is_gone(pid) for pid in seen[1:]) and not list(private_temp.iterdir()))
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["appendonlydir"]


async def test_signals_of_the_terminal_do_not_end_the_server(tmp_path: Path) -> None:
    async with embedded_server(tmp_path) as server:
        assert os.getsid(server.supervisor_pid) == server.supervisor_pid
        for number in (signal.SIGINT, signal.SIGHUP):
            os.kill(server.supervisor_pid, number)
        async with embedded_server(tmp_path) as same:  # which the supervisor answers after the signals
            assert same.pid == server.pid


async def test_a_supervisor_that_gets_sigterm_stops_the_server(private_temp: Path) -> None:
    async with embedded_server() as server:
        os.kill(server.supervisor_pid, signal.SIGTERM)
        await eventually(
            lambda: is_gone(server.pid) and is_gone(server.supervisor_pid) and not list(private_temp.iterdir())
        )


async def test_kill_9_of_the_supervisor_ends_the_server_and_stops_no_later_one(
    private_temp: Path, tmp_path: Path
) -> None:
    async with embedded_server(tmp_path) as server:
        async with Redis.from_url(server.url) as client:
            await client.set("key", "value")
        os.kill(server.supervisor_pid, signal.SIGKILL)
        await eventually(lambda: is_gone(server.pid))
        async with embedded_server(tmp_path) as later:
            assert later.pid != server.pid
            async with Redis.from_url(later.url) as client:
                assert await client.get("key") == b"value"
    assert list(private_temp.iterdir()) == []


async def test_the_next_start_removes_what_a_killed_supervisor_left(
    run_script: ScriptRunner, private_temp: Path
) -> None:
    user = run_script(USER, "embedded:")
    url, pid, supervisor = await user.hear()
    user.process.send_signal(signal.SIGSTOP)  # or it would remove its own files
    os.kill(supervisor, signal.SIGKILL)
    await eventually(lambda: is_gone(pid))
    user.kill()
    left = Path(url.removeprefix("unix://")).parent
    assert left.exists()
    async with embedded_server():
        assert not left.exists()


async def test_a_server_that_dies_takes_its_supervisor_and_folder_along(private_temp: Path) -> None:
    async with embedded_server() as server:
        os.kill(server.pid, signal.SIGKILL)
        await eventually(lambda: is_gone(server.supervisor_pid) and not list(private_temp.iterdir()))


async def test_a_fork_of_a_user_does_not_keep_the_server_alive(run_script: ScriptRunner, private_temp: Path) -> None:
    user = run_script(
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
        await eventually(lambda: is_gone(pid) and not list(private_temp.iterdir()))
        assert not is_gone(child)
    finally:
        os.kill(child, signal.SIGKILL)
        user.process.communicate()


async def test_a_fork_that_leaves_the_block_does_no_harm(run_script: ScriptRunner) -> None:
    user = run_script(
        """
        import json, os, sys, time
        from redis import Redis
        from rapids.embedded import embedded_server

        with embedded_server() as server:
            child, started = os.fork(), time.monotonic()
            if child:
                _, status = os.waitpid(child, 0)
                with Redis.from_url(server.url) as client:
                    print(json.dumps([status, time.monotonic() - started, client.ping()]), flush=True)
        """
    )
    status, seconds, answer = await user.hear()
    user.end()
    assert (status, answer) == (0, True)
    assert seconds < 30


async def test_a_program_started_by_a_user_does_not_keep_the_server_alive(private_temp: Path) -> None:
    async with embedded_server() as server:
        pid = server.pid
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        assert is_gone(pid)
        assert list(private_temp.iterdir()) == []
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()


async def test_a_supervisor_inherits_no_descriptors_of_its_user() -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)  # as uvicorn does with the socket it listens on
    os.set_blocking(reading, False)
    async with embedded_server():
        os.close(writing)
        assert os.read(reading, 1) == b""  # BlockingIOError if another process had it
    os.close(reading)


async def test_a_cancelled_start_leaves_nothing(private_temp: Path) -> None:
    async def use() -> None:
        async with embedded_server():
            await asyncio.sleep(60)

    def server_folders() -> list[Path]:
        return list(private_temp.glob("rapids-*/own-*"))

    for begun in (lambda: True, server_folders):
        using = asyncio.create_task(use())
        await eventually(begun, interval=0)
        using.cancel()
        with pytest.raises(asyncio.CancelledError):
            await using
        await eventually(lambda: not list(private_temp.iterdir()))
