"""Replays dead letters in processes of their own, each of which may be killed between two commands, as `kill -9` does.

Run as a script with jobs as JSON on its input; prints what became of each. It forks a process for each job, all at the
same time: so much quicker than starting Python for each.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from redis.asyncio.connection import AbstractConnection

sys.path.insert(0, ".")

from rapids import DeadLetterQueue
from rapids.exceptions import LetterStateError
from tests.servers.client import connected
from tests.worker.helpers import DvOrder

__all__ = ["DvOrder", "Ended", "Job", "apart", "replay"]  # the class that other data must fit is registered here

OF_CONNECTIONS = {b"HELLO", b"AUTH", b"SELECT", b"CLIENT", b"CLUSTER", b"COMMAND", b"PING", b"READONLY", b"INFO"}
"""Commands that connect and look around, of which there may be more or fewer: not counted, they change nothing."""


@dataclass(frozen=True)
class Job:
    """A letter to replay, and the command (from 1) before which the process is killed; 0: it is not.

    `answered`: killed not before that command is sent, but when its answer has come, and before anything sees it.
    `data`: other data to replay it with.
    """

    url: str
    dlq: str
    letter_id: str
    killed_at: int = 0
    answered: bool = False
    data: dict[str, Any] | None = None


@dataclass(frozen=True)
class Ended:
    """How the process of a job ended: `replayed`, `killed`, or the state of a letter that was not dead any more."""

    how: str
    commands: int = 0
    """How many were sent, by a process that was not killed."""


async def replay(jobs: Sequence[Job]) -> list[Ended]:
    """Have each letter replayed by a process of its own, all at the same time."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate(json.dumps([asdict(job) for job in jobs]).encode())
    assert process.returncode == 0, "see what it said on stderr"
    return [Ended(**one) for one in json.loads(output)]


# --- in the script --------------------------------------------------------------------------------------------------


class Axe:
    """Counts the commands of this process, and ends it at one of them."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.commands = 0

    def hang(self) -> None:
        """Over every connection of this process."""
        send = AbstractConnection.send_packed_command

        async def send_and_count(connection: AbstractConnection, packed: Any, *rest: Any, **options: Any) -> None:
            """One command after another, also those of one packet: a server may have got some of them only."""
            for sent, command in enumerate(apart(packed if isinstance(packed, bytes) else b"".join(packed))):
                is_last = _name(command) not in OF_CONNECTIONS and self._is_last()
                if is_last and not self._job.answered:
                    await self._fall(connection, sent)
                await send(connection, command, *rest, **options)
                if is_last:
                    await self._fall(connection, sent + 1)

        AbstractConnection.send_packed_command = send_and_count  # type: ignore[method-assign]

    def _is_last(self) -> bool:
        self.commands += 1
        return self.commands == self._job.killed_at

    async def _fall(self, connection: AbstractConnection, answers: int) -> None:
        for _ in range(answers):  # what was sent is carried out by then
            await connection.read_response(disable_decoding=True)
        os.kill(os.getpid(), signal.SIGKILL)


def apart(packed: bytes) -> Iterator[bytes]:
    """The commands in a packet (https://redis.io/docs/latest/develop/reference/protocol-spec/#sending-commands-to-a-redis-server)."""
    at = 0
    while at < len(packed):
        begin, end = at, packed.index(b"\r\n", at)
        parts, at = int(packed[at + 1 : end]), end + 2
        for _ in range(parts):
            end = packed.index(b"\r\n", at)
            at = end + 2 + int(packed[at + 1 : end]) + 2
        yield packed[begin:at]


def _name(command: bytes) -> bytes:
    return command.split(b"\r\n")[2].upper()


async def _replay(job: Job) -> Ended:
    axe = Axe(job)
    axe.hang()
    async with connected(job.url) as redis:
        try:
            await DeadLetterQueue(redis, job.dlq).replay(job.letter_id, actor="somebody", data=job.data)
        except LetterStateError as error:
            return Ended(error.state, axe.commands)
        return Ended("replayed", axe.commands)


def _forked(job: Job) -> tuple[int, int]:
    """The process of a job, and where to read how it ended, if it can tell."""
    reading, writing = os.pipe()
    if child := os.fork():
        os.close(writing)
        return child, reading
    try:
        os.write(writing, json.dumps(asdict(asyncio.run(_replay(job)))).encode())
        os._exit(0)
    finally:  # an error is printed, and the others are not to be waited for by this process
        os._exit(1)


def _ended(child: int, reading: int) -> Ended:
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as answer:
        if os.waitstatus_to_exitcode(status) == -signal.SIGKILL:
            return Ended("killed")
        return Ended(**json.loads(answer.read() or b'{"how": "failed"}'))


if __name__ == "__main__":
    children = [_forked(Job(**job)) for job in json.load(sys.stdin)]
    print(json.dumps([asdict(_ended(*child)) for child in children]))
