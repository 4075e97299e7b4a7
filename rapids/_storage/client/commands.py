"""What servers answer: values, and errors told apart by what is to be done about them."""

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
    """A connection as its server knows it: by a number, which means nothing to the server's next run."""

    number: int
    run_id: bytes


class AnswerLostError(RedisConnectionError):
    """Commands were sent and their answers did not come: whether they were carried out is not known.

    `client` is the connection they went out on, None where the server was not asked for its number. `is_under_way`:
    whether they may be carried out later yet.
    """

    def __init__(self, message: str, client: ServerClient | None = None, *, is_under_way: bool = True) -> None:
        super().__init__(message)  # pyright: ignore[reportUnknownMemberType] - untyped there
        self.client = client
        self.is_under_way = is_under_way


class Commands(Protocol):
    """Something that sends commands in one round trip."""

    async def send(self, commands: Sequence[Command]) -> list[Reply]:
        """The answers in order; an error answer is in the list, not raised. Raises `RedisError` if there were none."""
        ...


async def call(commands: Commands, *command: bytes | str | int | float) -> Reply:
    """The answer to one command. Raises `RedisError` for an error answer too."""
    return checked((await commands.send([command]))[0])


def checked(reply: Reply) -> Reply:
    """The answer, unless it is an error: that is raised."""
    if isinstance(reply, Exception):
        raise reply
    return reply


async def run(commands: Commands, script: Script, calls: Iterable[tuple[Sequence[str], Command]]) -> list[Reply]:
    """Run a script once per (keys, arguments), all in one round trip, and two where the server did not know it yet.

    The answers are in order, error answers among them. An error of the script names the file and the line in it. Raises
    `RedisError` if there were none.
    """
    requests = [["EVALSHA", script.sha, len(keys), *keys, *arguments] for keys, arguments in calls]
    replies = await commands.send(requests)
    if unknown := _unknown(replies):
        again = await commands.send([("SCRIPT", "LOAD", script.source), *(requests[at] for at in unknown)])
        checked(again[0])
        _replace(replies, unknown, again[1:])
    if unknown := _unknown(replies):
        # While a slot moves, a Cluster's node sends some calls on to another, which the loading did not reach.
        whole = [("EVAL", script.source, *requests[at][2:]) for at in unknown]
        _replace(replies, unknown, await commands.send(whole))
    for reply in replies:
        if isinstance(reply, ResponseError):
            reply.args = (script.located(str(reply)),)
    return replies


def whole_call(script: Script, keys: Sequence[str], *arguments: bytes | str | int | float) -> Command:
    """A call of a script that any server can carry out, in one command: its text goes along."""
    return ("EVAL", script.source, len(keys), *keys, *arguments)


def _unknown(replies: Sequence[Reply]) -> list[int]:
    return [at for at, reply in enumerate(replies) if isinstance(reply, ResponseError) and is_no_script(reply)]


def _replace(replies: list[Reply], positions: Sequence[int], by: Sequence[Reply]) -> None:
    for at, reply in zip(positions, by, strict=True):
        replies[at] = reply


def run_id_in(info: Reply) -> bytes:
    """What tells a server's run from its next one, in its answer to INFO; empty where it does not say."""
    lines: list[bytes] = info.splitlines() if isinstance(info, bytes) else []
    return next((line.removeprefix(b"run_id:") for line in lines if line.startswith(b"run_id:")), b"")
