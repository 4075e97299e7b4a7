"""A user with exactly the rights of docs/running.md is enough, and each of these rights is needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis, RedisCluster
from redis.exceptions import RedisError

from rapids import DeadLetterQueue, EventEmitter
from rapids.audit import AuditLog
from rapids.clients import open_client
from rapids.exceptions import EmitError
from rapids.inspection import Inspector
from tests.every_feature import use_every_feature
from tests.redis.proxy import proxy_to
from tests.servers.builds import NEWEST, OLDEST, WITH_TLS, Build
from tests.servers.cluster import Cluster
from tests.servers.node import Node
from tests.servers.sentinel import SentinelFleet
from tests.servers.standalone import Standalone
from tests.support import eventually
from tests.topologies.commands import commands_sent
from tests.topologies.pages import console_commands
from tests.worker.helpers import GROUP, DvOrder, as_text, calls, make_router, replay_stream, running, until_settled

STREAM = "orders:events"
DLQ = "{orders:events}:dlq"
RARELY = {"hexists", "hscan", "pttl", "xtrim", "zremrangebyrank", "zremrangebyscore"}
"""To find, now and then, the remains of an entry that another client acknowledged; to link a replay that failed again;
to trim where that is asked for; to cut an archive that is full, and to forget restored letters that were trimmed."""

USER = {"username": "rapids", "password": "PASSWORD"}


def rules(*, cluster: bool = False) -> list[str]:
    """What the page gives to ACL SETUSER: the user's name, then the rules."""
    base, more, _ = typed()
    return base + (more[1:] if cluster else [])


def typed() -> list[list[str]]:
    """What is typed after ACL SETUSER for one server, then for a Cluster, then for a Sentinel."""
    commands = console_commands("An ACL user")
    assert len(commands) == 3
    return [words[words.index("SETUSER") + 1 :] for words in commands]


def allowed(*, cluster: bool = False) -> set[str]:
    return {rule[1:] for rule in rules(cluster=cluster) if rule.startswith("+")}


@asynccontextmanager
async def restricted(build: Build, taken: str = "") -> AsyncIterator[tuple[Standalone, Redis]]:
    """A server, and a client of it that goes by the page's user, but for what was taken from it."""
    async with Standalone(build) as server:
        await server.node.ask("ACL", "SETUSER", *(rule for rule in rules() if rule != taken))
        async with server.client(**USER) as client:
            yield server, client


@pytest.mark.parametrize("build", [OLDEST, WITH_TLS, NEWEST], ids=lambda build: build.name)
async def test_the_user_is_refused_nothing(build: Build) -> None:
    async with restricted(build) as (server, client):
        await everything(server, client)
        assert await refused(server.node) == set()


async def test_every_command_the_page_allows_is_one_that_rapids_sends() -> None:
    """And the other way round, whatever branch it is in."""
    async with Standalone() as server, server.client() as client:
        known = {as_text(name) for name in await client.execute_command("COMMAND LIST")}
    sent = commands_sent(known)
    assert len(sent) > 40, "the commands were not found"
    assert allowed(cluster=True) - sent == {"command"}, "allowed and never sent"
    assert sent - allowed(cluster=True) == set(), "sent, and not in the lists of docs/running.md"


async def test_every_command_the_page_allows_is_used() -> None:
    async with restricted(NEWEST) as (server, client):
        await server.node.ask("CONFIG", "RESETSTAT")
        await everything(server, client)
        async with server.client() as admin:
            used = {name for name, count in (await calls(admin)).items() if count}
        assert allowed() - used <= RARELY


@pytest.mark.parametrize("taken", ["+eval", "+xinfo|consumers", "+xgroup|destroy", "+zmscore", "~{orders:events}:*"])
async def test_a_user_that_lacks_a_command_gets_an_error_that_names_it(taken: str) -> None:
    async with restricted(NEWEST, taken) as (server, client):
        with pytest.raises((RedisError, EmitError, AssertionError, TimeoutError)):  # another one for each
            await asyncio.wait_for(everything(server, client), 30)
        assert await refused(server.node)


async def test_a_stream_of_another_user_cannot_be_reached() -> None:
    async with restricted(NEWEST) as (_, client):
        with pytest.raises(EmitError, match="permission"):
            await EventEmitter(client, "payments:events").emit(DvOrder(number=1))


@pytest.mark.slow
async def test_on_a_cluster_it_needs_three_more_and_is_refused_nothing_while_slots_move() -> None:
    async with Cluster(replicas=0) as cluster:
        for node in cluster.nodes:
            await node.ask("ACL", "SETUSER", *rules(cluster=True))
        async with cluster.client(**USER) as client:
            await use_every_feature(client, client, stream=STREAM, dlq=DLQ)
            await handle_while_the_slot_moves(cluster, client)
        async with cluster.client() as admin:
            used = {name for name, count in (await calls(admin)).items() if count}
        assert allowed(cluster=True) - allowed() <= used
        assert [await refused(node) for node in cluster.nodes] == [set()] * len(cluster.nodes)


@pytest.mark.parametrize("build", [OLDEST, NEWEST], ids=lambda build: build.name)
async def test_a_sentinel_is_asked_with_the_one_command_the_page_says(build: Build) -> None:
    *_, for_sentinels = typed()
    async with SentinelFleet(build, replicas=0, sentinels=1) as fleet:
        for node in fleet.nodes:
            await node.ask("ACL", "SETUSER", *rules())
        for sentinel in fleet.sentinels:
            await sentinel.ask("ACL", "SETUSER", *for_sentinels)
            await sentinel.ask("ACL", "SETUSER", "default", "nopass", "-@all")
        named = fleet.url.replace("//", "//rapids:PASSWORD@")
        async with open_client(f"{named}?sentinel_username=rapids&sentinel_password=PASSWORD") as client:
            await use_every_feature(client, client, stream=STREAM, dlq=DLQ)
        assert [await refused(node) for node in fleet.nodes] == [set()]


