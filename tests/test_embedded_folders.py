"""Where embedded servers live: any path, and nobody else's folder."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from redis.asyncio import Redis

from rapids.embedded import EmbeddedServerError, embedded_server, find_server_binary
from rapids.embedded_folders import make_server_folder, name_folder, take_lock
from rapids.embedded_supervisor import Orders, server_command
from tests.support import eventually

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("private_temp")]


@pytest.mark.parametrize("kind", ["open to others", "a link", "a file"])
async def test_a_runtime_folder_others_could_use_is_refused(kind: str, private_temp: Path) -> None:
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


async def test_a_runtime_folder_of_somebody_else_is_refused(
    private_temp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    somebody = os.getuid() + 1
    (private_temp / f"rapids-{somebody}").mkdir(mode=0o700)
    monkeypatch.setattr(os, "getuid", lambda: somebody)
    with pytest.raises(EmbeddedServerError, match="is not a folder that only you can use"):
        async with embedded_server():
            pass
    (private_temp / f"rapids-{somebody}").rmdir()


async def test_a_lock_file_that_names_another_folder_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # which an empty name stands for
    precious = tmp_path / "precious"
    precious.mkdir(mode=0o700)
    (precious / "file").touch()
    (tmp_path / "data").mkdir()
    for content in (os.fsencode(precious), b"\xff\x00/../..", b""):
        (tmp_path / "data" / "rapids.lock").write_bytes(content)
        async with embedded_server(tmp_path / "data") as server, Redis.from_url(server.url) as client:
            assert await client.ping()
    assert [path.name for path in precious.iterdir()] == ["file"]


def test_a_lock_that_was_removed_when_it_was_got_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, flock = tmp_path / "lock", fcntl.flock

    def flock_after_its_holder_left(descriptor: int, operation: int) -> None:
        path.unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock_after_its_holder_left)
    assert take_lock(path) is None


async def test_a_server_that_outlived_its_supervisor_is_ended_before_its_data_is_opened_again(
    private_temp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS, where nothing ends it; here it is one that never had a supervisor."""
    (private_temp / "other").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(private_temp / "other"))
    folder, alive = make_server_folder()
    lock = take_lock(tmp_path / "rapids.lock")
    assert lock is not None
    name_folder(lock, folder)
    orders = Orders(str(find_server_binary()), str(folder), str(tmp_path), None, 0, None, 1.0)
    orphan = subprocess.Popen(server_command(orders), stdout=subprocess.DEVNULL)
    try:
        await eventually((folder / "valkey.sock").exists)
        async with Redis(unix_socket_path=str(folder / "valkey.sock")) as client:
            await client.set("key", "value")
        os.close(alive)
        os.close(lock)
        monkeypatch.setattr(tempfile, "tempdir", str(private_temp))
        async with embedded_server(tmp_path) as server, Redis.from_url(server.url) as client:
            assert orphan.wait(5) == 0
            assert await client.get("key") == b"value"
    finally:
        orphan.kill()
        orphan.wait()
    (private_temp / "other").rmdir()
