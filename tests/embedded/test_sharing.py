"""Which processes share an embedded server: those that open one directory, and the workers of one parent."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids.embedded import embedded_server
from tests.embedded.scripts import USER, Script, ScriptRunner, is_gone
from tests.support import eventually

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("private_temp")]


async def test_a_directory_keeps_the_data_across_restarts(tmp_path: Path) -> None:
    directory = tmp_path / "made" / "for it"
    for count in (1, 2, 3):
        async with embedded_server(directory) as server, Redis.from_url(server.url, decode_responses=True) as client:
            assert await client.incr("starts") == count
            assert (await client.config_get("appendonly"))["appendonly"] == "yes"
            assert (await client.config_get("appendfsync"))["appendfsync"] == "everysec"
            assert server.directory == directory
    assert [path.name for path in directory.iterdir()] == ["appendonlydir"]


async def test_a_directory_keeps_the_data_when_all_users_are_killed(run_script: ScriptRunner, tmp_path: Path) -> None:
    user = run_script(USER, f"embedded:{tmp_path}")
    url, pid, _ = await user.hear()
    async with Redis.from_url(url) as client:
        await client.set("key", "value")
    user.kill()
    await eventually(lambda: is_gone(pid))
    async with embedded_server(tmp_path) as server, Redis.from_url(server.url) as client:
        assert await client.get("key") == b"value"


async def test_processes_that_open_one_directory_share_a_server(run_script: ScriptRunner, tmp_path: Path) -> None:
    first, second = run_script(USER, f"embedded:{tmp_path}"), run_script(USER, f"embedded:{tmp_path}")
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


async def test_a_url_may_hold_any_temp_folder(private_temp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = private_temp / "100% ü?#"
    odd.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(odd))
    async with embedded_server() as server, Redis.from_url(server.url) as client:
        assert await client.ping()
    odd.rmdir()


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


async def test_workers_of_one_parent_that_start_at_once_share_a_server(run_script: ScriptRunner) -> None:
    parent, other = run_script(PARENT), run_script(PARENT)
    for script in (parent, parent, parent, other):
        await ask(script, "start")
    reports = await ask(parent, "report")
    assert len({(pid, supervisor) for pid, supervisor, _ in reports}) == 1
    assert sorted(count for _, _, count in reports) == [1, 2, 3]
    [(pid, _, count)] = await ask(other, "report")
    assert pid != reports[0][0]
    assert count == 1
    for script in (parent, parent, parent, other):
        assert await ask(script, "stop") == [0]
    parent.end()
    other.end()
    await eventually(lambda: is_gone(pid) and is_gone(reports[0][0]))


async def test_a_reload_keeps_the_data(run_script: ScriptRunner, private_temp: Path) -> None:
    parent = run_script(PARENT)
    for count in (1, 2, 3):
        await ask(parent, "start")
        [(pid, supervisor, seen)] = await ask(parent, "report")
        assert seen == count
        assert await ask(parent, "stop") == [0]  # from here to the next start only the parent is there
    parent.end()
    await eventually(lambda: is_gone(pid) and is_gone(supervisor) and not list(private_temp.iterdir()))


async def test_kill_9_of_parent_and_workers_ends_the_server(run_script: ScriptRunner, private_temp: Path) -> None:
    parent = run_script(PARENT)
    workers = [*(await ask(parent, "start")), *(await ask(parent, "start"))]
    (pid, supervisor, _), _ = await ask(parent, "report")
    parent.kill()
    os.kill(workers[0], signal.SIGKILL)
    os.kill(workers[1], signal.SIGKILL)
    await eventually(lambda: is_gone(pid) and is_gone(supervisor) and not list(private_temp.iterdir()))


async def test_a_private_server_of_a_worker_is_not_shared(run_script: ScriptRunner) -> None:
    script = run_script(
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


async def test_workers_that_gunicorn_forks_share_a_server(run_script: ScriptRunner, private_temp: Path) -> None:
    master = run_script(
        """
        import json, os, sys, types
        from rapids.embedded import open_embedded

        sys.modules["gunicorn.arbiter"] = types.ModuleType("gunicorn.arbiter")
        heard, said = os.pipe()
        for _ in range(2):
            if not os.fork():
                with open_embedded("embedded:") as server:
                    os.write(said, f"{server.pid} ".encode())
                    os.read(0, 1)
                os._exit(0)
        os.close(said)  # the read ends if both children have failed
        pids = b""
        while pids.count(b" ") < 2 and (more := os.read(heard, 100)):
            pids += more
        print(json.dumps([int(pid) for pid in pids.split()]), flush=True)
        os.wait()
        os.wait()
        """
    )
    one, other = await master.hear()
    assert one == other
    master.end()
    await eventually(lambda: is_gone(one) and not list(private_temp.iterdir()))


async def test_processes_of_one_parent_that_are_no_workers_share_nothing(run_script: ScriptRunner) -> None:
    one, other = run_script(USER, "embedded:"), run_script(USER, "embedded:")
    assert (await one.hear())[1] != (await other.hear())[1]
    one.end()
    other.end()
