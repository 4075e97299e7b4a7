"""Appending for the emitter: how entries are packed and sent, and how they are found after a lost answer."""

import asyncio
from collections.abc import Sequence
from typing import cast
from weakref import WeakKeyDictionary

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AuthenticationError, BusyLoadingError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from rapids._storage import scripts
from rapids._storage.client.commands import (
    AnswerLostError,
    Command,
    Commands,
    Reply,
    ServerClient,
    call,
    cancellations,
    check_cancelled,
    checked,
    follow,
    pack,
    round_trip,
    run,
    run_id_in,
    whole_call,
)
from rapids._storage.client.connections import Client, place_of

__all__ = ["EntryPacker", "LentConnection", "append", "find_events", "kill_client", "replicated"]


class EntryPacker:
    """Packs entries of one stream with the same fields, in a third of the time that the general `pack` needs.

    `maxlen` (entries): the length that the stream is trimmed to, in whole nodes; None for no limit.
    """

    def __init__(self, stream: str, names: Sequence[bytes], maxlen: int | None) -> None:
        trim = () if maxlen is None else (b"MAXLEN", b"~", b"%d" % maxlen)
        head = [b"XADD", stream.encode(), *trim, b"*"]
        start = b"*%d\r\n" % (len(head) + 2 * len(names)) + b"".join(map(_bulk, head))
        fields = b"".join(_bulk(name).replace(b"%", b"%%") + b"$%d\r\n%b\r\n" for name in names)
        self._template = start.replace(b"%", b"%%") + fields

    def pack(self, values: Sequence[bytes]) -> bytes:
        """One XADD with these values, in the order of the names."""
        return self._template % tuple([part for value in values for part in (len(value), value)])


def _bulk(text: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text), text)


class LentConnection:
    """A connection of a user's pool, kept by one task from the first command until `return_connection`.

    It knows its client id on the server, so that an `AnswerLostError` can name it.
    """

    def __init__(self, client: Client, key: str) -> None:
        self._place = place_of(client, key)
        self._connection: AbstractConnection | None = None
        self._clients: WeakKeyDictionary[AbstractConnection, ServerClient] = WeakKeyDictionary()
        self._client: ServerClient | None = None
        """The present connection as its server knows it; None if it must be connected first."""
        self.deadline: float | None = None
        """The event loop's time at which connecting, and waiting for answers, fails; None for the client's limits."""

    @property
    def is_ready(self) -> bool:
        """Whether it is connected and knows its client id, so that commands are sent at once."""
        return self._client is not None and cast(AbstractConnection, self._connection).is_connected

    async def connect(self) -> None:
        """Borrow a connection, and ask for its client id. Raises `RedisError`."""
        try:
            async with asyncio.timeout_at(self.deadline):
                await self.return_connection()
                before = cancellations()
                connection = self._connection = await self._place.borrow()
                check_cancelled(before)
                if (client := self._clients.get(connection)) is not None:
                    self._client = client
                    return
                connection.register_connect_callback(self._forget)  # pyright: ignore[reportUnknownMemberType] - untyped there
                number, info = await round_trip(connection, [pack([("CLIENT", "ID")]), pack([("INFO", "server")])])
                self._client = self._clients[connection] = ServerClient(checked(number), run_id_in(info))
        except BaseException as error:
            self._place.doubt()
            await self.return_connection()  # the pool reconnects it
            if isinstance(error, TimeoutError):
                raise RedisTimeoutError("Redis was not connected in time") from error
            raise

    async def send(self, commands: Sequence[Command]) -> list[Reply]:
        return await self.send_packed([pack([command]) for command in commands])

    async def send_packed(self, packed: Sequence[bytes], after: Sequence[Command] = ()) -> list[Reply]:
        """The answers to packed commands, and to the commands `after` them, which ask about them (WAIT).

        Raises `AnswerLostError` if they were sent and an answer did not come, another `RedisError` if not sent.
        """
        last = [pack([command]) for command in after]
        replies = await self._sent([*packed, *last])
        if not [reply for reply in replies if isinstance(reply, Exception)]:
            return replies
        try:
            async with asyncio.timeout_at(self.deadline):
                return await follow(self._place, replies, packed, self._sent_again, last)
        except TimeoutError as error:
            raise AnswerLostError("the Cluster's nodes did not answer in time") from error
        except AnswerLostError:
            raise
        except (RedisError, OSError) as error:  # answered commands have run, and the others were never sent on
            raise AnswerLostError(str(error), is_under_way=False) from error

    async def return_connection(self) -> None:
        """Return the connection to the pool."""
        connection, self._connection, self._client = self._connection, None, None
        if connection is not None:
            await self._place.return_connection(connection)

    async def drop_connection(self) -> None:
        """Close the connection, and return it to the pool."""
        if self._connection is not None:
            await self._connection.disconnect(nowait=True)
        await self.return_connection()

    async def leave_loop(self) -> None:
        """Use no connection of an event loop that has ended."""
        self._connection = self._client = None
        await self._place.leave_loop()

    @property
    def is_wanted(self) -> bool:
        """Whether the pool has no other free connection, so that this one should be returned."""
        return not self._place.can_lend()

    async def _sent_again(self, packed: Sequence[bytes]) -> list[Reply]:
        await self.return_connection()  # the next connection goes to the key's present place
        return await self._sent(packed)

    async def _sent(self, packed: Sequence[bytes]) -> list[Reply]:
        if not self.is_ready:
            await self.connect()
        try:
            return await self._answers(cast(AbstractConnection, self._connection), packed)
        except BaseException:
            self._place.doubt()
            await self.return_connection()  # the pool reconnects it
            raise

    async def _answers(self, connection: AbstractConnection, packed: Sequence[bytes]) -> list[Reply]:
        try:
            return await round_trip(connection, packed, self.deadline)
        except (RedisConnectionError, RedisTimeoutError, OSError) as error:
            # Two of them are answers, although redis-py raises them as connection errors and drops the other answers.
            if isinstance(error, BusyLoadingError | AuthenticationError) and len(packed) == 1:
                raise
            raise AnswerLostError(str(error), self._clients.get(connection)) from error

    def _forget(self, connection: AbstractConnection) -> None:
        self._clients.pop(connection, None)  # it was reconnected and has another client id
        if connection is self._connection:
            self._client = None


