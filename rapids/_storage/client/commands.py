"""Commands and scripts: how they are packed, sent, answered, and sent on to another node of a Cluster.

Commands are arrays of bulk strings, each with its length before it: see
https://redis.io/docs/latest/develop/reference/protocol-spec/#arrays. Text is always UTF-8. redis-py's own
`execute_command` decodes as the user's client is configured, and itself repeats commands after a time-out. An event
must not be decoded twice or stored twice, so commands are sent on connections directly.

A Cluster's node may answer that another node must be asked: MOVED if the slot has moved, ASK while it moves. See
https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#redirection-and-resharding.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, cast

import hiredis
from redis.asyncio.connection import AbstractConnection, DefaultParser
from redis.exceptions import AskError, ClusterDownError, MovedError, ReadOnlyError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from rapids._core.redis_errors import is_no_script
from rapids._storage.scripts import Script

__all__ = [
    "TOO_LATE",
    "AnswerLostError",
    "Arrivals",
    "Command",
    "Commands",
    "Guide",
    "Reply",
    "Send",
    "ServerClient",
    "answers",
    "call",
    "cancellations",
    "check_cancelled",
    "checked",
    "follow",
    "is_redirected",
    "pack",
    "round_trip",
    "run",
    "run_id_in",
    "send",
    "time_limit",
]

TOO_LATE = "Redis did not answer in time"

Command: TypeAlias = Sequence[bytes | str | int | float]
Reply: TypeAlias = Any


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


_packed = cast(Callable[[tuple[Any, ...]], bytes], hiredis.pack_command)  # pyright: ignore[reportUnknownMemberType] - typed there as taking one argument


def pack(commands: Iterable[Command]) -> bytes:
    """Commands packed one after another. hiredis packs them in a tenth of the time that redis-py needs."""
    return b"".join([_packed(tuple(command)) for command in commands])


OFTEN = 0.1
"""After this share of the limit, arrivals extend it again: each small answer would otherwise pay for that."""


class Arrivals:
    """The arrivals on one connection. While bytes come, they extend the time limit of the running command."""

    def __init__(self, seconds: float) -> None:
        """`seconds`: how long nothing may arrive."""
        self._seconds = seconds
        self.limit: asyncio.Timeout | None = None
        """The time limit of the command that was sent last."""
        self.first_at: float | None = None
        """When the first bytes of the awaited answer came (`time.monotonic()`, seconds); None before that."""
        self.last_at = -math.inf
        """When any bytes last came (`time.monotonic()`, seconds)."""

    def note(self) -> None:
        """Note that bytes came."""
        self.last_at = time.monotonic()
        if self.first_at is None:
            self.first_at = self.last_at
        limit = self.limit
        if limit is None or (ends_at := limit.when()) is None:
            return
        later = asyncio.get_running_loop().time() + self._seconds
        if later - ends_at > OFTEN * self._seconds:
            with suppress(RuntimeError):  # it has ended, or is ending
                limit.reschedule(later)

    def parser_class(self, of_user: Any = None) -> Any:
        """The parser class of the connection: redis-py's or the user's, which also notes arrivals.

        A parser that does not read in parts, as those in pure Python, is returned as it is.
        """
        parser: Any = of_user or DefaultParser
        if not hasattr(parser, "read_from_socket"):
            return parser

        async def read_from_socket(self_: Any) -> Any:
            arrived = await parser.read_from_socket(self_)
            self.note()
            return arrived

        return type(parser.__name__, (parser,), {"read_from_socket": read_from_socket})


def cancellations() -> int:
    """How many times the current task was cancelled and has not dealt with it yet, for `check_cancelled`."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def check_cancelled(before: int) -> None:
    """Raise `CancelledError` if the current task was cancelled since `before`, and did not notice.

    redis-py limits the time to send with `asyncio.wait_for`, also what it sends when it connects. Before Python 3.12 it
    hides a cancellation that arrives when the sending has just ended (https://github.com/python/cpython/issues/86296).
    """
    if cancellations() > before:
        raise asyncio.CancelledError


async def send(connection: AbstractConnection, packed: bytes) -> None:
    """Send packed commands inside a `time_limit`. redis-py's own limit costs a timer, and before Python 3.12 a task."""
    limit, connection.socket_timeout = connection.socket_timeout, None
    try:
        await connection.send_packed_command(packed)
    finally:
        connection.socket_timeout = limit


