"""`GET /rapids/metrics`: who may read it, what it has, and what it says while Redis is away."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import pytest
import redis as redis_sync
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from rapids import BaseEvent, EventEmitter, EventRouter
from rapids.exceptions import NotConfiguredError
from rapids.inspection import group_reader
from rapids_fastapi import AdminUser, Rapids
from tests.fastapi.helpers import BEARER, DLQ, STREAM, admin_app, async_client_of, client_for, put_letter
from tests.metrics.test_exposition import OPENMETRICS, Series, series, value
from tests.redis.proxy import proxy_to
from tests.support import eventually, idle_router

PATH = "/rapids/metrics"


class FaMeasured(BaseEvent):
    n: int = 0


def read(text: str) -> Series:
    return series(text_string_to_metric_families(text))


def user(*permissions: Any) -> Any:
    return lambda connection: AdminUser("prometheus", permissions)


@pytest.mark.parametrize(
    ("options", "headers", "status"),
    [
        ({}, BEARER, 404),
        ({}, {}, 404),
        ({"metrics": "off", "admin_auth": user("metrics")}, {}, 404),
        ({"metrics": "permission"}, BEARER, 200),
        ({"metrics": "permission"}, {}, 401),
        ({"metrics": "permission", "admin_auth": user("metrics")}, {}, 200),
        ({"metrics": "permission", "admin_auth": user("read", "edit")}, {}, 403),
        ({"metrics": "anyone"}, {}, 200),
        ({"metrics": "anyone", "admin_auth": lambda connection: None}, {}, 200),
    ],
)
def test_who_may_read_metrics(redis_url: str, options: dict[str, Any], headers: Any, status: int) -> None:
    with client_for(redis_url, headers=headers, **options) as client:
        answer = client.get(PATH)
    assert answer.status_code == status, answer.text
    if status == 404:
        assert "Rapids(metrics='permission')" in answer.json()["detail"]
    if status == 403:
        assert answer.json()["permission"] == "metrics"


def test_who_may_only_read_metrics_sees_nothing_else(redis_url: str) -> None:
    with client_for(redis_url, headers={}, metrics="permission", admin_auth=user("metrics")) as client:
        assert client.get(PATH).status_code == 200
        assert client.get("/rapids/api/dead-letters").status_code == 403
        assert client.get("/rapids/api/streams").status_code == 403


def test_metrics_for_anyone_open_nothing_else_also_without_a_token(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAPIDS_ADMIN_TOKEN")
    with client_for(redis_url, headers={}) as client:
        assert "Metrics are off" in client.get(PATH).json()["detail"]
    with client_for(redis_url, headers={}, metrics="anyone") as client:
        assert client.get(PATH).status_code == 200
        assert client.get("/rapids/api/dead-letters").status_code == 403


async def test_a_scrape_has_what_the_process_counted_and_its_groups(redis: Redis) -> None:
    router, emitter = EventRouter(stream=STREAM, group="billing"), EventEmitter(stream=STREAM)

    @router.on(FaMeasured)
    async def handle(event: FaMeasured) -> None: ...

    rapids = Rapids(redis=redis, emitter=emitter, routers=[router], metrics="anyone")
    async with async_client_of(admin_app(rapids)) as client:
        await emitter.emit([FaMeasured(), FaMeasured()])
        await eventually(lambda: router.counters.total("acked") == 2)
        answer = await client.get(PATH)
        openmetrics = await client.get(PATH, headers={"Accept": OPENMETRICS})

    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert openmetrics.text.endswith("# EOF\n")
    found, process = read(answer.text), str(os.getpid())
    assert value(found, "rapids_events_emitted_total", process=process, event_type="fa.measured") == 2
    assert value(found, "rapids_events_handled_total", process=process, group="billing", handler="handle") == 2
    assert value(found, "rapids_handling_seconds", le="+Inf", handler="handle") == 2
    assert value(found, "rapids_group_consumers_alive", group="billing", stream=STREAM) == 1
    assert value(found, "rapids_dlq_limit_letters", dlq=DLQ) == 10_000


def test_all_groups_of_watched_streams_are_in_it(redis_url: str) -> None:
    put_letter(redis_url, "{other}:dlq", original_group="shipping")
    with redis_sync.Redis.from_url(redis_url) as redis:
        redis.xgroup_create("other", "shipping", "0", mkstream=True)
    with client_for(redis_url, metrics="permission", watch=["other"], routers=[idle_router(stream=STREAM)]) as client:
        found = read(client.get(PATH).text)
    groups = {(labels["stream"], labels["group"]) for labels, _ in found["rapids_group_lag_entries"]}
    assert groups == {(STREAM, "default"), ("other", "shipping")}
    assert value(found, "rapids_dead_letters", dlq="{other}:dlq", group="shipping") == 1


async def test_an_outage_leaves_the_counters(redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_reader, "FRESH", 0.0)
    emitter = EventEmitter(stream=STREAM)
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url) as redis_client:
        rapids = Rapids(redis=redis_client, emitter=emitter, metrics="anyone")
        async with async_client_of(admin_app(rapids)) as client:
            await emitter.emit(FaMeasured())
            await proxy.refuse()
            await proxy.cut()
            answer = await client.get(PATH)
            await proxy.accept()
    assert answer.status_code == 200
    found = read(answer.text)
    assert (value(found, "rapids_up"), value(found, "rapids_events_emitted_total")) == (0, 1)


# --- the option -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["open", "", None, True])
def test_another_value_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"^metrics must be one of off, permission, anyone, not "):
        Rapids(metrics=wrong)


def test_without_the_package_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_spec(name: str) -> object:
        return None if name == "prometheus_client" else importlib.util.find_spec(name)

    monkeypatch.setattr("rapids.metrics.exposition.find_spec", find_spec)
    Rapids()
    with pytest.raises(NotConfiguredError, match=r"^metrics='anyone' needs prometheus-client, .* 'rapids-fastapi\[pro"):
        Rapids(metrics="anyone")