async def append(
    commands: LentConnection, packed: Sequence[bytes], *, replicas: int = 0, replication_timeout_ms: int = 0
) -> list[Reply]:
    """Append entries, packed by an `EntryPacker`, in order, in one round trip. Returns an entry id or error for each.

    With `replicas`, one more answer is the number of replicas that confirmed all of them within
    `replication_timeout_ms` milliseconds (WAIT). Raises `RedisError` if no answer came.
    """
    wait = [("WAIT", replicas, replication_timeout_ms)] if replicas else []
    return await commands.send_packed(packed, after=wait)


async def replicated(commands: LentConnection, stream: str, *, replicas: int, timeout_ms: int) -> int:
    """How many replicas have the present content of the stream, after at most `timeout_ms` milliseconds (WAIT).

    WAIT covers only writes of its own connection, so a write that changes nothing is sent before it.
    """
    touch = pack([whole_call(scripts.load("touch"), (stream,))])
    touched, confirmed = await commands.send_packed([touch], after=[("WAIT", replicas, timeout_ms)])
    checked(touched)
    return checked(confirmed)


async def find_events(
    commands: Commands, stream: str, after: str, event_ids: Sequence[str], *, age_ms: int, most: int = 10_000
) -> tuple[list[tuple[str, str]], bool]:
    """Event ids and entry ids of these events among the entries after one entry, and whether the search was complete.

    It is incomplete if there are more than `most` entries, or if entries no older than `age_ms` milliseconds may have
    been trimmed already. None of the events is older than that.
    """
    call_ = ((stream,), (after, most, age_ms, *event_ids))
    *found, complete = checked((await run(commands, scripts.load("find_events"), [call_]))[0])
    pairs = zip(found[::2], found[1::2], strict=True)
    return [(event_id.decode(), entry_id.decode()) for event_id, entry_id in pairs], complete == 1


async def kill_client(commands: Commands, client: ServerClient) -> None:
    """Close a connection from the server's side. The commands sent over it have run by then, or never run.

    After a restart of the server, the number belongs to another connection; this one ended with the server's last run.
    """
    if run_id_in(await call(commands, "INFO", "server")) == client.run_id:
        await call(commands, "CLIENT", "KILL", "ID", client.number)
