"""Folders of embedded servers: any path, and never a folder of another user."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from rapids.embedded import EmbeddedServerError, embedded_server
from rapids.embedded.ownership import name_and_parent, runtime_folder, take_lock
from rapids.embedded.server import find_server_binary
from rapids.embedded.supervisor import PROCESS_IDS, SERVER_SOCKET
from tests.support import SOON, eventually

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("private_temp")]


@pytest.mark.parametrize("kind", ["open to others", "a link", "a file"])
async def test_a_runtime_folder_that_others_can_use_is_refused(kind: str, private_temp: Path) -> None:
    runtime = private_temp / f"rapids-{os.getuid()}"
    if kind == "open to others":
        runtime.mkdir()
        runtime.chmod(0o755)
    elif kind == "a link":
        (private_temp / "elsewhere").mkdir(mode=0o700)
        runtime.symlink_to(private_temp / "elsewhere")
    else:
        runtime.touch(mode=0o700)
    with pytest.raises(EmbeddedServerError, match=f"{runtime} is not a folder that only you can use"):
        async with embedded_server():
            pass
    shutil.rmtree(private_temp)
    private_temp.mkdir()


async def test_a_runtime_folder_of_another_user_is_refused(private_temp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    somebody = os.getuid() + 1
    (private_temp / f"rapids-{somebody}").mkdir(mode=0o700)
    monkeypatch.setattr(os, "getuid", lambda: somebody)
    with pytest.raises(EmbeddedServerError, match="is not a folder that only you can use"):
        async with embedded_server():
            pass
    (private_temp / f"rapids-{somebody}").rmdir()


async def test_a_file_of_another_program_in_the_runtime_folder_harms_nothing(private_temp: Path) -> None:
    runtime = private_temp / f"rapids-{os.getuid()}"
    runtime.mkdir(mode=0o700)
    (runtime / "file").touch()
    async with embedded_server() as server, Redis.from_url(server.url) as client:
        assert await client.ping()
    assert [path.name for path in runtime.iterdir()] == ["file"]
    shutil.rmtree(runtime)


async def test_files_in_the_data_directory_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    async with embedded_server(tmp_path) as server, Redis.from_url(server.url) as client:
        assert await client.ping()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["appendonlydir", "file"]


def test_a_folder_that_was_removed_when_it_was_locked_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, flock = tmp_path / "folder", fcntl.flock

    def flock_after_its_holder_left(descriptor: int, operation: int) -> None:
        folder.rmdir()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock_after_its_holder_left)
    assert take_lock(folder) is None


async def test_a_directory_that_is_removed_and_created_again_has_another_server(tmp_path: Path) -> None:
    async with embedded_server(tmp_path / "data") as server:
        shutil.rmtree(tmp_path / "data")
        async with embedded_server(tmp_path / "data") as other, Redis.from_url(other.url) as client:
            assert other.pid != server.pid
            assert await client.set("key", "value")


async def test_a_directory_in_use_with_another_temp_folder_is_refused(
    private_temp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (private_temp / "other").mkdir()
    async with embedded_server(tmp_path) as server, Redis.from_url(server.url) as client:
        monkeypatch.setattr(tempfile, "tempdir", str(private_temp / "other"))
        with pytest.raises(EmbeddedServerError, match="the directory is in use with another TMPDIR"):
            async with embedded_server(tmp_path, start_timeout=0.2):
                pass
        assert await client.ping()
    (private_temp / "other").rmdir()


@pytest.fixture
async def orphan(private_temp: Path, tmp_path: Path) -> AsyncIterator[subprocess.Popen[bytes]]:
    """A server whose supervisor was killed, as on macOS, where nothing ends it then; here it never had one."""
    name, _ = name_and_parent(tmp_path, shared_by_workers=False)
    folder, data_lock = runtime_folder() / name, take_lock(tmp_path)
    folder.mkdir(mode=0o700)
    assert data_lock is not None
    options = {"port": "0", "unixsocket": str(folder / SERVER_SOCKET), "dir": str(tmp_path), "appendonly": "yes"}
    command = [str(find_server_binary()), *(part for name in options for part in (f"--{name}", options[name]))]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, pass_fds=(data_lock,))
    os.close(data_lock)
    (folder / PROCESS_IDS).write_text(f"[{process.pid}, 0]")
    try:
        await eventually((folder / SERVER_SOCKET).exists)
        async with Redis(unix_socket_path=str(folder / SERVER_SOCKET)) as client:
            await client.set("key", "value")
        yield process
    finally:
        process.kill()
        process.wait()


async def test_a_server_that_outlived_its_supervisor_is_used_again_and_ended_by_its_last_user(
    orphan: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    async with embedded_server(tmp_path) as server, Redis.from_url(server.url) as client:
        assert server.pid == orphan.pid
        assert await client.get("key") == b"value"
    assert orphan.wait(SOON) == 0
    async with embedded_server(tmp_path) as server, Redis.from_url(server.url) as client:
        assert await client.get("key") == b"value"


async def test_a_server_that_outlived_its_supervisor_and_users_is_ended_by_the_next_start(
    orphan: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    async with embedded_server():
        assert orphan.wait(SOON) == 0
    async with embedded_server(tmp_path) as server, Redis.from_url(server.url) as client:
        assert await client.get("key") == b"value"


async def test_the_data_of_a_server_that_outlived_its_supervisor_is_not_opened_by_another(
    orphan: subprocess.Popen[bytes], private_temp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (private_temp / "other").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(private_temp / "other"))
    with pytest.raises(EmbeddedServerError, match="in use"):
        async with embedded_server(tmp_path, start_timeout=0.2):
            pass
    assert orphan.poll() is None
    (private_temp / "other").rmdir()
    monkeypatch.setattr(tempfile, "tempdir", str(private_temp))
    async with embedded_server():
        pass
