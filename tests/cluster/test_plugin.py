"""The plug-in and the example on a Cluster, by address and with a client of the user's own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable

import httpx
import pytest
from redis.asyncio import RedisCluster

from rapids import BaseEvent, EventEmitter, EventRouter
from rapids.background import routers_running
from rapids.clients import open_client
from rapids.dead_letters import default_dlq
from rapids.exceptions import RedisUnavailableError
from rapids_fastapi import Rapids, TokenAuth, directory
from tests.fastapi.helpers import admin_app, client_of
from tests.servers.cluster import Cluster
from tests.support import eventually, idle_router

TOKEN = "a token for the cluster"


class ClPluggedIn(BaseEvent):
    n: int


def failing_once(stream: str) -> tuple[EventRouter, list[int]]:
    router, ran = EventRouter(stream=stream, group="cl", max_deliveries=1), list[int]()

    @router.on(ClPluggedIn)
    async def handle(event: ClPluggedIn) -> None:
        ran.append(event.n)
        if len(ran) == 1:
            raise ValueError("once")

    return router, ran


async def test_a_failure_is_listed_and_replayed_over_http(cluster: Cluster) -> None:
    router, ran = failing_once("cl:events")
    rapids = Rapids(routers=[router], url=cluster.url, admin_auth=TokenAuth(TOKEN))
    app = admin_app(rapids)
    transport = httpx.ASGITransport(app)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    for times in (1, 2):  # the same application starts again
        ran.clear()
        async with rapids.lifespan(app) as state:
            http = httpx.AsyncClient(
                transport=_with_state(transport, state), base_url="http://cluster", headers=headers
            )
            async with http:
                await rapids.emitter.emit(ClPluggedIn(n=times))
                letters = "/rapids/api/dead-letters"
                await eventually(lambda http=http, path=letters: _has_items(http, path))
                (letter,) = (await http.get(letters)).json()["items"]
                assert (await http.get("/rapids/health/ready")).status_code == 200
                replayed = await http.post(f"{letters}/{letter['id']}/replay", json={})
                assert replayed.status_code == 200, replayed.text
                await eventually(lambda: len(ran) == 2)
                assert (await http.get(letters)).json()["items"] == []


async def test_streams_of_workers_are_found_on_whichever_node_they_are(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "LOOK_PAUSE", 0.05)
    streams = {f"cl:work-{number}" for number in range(4)}
    rapids = Rapids(emitter=EventEmitter(stream="cl:events"), url=cluster.url, admin_auth=TokenAuth(TOKEN))
    async with open_client(cluster.url) as redis, rapids.lifespan() as state:
        assert isinstance(redis, RedisCluster)
        workers = [idle_router(stream=stream, group="cl", dlq_stream=default_dlq(stream)) for stream in streams]
        async with routers_running(workers, redis):
            assert len({redis.get_node_from_key(stream) for stream in streams}) > 1
            shown = state["rapids"].directory
            await eventually(lambda: {*shown.streams} == {"cl:events", *streams})
            assert {*shown.queues} == {default_dlq(stream) for stream in ("cl:events", *streams)}


async def test_operations_groups_exports_and_the_audit_over_http(cluster: Cluster) -> None:
    router, ran = failing_once("cl:events")
    rapids = Rapids(routers=[router], url=cluster.url, admin_auth=TokenAuth(TOKEN))
    app = admin_app(rapids)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with rapids.lifespan(app) as state:
        transport = _with_state(httpx.ASGITransport(app), state)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://cluster/rapids/api", headers=headers
        ) as http:
            await rapids.emitter.emit(ClPluggedIn(n=1))
            await eventually(lambda: _has_items(http, "/dead-letters/causes"))
            (group,) = (await http.get("/dead-letters/causes")).json()["items"]
            assert (group["handler"], group["count"]) == ("handle", 1)
            (line,) = (await http.get("/dead-letters/export")).text.splitlines()
            assert json.loads(line)["fingerprint"] == group["fingerprint"]
            body = {"kind": "replay", "selector": {"fingerprint": group["fingerprint"]}}
            assert (await http.post("/operations", json={**body, "dry_run": True})).json()["total"] == 1
            started = await http.post("/operations", json=body)
            assert started.status_code == 202, started.text
            events = (await http.get(f"/operations/{started.json()['id']}/events")).text
            assert "event: ended" in events
            await eventually(lambda: len(ran) == 2)
            assert (await http.post("/dead-letters/reindex", json={})).json()["length"] == 0
            await http.post("/groups/pause", json={"stream": "cl:events", "group": "cl"})
            audited = [entry["action"] for entry in (await http.get("/audit")).json()["items"]]
            wanted = ["export_ended", "export_started", "group_paused"]
            wanted += ["letters_reindexed", "operation_completed", "operation_started"]
            assert sorted(audited) == wanted


async def test_a_client_for_one_server_is_refused_on_a_cluster(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    owner = await cluster.master_of("cl:events")
    other = next(node for node in await cluster.masters() if node is not owner)
    rapids = Rapids(url=other.url, routers=[idle_router(stream="cl:events", group="cl")])
    with pytest.raises(RedisUnavailableError, match=r"another node of the Cluster .*redis\+cluster://"):
        async with rapids.lifespan():
            pass
    caplog.clear()
    async with Rapids(url=owner.url, emitter=EventEmitter(stream="cl:events")).lifespan():  # as long as that is so
        pass
    assert [vars(record)["danger"] for record in caplog.records if record.name == "rapids.server_warnings"] == [
        "cluster"
    ]
    caplog.clear()
    async with Rapids(url=cluster.url, routers=[idle_router(stream="cl:events", group="cl")]).lifespan():
        pass
    assert [record for record in caplog.records if record.name == "rapids.server_warnings"] == []


async def _has_items(http: httpx.AsyncClient, path: str) -> bool:
    return bool((await http.get(path)).json()["items"])


def _with_state(transport: httpx.ASGITransport, state: dict[str, object]) -> httpx.ASGITransport:
    """The lifespan's state, which a server would put into each request."""
    app = transport.app

    async def stateful(scope, receive, send):  # type: ignore[no-untyped-def]
        await app({**scope, "state": dict(state)}, receive, send)

    return httpx.ASGITransport(stateful)


