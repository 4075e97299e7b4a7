"""A master, its replicas and the sentinels that watch over them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.servers.builds import NEWEST, Build
from tests.servers.client import connected
from tests.servers.launcher import Launcher
from tests.servers.node import KEEPS_ITS_DATA, Node, patient
from tests.servers.site import HOST, Site
from tests.support import eventually

SERVICE = "primary"
PATIENCE = 40.0

ATTENTION = ("info-period", "500", "publish-period", "500")
"""Sentinels look every 10 s and talk every 2 s by default, which is long for tests; 7.0 and newer have settings."""


class SentinelFleet(Launcher):
    """A master called `primary`, replicas, and sentinels of which a majority decides.

    A node that does not answer for `down_after` (milliseconds) counts as dead. Use it in `async with`, or `start()`
    it and `close()` it.
    """

    def __init__(
        self,
        build: Build = NEWEST,
        *,
        replicas: int = 2,
        sentinels: int = 3,
        down_after: int = 1_000,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._site = Site()
        self._build = build
        options = KEEPS_ITS_DATA | {"repl-diskless-sync": "yes", "repl-diskless-sync-delay": "0"} | dict(settings or {})
        first = Node(self._site, build, "node-0", options)
        following = options | {"replicaof": f"{HOST} {first.port}"}
        self.nodes = [first, *(Node(self._site, build, f"node-{n}", following) for n in range(1, 1 + replicas))]
        watch = {
            f"sentinel monitor {SERVICE}": f"{HOST} {first.port} {sentinels // 2 + 1}",
            f"sentinel down-after-milliseconds {SERVICE}": str(down_after),
            f"sentinel failover-timeout {SERVICE}": "6000",
            f"sentinel parallel-syncs {SERVICE}": "2",
        }
        self.sentinels = [
            Node(self._site, build, f"sentinel-{n}", {"sentinel myid": f"{n:040x}", **watch}, sentinel=True)
            for n in range(1, 1 + sentinels)
        ]

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(node.address for node in self.sentinels)}/{SERVICE}"

    def client(self, **options: Any) -> AbstractAsyncContextManager[Redis]:
        """A client, for `async with`, of the current master."""
        return connected(self.url, **options)  # type: ignore[return-value]

    async def start(self) -> None:
        """Start everything, and return when the sentinels know each other and the replicas follow."""
        for node in self.nodes:
            node.launch()
        await asyncio.gather(*(node.until_answers() for node in self.nodes))
        await eventually(patient(self._all_follow), PATIENCE, 0.05)
        for node in self.sentinels:
            node.launch()
        await asyncio.gather(*(node.until_answers() for node in self.sentinels))
        if not self._build.version.startswith("6."):
            await asyncio.gather(*(node.ask("SENTINEL", "DEBUG", *ATTENTION) for node in self.sentinels))
        await self.until_whole()

    def close(self) -> None:
        """End all processes and remove what they wrote."""
        for node in (*self.sentinels, *self.nodes):
            node.kill()
        self._site.close()

    # Who is who

    async def master(self) -> Node:
        """The node that the sentinels call the master."""
        for sentinel in self.sentinels:
            if sentinel.alive:
                with suppress(RedisError, OSError):
                    answer = await sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
                    return next(node for node in self.nodes if node.port == int(answer[1]))
        raise AssertionError(f"no sentinel answers: {self.sentinels}")

    async def replicas(self) -> list[Node]:
        """The other nodes that are alive."""
        master = await self.master()
        return [node for node in self.nodes if node is not master and node.alive]

    # What may happen to it

    async def failover(self, *, coordinated: bool = False) -> tuple[Node, Node]:
        """Have the sentinels put a replica in the master's place, as before maintenance: the old master and the new.

        The old one answers READONLY from then on. `coordinated`, which Valkey 9 can: the master takes no writes until
        the replica has all of them; otherwise it still accepts writes for some time, and they are lost.
        """
        old = await self.master()
        how = ("COORDINATED",) if coordinated else ()
        await self.sentinels[0].ask("SENTINEL", "FAILOVER", SERVICE, *how)
        new = await self.until_failed_over(old)

        async def demoted() -> bool:
            return await _role(old) != b"master"

        await eventually(patient(demoted), PATIENCE, 0.05)
        return old, new

    async def kill_master(self) -> Node:
        """Kill the master, and return it at once."""
        master = await self.master()
        master.kill()
        return master

    async def until_failed_over(self, old: Node) -> Node:
        """Wait until all sentinels name another master, and it takes writes; that one."""

        async def replaced() -> Node | None:
            named = {int((await self._named_by(sentinel))[1]) for sentinel in self.sentinels if sentinel.alive}
            (port, *others) = named or {0}
            if others or port == old.port:
                return None
            node = next(node for node in self.nodes if node.port == port)
            return node if await _role(node) == b"master" else None

        found = await eventually(patient(replaced), PATIENCE, 0.05)
        assert found is not None
        return found

    async def until_whole(self) -> None:
        """Wait until every node alive that is not the master follows, and the sentinels could agree on a failover."""
        await eventually(patient(self._is_whole), PATIENCE, 0.05)

    async def flush(self) -> None:
        """Empty it, of scripts and functions too."""
        await asyncio.to_thread(self.flush_now)

    def flush_now(self) -> None:
        """The same for fixtures, which are no coroutines."""
        _, port = self.sentinels[0].ask_now("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        next(node for node in self.nodes if node.port == int(port)).flush()

    async def _named_by(self, sentinel: Node) -> list[bytes]:
        return await sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)

    async def _is_whole(self) -> bool:
        for sentinel in self.sentinels:
            if sentinel.alive:
                await sentinel.ask("SENTINEL", "CKQUORUM", SERVICE)  # an error where there is none
                known = await _state(sentinel)
                if int(known[b"num-other-sentinels"]) != len(self.sentinels) - 1:
                    return False
                if int(known[b"num-slaves"]) < len(self.nodes) - 1 or known[b"flags"] != b"master":
                    return False
        return await self._all_follow()

    async def _all_follow(self) -> bool:
        roles = [await _role(node) for node in self.nodes if node.alive]
        return roles.count(b"master") == 1 and all(role in (b"master", b"connected") for role in roles)


async def _role(node: Node) -> bytes:
    """`master`, or a replica's link to its master: `connected` and others."""
    role = await node.ask("ROLE")
    return role[0] if role[0] == b"master" else role[3]


async def _state(sentinel: Node) -> dict[bytes, bytes]:
    """What a sentinel knows of the master."""
    answer = await sentinel.ask("SENTINEL", "MASTER", SERVICE)
    if isinstance(answer, dict):
        return answer
    return dict(zip(answer[::2], answer[1::2], strict=True))
