"""The node of a Cluster that has a key: the master of the key's slot, found through the user's client.

The master changes after a failover or when the slot moves. redis-py asks one node after another and waits up to the
user's `socket_timeout` for each, or forever without one. A node on a lost machine does not refuse a connection: it does
not answer. So if the master is in doubt, this module asks the nodes.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, cast
from weakref import WeakKeyDictionary

from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection
from redis.exceptions import AskError, MaxConnectionsError, MovedError, RedisClusterException, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from rapids._storage.client.commands import AnswerLostError, Arrivals, Reply, checked, pack, round_trip
from rapids._storage.client.pools import forget_certificates, looked_up_apart, own_options, ready, when_free

__all__ = ["ClusterPlace"]

NODE_TIME = 1.0
"""Seconds that a node has to answer which node has which slots, before another node is asked."""
TOPOLOGY_TIME = 10.0
"""Seconds that redis-py has to find the nodes."""


class ClusterPlace:
    """The master of a key's slot."""

    def __init__(self, client: RedisCluster, key: str) -> None:
        self._client = client
        self._key = key
        self._node: ClusterNode | None = None
        """The slot's master as far as it is known; None if it is in doubt."""
        self._doubted: str | None = None
        """The name of the node that did not work: it is asked last."""
        self._lent: WeakKeyDictionary[AbstractConnection, ClusterNode] = WeakKeyDictionary()
        # In older releases of redis-py, only the nodes manager has them, until it has found the other nodes.
        given = getattr(client, "startup_nodes", client.nodes_manager.startup_nodes.values())
        self._given = tuple((node.host, node.port) for node in given)
        """The addresses that the user gave. They may be names that lead to other nodes later."""

    @property
    def most(self) -> int:
        return cast(int, self._client.get_connection_kwargs().get("max_connections") or 2**31)

    async def borrow(self) -> AbstractConnection:
        """A connection to the master or, if it is gone, to the new master."""
        try:
            return await self._connected()
        except (RedisError, OSError):
            self.doubt()
            return await self._connected()

    async def _connected(self) -> Connection:
        node = await self._master()
        connection = await _acquired(node)
        self._lent[connection] = node
        try:
            await ready(connection)
        except BaseException:  # also if cancelled: the pool must not lose it
            await self.return_connection(connection)
            raise
        return connection

    async def return_connection(self, connection: AbstractConnection) -> None:
        if (node := self._lent.pop(connection, None)) is not None:
            node.release(cast(Connection, connection))

    def can_lend(self) -> bool:
        return True

    async def leave_loop(self) -> None:
        for node in self._client.get_nodes():
            with suppress(RuntimeError):
                await node.disconnect()

    async def new_connection(self, timeout: float, arrivals: Arrivals) -> AbstractConnection:
        node = await self._master()
        options: dict[str, Any] = own_options(node.connection_kwargs, timeout, arrivals)
        options.pop("redis_connect_func", None)  # the client's own, which would let a replica answer
        return node.connection_class(**options)

    def doubt(self) -> None:
        if self._node is not None:
            self._doubted, self._node = self._node.name, None

    async def moved(self, error: MovedError) -> None:
        self._node = await self._known(error)

    async def ask(self, error: AskError, packed: Sequence[bytes], after: Sequence[bytes]) -> list[Reply]:
        """The answers of the node that takes over the slot. It requires ASKING before each command.

        Raises `AnswerLostError` if they were sent and an answer did not come, another `RedisError` if not sent.
        """
        asking = pack([("ASKING",)])
        commands = [part for one in packed for part in (asking, one)]
        async with _borrowed(await self._known(error)) as connection:
            try:
                replies = await round_trip(connection, [*commands, *after])
            except (RedisError, OSError) as lost:
                raise AnswerLostError(str(lost)) from lost
        return [*replies[1 : len(commands) : 2], *replies[len(commands) :]]

    async def _known(self, error: AskError) -> ClusterNode:
        """The node that an answer names. No host means the host of the node that answered; no port: ask all nodes."""
        named = cast("str | None", error.host)  # pyright: ignore[reportUnknownMemberType] - untyped there
        host = named or (self._node.host if self._node else "")
        port: int = error.port
        if (node := self._at(host, port)) is None:  # it is new since the last query, or no node knows it
            await _known_to_client(self._client, refresh=True)
            node = self._at(host, port)
        if node is None:
            self.doubt()
            raise RedisConnectionError(f"the Cluster redirected to {host}:{port}, which is not one of its known nodes")
        return node

    def _at(self, host: str, port: int) -> ClusterNode | None:
        return self._client.get_node(*self._client.nodes_manager.remap_host_port(host, port))

    async def _master(self) -> ClusterNode:
        if self._node is None:
            try:
                await _known_to_client(self._client)
            except RedisError:
                self._ask_given()
                raise
            found = None if self._doubted is None else await self._asked_nodes(self._doubted)
            try:
                found = found or self._client.get_node_from_key(self._key)
            except RedisClusterException as error:
                raise RedisConnectionError(str(error)) from error
            if found is None:
                raise RedisConnectionError(f"no node of the Cluster is known to be the master for {self._key!r}")
            self._node = found
        return self._node

    async def _asked_nodes(self, doubted: str) -> ClusterNode | None:
        slot = self._client.keyslot(self._key)
        has_answer = False
        for node in sorted(self._client.get_nodes(), key=lambda one: one.name == doubted):
            try:
                async with asyncio.timeout(NODE_TIME), _borrowed(node) as connection:
                    slots: list[Any] = checked((await round_trip(connection, [pack([("CLUSTER", "SLOTS")])]))[0])
            except (RedisError, OSError):
                continue
            has_answer = True
            for first, last, (host, port, *_), *_ in slots:
                named = (host or b"").decode(errors="replace") or node.host
                if first <= slot <= last and (found := self._at(named, port)) is not None:
                    return found
        before = self._client.nodes_manager.startup_nodes
        try:
            if not has_answer:  # they may have other addresses now
                self._ask_given(instead_of=self._client.get_nodes())
            await _known_to_client(self._client, refresh=True)
        except BaseException:  # also if cancelled: the nodes known before stay known
            self._ask(before.values())
            raise
        return None

    def _ask_given(self, instead_of: Sequence[ClusterNode] = ()) -> None:
        """Let redis-py ask the given addresses as well when it looks for the nodes: it forgets them when it has found
        these."""
        options: dict[str, Any] = self._client.get_connection_kwargs()
        self._ask([ClusterNode(host, port, **options) for host, port in self._given], instead_of)

    def _ask(self, nodes: Iterable[ClusterNode], instead_of: Sequence[ClusterNode] = ()) -> None:
        """Let redis-py ask these nodes as well. One that has connections must stay known to it, so that it closes them:
        those left out are known to it elsewhere."""
        left_out = {id(node) for node in instead_of}
        manager = self._client.nodes_manager
        kept = {name: node for name, node in manager.startup_nodes.items() if id(node) not in left_out}
        manager.startup_nodes = {node.name: node for node in nodes} | kept


