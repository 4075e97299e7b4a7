"""A server that dies in a replay: its append-only file may end after any command, also in the middle of a script.

With `appendfsync always` what was answered is in the file, and of what was under way there may be a beginning.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from tests.cluster.replay_processes import apart
from tests.cluster.replay_service import ReplayService
from tests.servers.builds import Build
from tests.servers.cluster import Cluster
from tests.support import PATIENCE
from tests.worker.helpers import DLQ

SYNCED = {"appendfsync": "always"}


class OneNode(Cluster):
    """All slots on one node, so that what is done in one slot and then in another is in one file, in order."""

    def __init__(self, build: Build) -> None:
        super().__init__(build, masters=1, replicas=0, settings=SYNCED)

    @property
    def folder(self) -> Path:
        return self.nodes[0].folder

    @property
    def file(self) -> Path:
        """Its append-only file, or the part of it that grows."""
        [found] = [*self.folder.glob("appendonlydir/*.incr.aof"), *self.folder.glob("appendonly.aof")]
        return found


class Copy(OneNode):
    """One that comes up with what another had, the append-only file cut."""

    def __init__(self, build: Build, original: OneNode, size: int) -> None:
        super().__init__(build)
        shutil.copytree(original.folder, self.folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node.*"))
        with self.file.open("r+b") as file:
            file.truncate(size)

    async def start(self) -> None:
        await self.nodes[0].start()
        await self.until_whole()


def ends_of_commands(file: Path, after: int) -> Iterator[int]:
    """Where the file could be cut so that it ends with a whole command, from `after` to the very end."""
    yield after
    for command in apart(file.read_bytes()[after:]):
        after += len(command)
        yield after


async def test_a_letter_is_replayed_once_wherever_the_append_only_file_ends(
    build: Build,
) -> None:
    async with OneNode(build) as original:
        async with original.client() as redis:
            service = ReplayService(redis, DLQ)
            [letter_id] = await service.letters(1)
            before = original.file.stat().st_size
            await service.queue.replay(letter_id)
        original.nodes[0].kill()
        sizes = list(ends_of_commands(original.file, before))
        assert sizes[-1] == original.file.stat().st_size
        states = await asyncio.gather(*(in_copy(Copy(build, original, size), letter_id) for size in sizes))
    changes = sum(one != other for one, other in pairwise(states))
    assert (states[0], changes, states[-1]) == ("dead", 1, "replayed")


async def in_copy(copy: Copy, letter_id: str) -> str:
    """The letter's state once a server has come up with what is in the file. What is promised of it is looked at."""
    async with copy, copy.client(socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE) as redis:
        service = ReplayService(redis, DLQ)
        state, times = (await service.queue.get(letter_id)).state, await service.times_replayed()
        assert await service.listed() == ({letter_id} if state == "dead" else set())
        assert times in ({letter_id: 1}, *([{}] if state == "dead" else []))
        if state == "dead":
            await service.queue.replay(letter_id)
        assert await service.listed() == set()
        assert await service.times_replayed() == {letter_id: 1}
        assert (await service.queue.get(letter_id)).state == "replayed"
        await service.handle_replays()
        assert service.handled == Counter([0])
        return state
