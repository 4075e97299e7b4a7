"""Streams whose routers run in other processes: the admin shows them, and everything works there as on its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest
from redis.asyncio import Redis

from rapids import BaseEvent, DeadLetterQueue, EventEmitter, EventRouter
from rapids._storage.keys import announced_routers
from rapids.dead_letters import default_dlq
from rapids_fastapi import Rapids, directory
from rapids_fastapi.directory import Directory
from tests.fastapi.helpers import BEARER, DLQ, STREAM, admin_app, async_client_of, rapids_with
from tests.support import eventually, idle_router
from tests.worker.helpers import running

WORK, WORK_DLQ = "fa:work", "fa:work-failed"
API = "/rapids/api"


class FaWatchedOrdered(BaseEvent):
    n: int


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "LOOK_PAUSE", 0.05)


@pytest.fixture
async def worker(redis: Redis) -> AsyncIterator[list[int]]:
    """What a router handled that belongs to no application. It fails on the first delivery of an event."""
    router, handled = EventRouter(redis, WORK, "work", max_deliveries=1, dlq_stream=WORK_DLQ, dlq_maxlen=50), []

    @router.on(FaWatchedOrdered)
    async def work(event: FaWatchedOrdered) -> None:
        handled.append(event.n)
        if handled.count(event.n) == 1:
            raise ValueError("the first time")

    async with running(router):
        yield handled


async def found(http: httpx.AsyncClient, path: str, **query: Any) -> Any:
    response = await http.get(API + path, params=query)
    assert response.status_code == 200, response.text
    return response.json()


async def test_streams_of_workers_are_found_and_work_as_the_application_s_own(
    redis: Redis, redis_url: str, worker: list[int]
) -> None:
    app = admin_app(rapids_with(redis_url))
    async with async_client_of(app, BEARER) as http:  # type: ignore[arg-type]
        capabilities = await eventually(lambda: _capabilities_with(http, WORK))
        assert capabilities["streams"] == [STREAM, WORK]
        assert capabilities["dead_letter_queues"] == [
            {"name": WORK_DLQ, "groups": ["work"]},
            {"name": DLQ, "groups": []},
        ]
        assert {one["stream"] for one in (await found(http, "/streams"))["items"]} == {WORK}

        event = FaWatchedOrdered(n=1, correlation_id="web-1")
        await EventEmitter(redis, WORK).emit([event, FaWatchedOrdered(n=2)])
        await eventually(lambda: _count(http, WORK_DLQ, 2))
        assert (await found(http, "/dead-letters/stats", dlq=WORK_DLQ))["maxlen"] == 50
        assert (await found(http, "/dead-letters"))["items"] == [], "without a name, it is still the own queue"
        assert (await http.get(f"{API}/groups")).status_code == 404, "and the own stream"

        [group] = (await found(http, "/groups", stream=WORK))["items"]
        assert (group["group"], group["consumers_alive"]) == ("work", 1)
        place = {"stream": WORK, "group": "work"}
        assert (await http.post(f"{API}/groups/pause", json=place)).json()["pause"]["actor"] == "admin"
        assert (await http.post(f"{API}/groups/resume", json=place)).json()["pause"]["actor"] == "admin"
        assert (await found(http, "/groups/pending", **place))["items"] == []

        started = await http.post(
            f"{API}/operations", params={"dlq": WORK_DLQ}, json={"kind": "replay", "selector": {"filter": {}}}
        )
        assert started.status_code == 202, started.text
        await eventually(lambda: sorted(worker) == [1, 1, 2, 2])
        location = started.headers["Location"]
        await eventually(lambda: _is_completed(http, location))

        tree = await found(http, "/events", correlation_id="web-1")
        assert [(one["stream"], one["deliveries"][0]["group"]) for one in tree["events"]] == [(WORK, "work")]
        assert {line["stream"] for line in (await found(http, "/audit"))["items"]} == {WORK, WORK_DLQ}
        assert (await http.get("/rapids/health/ready")).status_code == 200


async def _capabilities_with(http: httpx.AsyncClient, stream: str) -> Any:
    capabilities = await found(http, "/capabilities")
    return capabilities if stream in capabilities["streams"] else None


async def _count(http: httpx.AsyncClient, dlq: str, count: int) -> bool:
    return len((await found(http, "/dead-letters", dlq=dlq))["items"]) == count


async def _is_completed(http: httpx.AsyncClient, location: str) -> bool:
    return (await http.get(location)).json()["state"] == "completed"


async def test_with_a_list_only_the_named_streams_are_watched(redis: Redis, redis_url: str, worker: list[int]) -> None:
    other = idle_router(redis, "fa:other", "other", dlq_stream="fa:other-failed")
    own = idle_router(stream=STREAM, group="own")
    app = admin_app(rapids_with(redis_url, routers=[own], watch=[WORK, "fa:later", STREAM, WORK]))
    async with running(other), async_client_of(app, BEARER) as http:  # type: ignore[arg-type]
        await eventually(lambda: _knows_queue(http, WORK_DLQ))
        capabilities = await found(http, "/capabilities")
        assert capabilities["streams"] == ["fa:later", STREAM, WORK]
        assert [queue["name"] for queue in capabilities["dead_letter_queues"]] == sorted(
            [WORK_DLQ, default_dlq("fa:later"), DLQ, default_dlq(WORK)]
        )
        assert (await found(http, "/streams"))["missing"] == ["fa:later"]
        assert (await found(http, "/dead-letters", dlq=default_dlq("fa:later")))["items"] == []
        for path in ("/groups?stream=fa:other", "/dead-letters?dlq=fa:other-failed"):
            refused = await http.get(API + path)
            assert (refused.status_code, "fa:other" in str(refused.json()["allowed"])) == (404, False)
        needed = (await http.get(f"{API}/groups")).json()
        assert (needed["type"], needed["allowed"]) == ("urn:rapids:problem:stream-needed", capabilities["streams"])
        assert (await http.get("/rapids/health/ready")).status_code == 200


async def _knows_queue(http: httpx.AsyncClient, dlq: str) -> bool:
    return dlq in {queue["name"] for queue in (await found(http, "/capabilities"))["dead_letter_queues"]}


async def test_nothing_is_looked_for_while_nobody_may_see_it(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAPIDS_ADMIN_TOKEN")
    looks: list[Directory] = []

    async def look(self: Directory) -> None:
        looks.append(self)

    monkeypatch.setattr(Directory, "look", look)
    async with Rapids(url=redis_url).lifespan():
        pass
    async with Rapids(url=redis_url, watch=[WORK]).lifespan():
        await eventually(lambda: looks)
    assert len({id(one) for one in looks}) == 1


async def announce(redis: Redis, at: int, stream: str, dlq: str, maxlen: int | None = None) -> None:
    await redis.zadd(announced_routers(), {orjson.dumps([stream, f"g{at}", dlq, maxlen]): at})


def directory_of(redis: Redis) -> Directory:
    return Directory(redis, streams=["own"], queues={}, watch=["seen"], dead_letters=True, finds=True)


async def test_only_what_can_be_read_is_found_and_not_more_than_the_limit(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "MAX_FOUND", 3)
    await redis.set("no-stream", "text")
    for at, stream in enumerate(("first", "a", "a\nb", "{", "no-stream", "b")):
        await announce(redis, at, stream, "no-stream")
    await announce(redis, 9, "c", "c-failed")
    shown = directory_of(redis)
    await shown.look()
    assert shown.streams == ["a", "b", "c", "own", "seen"]
    assert sorted(shown.queues) == ["c-failed", default_dlq("seen")]


async def test_a_queue_has_the_largest_limit_that_a_router_announced(redis: Redis) -> None:
    shown, dlq = directory_of(redis), default_dlq("seen")
    unknown = shown.queues[dlq]
    assert await maxlen(unknown) is None, "a restored letter trims nothing that an unknown router keeps"
    for at, limit in enumerate((50, 70, 60)):
        await announce(redis, at, "seen", dlq, limit)
    await shown.look()
    known = shown.queues[dlq]
    assert await maxlen(known) == 70
    await shown.look()
    assert shown.queues[dlq] is known
    await announce(redis, 9, "seen", dlq, None)
    await shown.look()
    assert await maxlen(shown.queues[dlq]) is None


async def maxlen(queue: DeadLetterQueue) -> int | None:
    return (await queue.stats()).maxlen


@pytest.mark.parametrize(
    ("watch", "error", "says"),
    [
        ("orders", TypeError, "watch must be a list of names of streams, or None, not 'orders'"),
        (7, TypeError, "watch must be a list of names of streams, or None, not 7"),
        (["orders", ""], ValueError, r"watch\[1\]: stream must be a non-empty string of printable characters, not ''"),
        (["{orders"], ValueError, r"watch\[0\]: stream must have no braces or a valid hash tag .* not '{orders'"),
        ([7], TypeError, r"watch\[0\]: stream must be a non-empty string, not 7"),
    ],
)
def test_an_invalid_name_is_refused_where_it_is_given(watch: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        Rapids(watch=watch)