async def refused(node: Node) -> set[str]:
    """What the server refused to the user, except what redis-py says about itself."""
    log = await node.ask("ACL", "LOG")
    rows = [row if isinstance(row, dict) else dict(zip(row[::2], row[1::2], strict=True)) for row in log]
    objects = {as_text(row[key]) for row in rows for key in row if as_text(key) == "object"}
    return objects - {"client|setinfo", "client"}  # as Redis 6.2 has it


# --- all that Rapids does -------------------------------------------------------------------------------------------


async def everything(server: Standalone, client: Redis) -> None:
    await use_every_feature(client, client, stream=STREAM, dlq=DLQ)
    await look_at_everything(client)
    await emit_with_answers_lost(server)
    await take_turns(client)
    await pause_and_resume(client)
    await replay_in_vain(client)
    await look_at_the_audit_log(client)
    await remove_who_is_gone(client)
    await make_a_lost_group_again(server, client)


async def pause_and_resume(client: Redis) -> None:
    router = make_router(client, stream=STREAM, dlq_stream=DLQ, group=GROUP)
    async with running(router):
        await router.pause()
        assert (await router.health()).reason == "paused"
        await router.resume()


async def replay_in_vain(client: Redis) -> None:
    """What cannot be read fails again, and its letter records that."""
    queue = DeadLetterQueue(client, DLQ)
    [letter] = (await queue.list()).items
    await queue.replay(letter.id)
    async with running(make_router(client, stream=STREAM, dlq_stream=DLQ, max_deliveries=1)):
        await eventually(lambda: _failed_again(queue, letter.id))


async def _failed_again(queue: DeadLetterQueue, letter_id: str) -> bool:
    return (await queue.get(letter_id)).replays[-1].outcome == "failed_again"


async def look_at_the_audit_log(client: Redis) -> None:
    assert (await AuditLog(client, DLQ).list()).items
    assert (await AuditLog(client, STREAM).list()).items


async def look_at_everything(client: Redis) -> None:
    look = Inspector(client)
    await look.stream(STREAM)
    await look.groups(STREAM)
    await look.group(STREAM, GROUP)
    await look.consumers(STREAM, GROUP)
    for what in (look.pending, look.parked, look.waiting):
        await what(STREAM, GROUP)


async def emit_with_answers_lost(server: Standalone) -> None:
    """With a replica asked for that is not there: what was stored is found, and its replicas are asked for again."""
    async with proxy_to(server.url) as proxy, Redis.from_url(proxy.url, **USER) as through:
        await EventEmitter(through, STREAM).emit(DvOrder(number=5))
        emitter = EventEmitter(through, STREAM, replicas=1, max_retries=2, retry_delay=0.001)
        proxy.lose_reply_to(b"XADD")
        with pytest.raises(EmitError, match="0 of 1 replicas"):
            await emitter.emit(DvOrder(number=6))


async def take_turns(client: Redis) -> None:
    """Two processes of which one is active."""
    routers = [make_router(client, stream=STREAM, dlq_stream=DLQ, exclusive=True, consumer=name) for name in "ab"]
    async with running(*routers):
        await until_settled(client, STREAM)


async def remove_who_is_gone(client: Redis) -> None:
    async with running(make_router(client, stream=STREAM, dlq_stream=DLQ, consumer="here", consumer_ttl=0.1)):
        await eventually(lambda: _is_gone(client, b"a"))


async def _is_gone(client: Redis, name: bytes) -> bool:
    return name not in {row["name"] for row in await client.xinfo_consumers(STREAM, GROUP)}


async def make_a_lost_group_again(server: Standalone, client: Redis) -> None:
    """The group is set back, and that of the replays goes, while an entry is parked."""
    router, seen = make_router(client, stream=STREAM, dlq_stream=None, max_deliveries=1), list[int]()

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)
        if event.number == 8:
            raise ValueError

    async with running(router), server.client() as other:
        await EventEmitter(client, STREAM).emit([DvOrder(number=8), DvOrder(number=9)])
        await eventually(lambda: 9 in seen)
        await eventually(lambda: _is_parked(client))
        async with other.pipeline(transaction=True) as at_once:
            at_once.xgroup_setid(STREAM, GROUP, "0")
            at_once.xgroup_destroy(replay_stream(STREAM), GROUP)
            await at_once.execute()
        await EventEmitter(client, STREAM).emit(DvOrder(number=10))
        await eventually(lambda: 10 in seen)


async def _is_parked(client: Redis) -> bool:
    return (await client.xpending(STREAM, GROUP))["pending"] == 1


async def handle_while_the_slot_moves(cluster: Cluster, client: RedisCluster) -> None:
    router, seen = make_router(client, stream=STREAM, dlq_stream=DLQ), list[int]()

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)
        if event.number == 12 and seen.count(12) == 1:
            raise ValueError

    emitter = EventEmitter(client, STREAM)
    async with running(router):
        migration = await cluster.migration(STREAM)
        await migration.begin()
        await emitter.emit(DvOrder(number=11))
        while await migration.move_keys():
            pass
        await emitter.emit(DvOrder(number=12))
        await migration.finish()  # until when a script whose keys are not all there has to wait
        await eventually(lambda: seen.count(12) == 2)
