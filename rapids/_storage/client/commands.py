"""Commands and scripts: how they are sent, and the errors if their answers are lost."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from rapids._core.redis_errors import is_no_script
from rapids._storage.client.protocol import Command, Reply
from rapids._storage.scripts import Script

__all__ = [
    "AnswerLostError",
    "Commands",
    "Reply",
    "ServerClient",
    "call",
    "checked",
    "run",
    "run_id_in",
]


@dataclass(frozen=True, slots=True)
class ServerClient:
    """A connection as its server knows it: by a client id, which is valid only until the server restarts."""

    number: int
    run_id: bytes


class AnswerLostError(RedisConnectionError):
    """Commands were sent and their answers did not come, so it is unknown whether they have run.

    `client` is the connection that sent them; None if its client id is unknown. `is_under_way`: whether they may still
    run later.
    """

    def __init__(self, message: str, client: ServerClient | None = None, *, is_under_way: bool = True) -> None:
        super().__init__(message)  # pyright: ignore[reportUnknownMemberType] - untyped there
        self.client = client
        self.is_under_way = is_under_way


class Commands(Protocol):
    """Something that sends commands in one round trip."""

    async def send(self, commands: Sequence[Command]) -> list[Reply]:
        """The answers in order. Error answers are in the list, not raised. Raises `RedisError` if no answers came."""
        ...


async def call(commands: Commands, *command: bytes | str | int | float) -> Reply:
    """The answer to one command. Raises `RedisError`, also for an error answer."""
    return checked((await commands.send([command]))[0])


def checked(reply: Reply) -> Reply:
    """The answer. Raises it if it is an error."""
    if isinstance(reply, Exception):
        raise reply
    return reply


async def run(commands: Commands, script: Script, calls: Iterable[tuple[Sequence[str], Command]]) -> list[Reply]:
    """Run a script once for each (keys, arguments), in one round trip, or in two if the server did not know it yet.

    The answers are in order and include error answers. An error of the script has the file and line of its position.
    Raises `RedisError` if no answers came.
    """
    requests = [["EVALSHA", script.sha, len(keys), *keys, *arguments] for keys, arguments in calls]
    replies = await commands.send(requests)
    if unknown := _unknown(replies):
        again = await commands.send([("SCRIPT", "LOAD", script.source), *(requests[at] for at in unknown)])
        checked(again[0])
        _replace(replies, unknown, again[1:])
    if unknown := _unknown(replies):
        # While a slot moves, a Cluster's node redirects some calls to another node, which has not loaded the script.
        whole = [("EVAL", script.source, *requests[at][2:]) for at in unknown]
        _replace(replies, unknown, await commands.send(whole))
    for reply in replies:
        if isinstance(reply, ResponseError):
            reply.args = (script.located(str(reply)),)
    return replies


def whole_call(script: Script, keys: Sequence[str], *arguments: bytes | str | int | float) -> Command:
    """A call of a script in one command that works on any server, since it sends the text of the script."""
    return ("EVAL", script.source, len(keys), *keys, *arguments)


def _unknown(replies: Sequence[Reply]) -> list[int]:
    return [at for at, reply in enumerate(replies) if isinstance(reply, ResponseError) and is_no_script(reply)]


def _replace(replies: list[Reply], positions: Sequence[int], by: Sequence[Reply]) -> None:
    for at, reply in zip(positions, by, strict=True):
        replies[at] = reply


def run_id_in(info: Reply) -> bytes:
    """The run id in a server's answer to INFO, which changes with each restart; empty if it is missing."""
    lines: list[bytes] = info.splitlines() if isinstance(info, bytes) else []
    return next((line.removeprefix(b"run_id:") for line in lines if line.startswith(b"run_id:")), b"")