async def round_trip(
    connection: AbstractConnection,
    packed: Sequence[bytes],
    deadline: float | None = None,
    arrivals: Arrivals | None = None,
) -> list[Reply]:
    """The answers to packed commands. `deadline`: the event loop's time at which it gives up, if not sooner.
    `arrivals`: those of the connection, if they extend its time limit.

    Raises `RedisError` or `OSError` if they did not come.
    """
    try:
        async with time_limit(connection, deadline, arrivals):
            await send(connection, b"".join(packed))
            return await answers(connection, len(packed))
    except TimeoutError as error:
        raise RedisTimeoutError(TOO_LATE) from error


def time_limit(
    connection: AbstractConnection, deadline: float | None = None, arrivals: Arrivals | None = None
) -> asyncio.Timeout:
    """One time limit for all answers: redis-py's own limit for each answer costs more than reading an answer.

    The block raises `TimeoutError` then.
    """
    limit = connection.socket_timeout
    if limit is not None:
        limit += asyncio.get_running_loop().time()
        if deadline is None or limit < deadline:
            deadline = limit
    time_limit = asyncio.timeout_at(deadline)
    if arrivals is not None:
        arrivals.limit, arrivals.first_at = time_limit, None
    return time_limit


async def answers(connection: AbstractConnection, count: int) -> list[Reply]:
    """The next `count` answers, including error answers."""
    replies: list[Reply] = []
    is_over = False
    for _ in range(count):
        try:
            replies.append(await connection.read_response(disable_decoding=True, timeout=math.inf))
        except ResponseError as error:
            replies.append(error)
            # The master may be a replica after a failover: the name may resolve to another server next time. After a
            # protocol error, such as an argument above `proto-max-bulk-len`, the server itself closes the connection.
            is_over = is_over or isinstance(error, ReadOnlyError) or "Protocol error" in str(error)
    if is_over:
        await connection.disconnect(nowait=True)
    return replies


def is_redirected(replies: Sequence[Reply]) -> bool:
    """Whether an answer says that another node must be asked."""
    return any(isinstance(reply, AskError) for reply in replies)


ROUNDS = 5
"""How often commands are sent on. If the nodes still disagree then, they will agree later."""
PAUSE = 0.02
"""Seconds before the second round, doubled for each further round: nodes need time to learn about a slot."""

Send: TypeAlias = Callable[[Sequence[bytes]], Awaitable[list[Reply]]]


class Guide(Protocol):
    """Knows which server has a key."""

    def doubt(self) -> None:
        """Note that the server may be gone or may no longer have the key: check before the next connection."""
        ...

    async def moved(self, error: MovedError) -> None:
        """Note that another node has the slot now. Raises `RedisError` if no node knows that one."""
        ...

    async def ask(self, error: AskError, packed: Sequence[bytes], after: Sequence[bytes]) -> list[Reply]:
        """Send commands on to the node that a slot moves to, and return its answers. Raises `RedisError`."""
        ...


async def follow(
    guide: Guide, replies: Sequence[Reply], packed: Sequence[bytes], again: Send, after: Sequence[bytes] = ()
) -> list[Reply]:
    """The answers, including those to commands that were sent on.

    `again` sends commands to the node that then has the slot. `after`: commands after the others that return a number
    about earlier commands of the same connection, such as WAIT. They are sent again, and the smallest number counts.
    Raises `RedisError` if an answer did not come.
    """
    replies = list(replies)
    if not [reply for reply in replies if isinstance(reply, Exception)]:
        return replies
    for round_ in range(ROUNDS):
        sent_on = [at for at, reply in enumerate(replies[: len(packed)]) if isinstance(reply, AskError)]
        if not sent_on:
            break
        if round_:
            await asyncio.sleep(PAUSE * round_)
        error: AskError = replies[sent_on[0]]
        # One kind at a time: a command's answer may change from one kind to the other between rounds.
        same = [at for at in sent_on if isinstance(replies[at], MovedError) == isinstance(error, MovedError)]
        wanted = [packed[at] for at in same]
        if isinstance(error, MovedError):
            await guide.moved(error)
            answers = await again([*wanted, *after])
        else:
            answers = await guide.ask(error, wanted, after)
        for at, answer in zip(same, answers, strict=False):
            replies[at] = answer
        if after:
            replies[len(packed) :] = [
                one if isinstance(one, Exception) else other if isinstance(other, Exception) else min(one, other)
                for one, other in zip(replies[len(packed) :], answers[len(same) :], strict=True)
            ]
    if any(isinstance(reply, ClusterDownError) for reply in replies):
        guide.doubt()
    return replies