def test_a_client_of_the_users_own_is_used_on_each_event_loop_and_not_closed(shared_cluster: Cluster) -> None:
    client = shared_cluster.client()
    router, ran = failing_once("cl:own")
    ran.append(0)  # so that nothing fails
    rapids = Rapids(routers=[router], redis=client)
    for _ in range(2):
        with client_of(admin_app(rapids)) as http:
            assert rapids.redis is client
            assert http.get("/rapids/health/ready").status_code == 200

    async def used_again() -> bool:
        try:
            return bool(await client.ping(target_nodes=RedisCluster.RANDOM))
        finally:
            await client.aclose()

    assert asyncio.run(used_again())


async def test_a_cluster_that_cannot_be_reached_is_named_without_the_password() -> None:
    with pytest.raises(RedisUnavailableError) as error:
        async with Rapids(url="redis+cluster://me:hunter2@127.0.0.1:1").lifespan():
            pass
    assert "redis+cluster://me:***@127.0.0.1:1" in str(error.value)
    assert "hunter2" not in str(error.value)


async def test_an_emitter_is_ready_while_the_node_that_has_its_stream_answers(cluster: Cluster) -> None:
    stream = "cl:ready"
    async with Rapids(emitter=EventEmitter(stream=stream), url=f"{cluster.url}?socket_timeout=1").lifespan() as state:
        assert await state["rapids"].is_ready()
        master = await cluster.kill_master_of(stream)
        await eventually(lambda: _is_not(state["rapids"].is_ready()))
        await cluster.until_failed_over(stream, master)
        await eventually(state["rapids"].is_ready)


async def _is_not(asked: Awaitable[bool]) -> bool:
    return not await asked


async def test_an_address_opens_a_client_that_its_block_closes(cluster: Cluster) -> None:
    async with open_client(cluster.url) as client:
        await client.set("cl:key", "1")
        assert await client.get("cl:key") == b"1"
    async with open_client(cluster.url):
        pass  # which was never used


async def test_the_example_runs_on_a_cluster(cluster: Cluster) -> None:
    demo = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "example_app", "--once"),
        env=os.environ | {"RAPIDS_REDIS_URL": cluster.url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await demo.communicate()
    assert demo.returncode == 0, output.decode()
