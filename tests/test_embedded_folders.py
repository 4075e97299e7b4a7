"""Where embedded servers live: any path, and nobody else's folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from redis.asyncio import Redis

from rapids.embedded import (
    EmbeddedServerError,
    embedded_server,
)

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
