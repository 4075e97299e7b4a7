"""A Cluster of masters with replicas, made without redis-cli."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.crc import key_slot
from redis.exceptions import RedisError

from tests.servers.builds import NEWEST, Build
from tests.servers.launcher import Launcher
from tests.servers.migration import SlotMigration
from tests.servers.node import KEEPS_ITS_DATA, Node, patient
from tests.servers.site import HOST, Site
from tests.support import eventually

SLOTS = 16_384
PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Member:
    """A node as another one sees it, by a line of CLUSTER NODES."""

    id: str
    port: int
    flags: frozenset[str]
    master: str
    """The id of the master it follows; empty for a master."""
    slots: tuple[range, ...]

    @property
    def is_master(self) -> bool:
        return "master" in self.flags

    def owns(self, slot: int) -> bool:
        return any(slot in part for part in self.slots)


class Cluster(Launcher):
    """`masters` masters with `replicas` replicas each, which take over `node_timeout` (milliseconds) after a death.

    Use it in `async with`, or `start()` it and `close()` it.
    """

    def __init__(
        self,
        build: Build = NEWEST,
        *,
        masters: int = 3,
        replicas: int = 1,
        node_timeout: int = 2_000,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._site = Site()
        self._masters = masters
        options = KEEPS_ITS_DATA | {
            "cluster-enabled": "yes",
            "cluster-node-timeout": str(node_timeout),
            "cluster-replica-validity-factor": "0",
            "repl-diskless-sync": "yes",
            "repl-diskless-sync-delay": "0",
        }
        options |= settings or {}
        count = masters * (1 + replicas)
        self.nodes = [Node(self._site, build, f"node-{number}", options) for number in range(count)]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(node.address for node in self.nodes)

    def client(self, **options: Any) -> RedisCluster:
        """A client of the whole, to be closed by the caller."""
        return RedisCluster(startup_nodes=[ClusterNode(HOST, node.port) for node in self.nodes], **options)

    async def start(self) -> None:
        """Start the nodes, and return when every slot is served and every replica follows its master."""
        for node in self.nodes:
            node.launch()
        await asyncio.gather(*(node.until_answers() for node in self.nodes))
        masters, replicas = self.nodes[: self._masters], self.nodes[self._masters :]
        await self._meet()
        for number, master in enumerate(masters):
            slots = range(SLOTS * number // len(masters), SLOTS * (number + 1) // len(masters))
            await master.ask("CLUSTER", "ADDSLOTS", *slots)
        ids = [await self.id_of(master) for master in masters]
        for number, replica in enumerate(replicas):
            await replica.ask("CLUSTER", "REPLICATE", ids[number % len(ids)])
        await self.until_whole()

    def close(self) -> None:
        """End all nodes and remove what they wrote."""
        for node in self.nodes:
            node.kill()
        self._site.close()

    # Who is who

    async def members(self, seen_by: Node | None = None) -> list[Member]:
        """All nodes as one sees them that is alive."""
        for node in [seen_by] if seen_by else [node for node in self.nodes if node.alive]:
            with suppress(RedisError, OSError):
                return [_member(line) for line in (await node.ask("CLUSTER", "NODES")).decode().splitlines()]
        raise AssertionError(f"no node of the cluster answers: {self.nodes}")

    async def id_of(self, node: Node) -> str:
        return (await node.ask("CLUSTER", "MYID")).decode()

    async def masters(self) -> list[Node]:
        """The nodes that serve slots now."""
        return [self._node(member) for member in await self.members() if member.is_master and member.slots]

    async def master_of(self, key: str) -> Node:
        """The node that serves the key's slot now."""
        slot = slot_of(key)
        return self._node(next(member for member in await self.members() if member.owns(slot)))

    async def replicas_of(self, key: str) -> list[Node]:
        """The replicas, as far as they are thought to be alive, of the key's master."""
        members = await self.members()
        master = next(member for member in members if member.owns(slot_of(key)))
        return [self._node(m) for m in members if m.master == master.id and "fail" not in m.flags]

    # What may happen to it

    async def failover(self, key: str) -> tuple[Node, Node]:
        """Have a replica take over the key's slot in good order, as before maintenance: the old master and the new."""
        old = await self.master_of(key)
        (new, *_) = await self.replicas_of(key)
        await new.ask("CLUSTER", "FAILOVER")
        await self.until_served(key, by=[new])
        return old, new

    async def kill_master_of(self, key: str) -> Node:
        """Kill the node that serves the key, and return it at once."""
        master = await self.master_of(key)
        master.kill()
        return master

    async def until_failed_over(self, key: str, dead: Node) -> Node:
        """Wait until a replica of the dead node serves the key; that replica."""
        return await self.until_served(key, by=[node for node in self.nodes if node is not dead])

    async def until_served(self, key: str, by: Iterable[Node]) -> Node:
        """Wait until all nodes alive agree that one of these serves the key, and that the cluster is up; that one."""
        ports, slot = {node.port for node in by}, slot_of(key)

        async def served() -> Node | None:
            owners = set[int]()
            for node in self.nodes:
                if node.alive:
                    members = await self.members(node)
                    owners |= {member.port for member in members if member.owns(slot)}
                    if not await self._is_up(node):
                        return None
            (owner, *others) = owners or {0}
            return self._at(owner) if owner in ports and not others else None

        found = await eventually(patient(served), PATIENCE, 0.05)
        assert found is not None
        return found

    async def migration(self, key: str, to: Node | None = None) -> SlotMigration:
        """The migration of the key's slot to another master, step by step; nothing has happened yet."""
        source = await self.master_of(key)
        masters = await self.masters()
        target = to or next(node for node in masters if node is not source)
        others = [node for node in masters if node not in (source, target)]
        return SlotMigration(slot_of(key), source, target, others)

    async def move_slot(self, key: str, to: Node | None = None) -> Node:
        """Move the key's slot to another master while the cluster works: its new master."""
        migration = await self.migration(key, to)
        await migration.run()
        return await self.until_served(key, by=[migration.target])

    async def until_whole(self) -> None:
        """Wait until every node alive sees every slot served, and every replica follows."""
        await eventually(patient(self._is_whole), PATIENCE, 0.05)

    async def flush(self) -> None:
        """Empty it, of scripts and functions too."""
        await asyncio.to_thread(self.flush_now)

    def flush_now(self) -> None:
        """The same for fixtures, which are no coroutines."""
        lines = next(node for node in self.nodes if node.alive).ask_now("CLUSTER", "NODES").decode().splitlines()
        for member in map(_member, lines):
            if member.is_master and member.slots:
                self._node(member).flush()

    async def _is_up(self, node: Node) -> bool:
        return b"cluster_state:ok" in await node.ask("CLUSTER", "INFO")

    async def _is_whole(self) -> bool:
        for node in self.nodes:
            if not node.alive:
                continue
            members = await self.members(node)
            doubted = [member for member in members if member.flags & {"fail", "fail?", "noaddr", "handshake"}]
            covered = sum(len(part) for m in members if m.is_master and m not in doubted for part in m.slots)
            if covered != SLOTS or len(members) != len(self.nodes) or not await self._is_up(node):
                return False
            if any(self._node(member).alive for member in doubted):
                return False
            if b"role:slave" in (info := await node.ask("INFO", "replication")) and b"link_status:up" not in info:
                return False
        masters = {member.id for member in await self.members() if member.is_master and member.slots}
        return len(masters) == self._masters and await self._replicas_are_as_made()

    async def _replicas_are_as_made(self) -> bool:
        """Whether each node alive that serves no slot is known to be a replica."""
        members = await self.members()
        return all(member.slots or member.master for member in members if self._node(member).alive)

    async def _meet(self) -> None:
        first, *others = self.nodes
        for epoch, node in enumerate(self.nodes, 1):
            await node.ask("CLUSTER", "SET-CONFIG-EPOCH", epoch)
        for node in others:
            await node.ask("CLUSTER", "MEET", HOST, first.port)

        async def all_know_all() -> bool:
            for node in self.nodes:
                members = await self.members(node)
                if len(members) != len(self.nodes) or any("handshake" in member.flags for member in members):
                    return False
            return True

        await eventually(patient(all_know_all), PATIENCE, 0.05)

    def _node(self, member: Member) -> Node:
        return self._at(member.port)

    def _at(self, port: int) -> Node:
        return next(node for node in self.nodes if node.port == port)


def slot_of(key: str) -> int:
    return key_slot(key.encode())


def _member(line: str) -> Member:
    name, address, flags, master, _, _, _, _, *slots = line.split()
    ranges = [part.split("-") for part in slots if not part.startswith("[")]  # in brackets: on their way
    return Member(
        id=name,
        port=int(address.partition("@")[0].rpartition(":")[2] or 0),
        flags=frozenset(flags.split(",")),
        master="" if master == "-" else master,
        slots=tuple(range(int(part[0]), int(part[-1]) + 1) for part in ranges),
    )