async def _known_to_client(client: RedisCluster, *, refresh: bool = False) -> None:
    """Let the user's client find the nodes. Raises `RedisError`, since `RedisClusterException` is no `RedisError`."""
    for node in (*client.get_nodes(), *client.nodes_manager.startup_nodes.values()):
        if issubclass(node.connection_class, SSLConnection):
            _forget_certificates(node)
    try:
        async with asyncio.timeout(TOPOLOGY_TIME):
            await looked_up_apart(client.initialize())
            if refresh:
                await looked_up_apart(client.nodes_manager.initialize())
    except TimeoutError as error:
        raise RedisTimeoutError("the nodes of the Cluster did not report their slots in time") from error
    except RedisClusterException as error:
        raise RedisConnectionError(str(error)) from error


def _forget_certificates(node: ClusterNode) -> None:
    """Forget those of a node's free connections: redis-py connects them, too."""
    seen: set[Connection] = set()
    with suppress(MaxConnectionsError):
        while (connection := node.acquire_connection()) not in seen:  # they are a queue
            seen.add(connection)
            forget_certificates(connection)
            node.release(connection)
        node.release(connection)


@asynccontextmanager
async def _borrowed(node: ClusterNode) -> AsyncGenerator[Connection]:
    connection = await _acquired(node)
    try:
        await ready(connection)
        yield connection
    finally:
        node.release(connection)


async def _acquired(node: ClusterNode) -> Connection:
    async def acquire() -> Connection:
        return node.acquire_connection()

    return await when_free(acquire)
