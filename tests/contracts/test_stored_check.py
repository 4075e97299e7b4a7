"""What is stored, parsed by today's classes: entries, pending ones, replays, letters; and routers that wait for it."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis as redis_sync
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import field_validator

from rapids import BaseEvent, EventRouter, readiness
from rapids.clients import open_client
from rapids.contracts import StoredCheck, check_stored, stored_check
from rapids.redaction import Redactor
from rapids_fastapi import Rapids
from tests.cli.helpers import Command
from tests.fastapi.helpers import letter_fields
from tests.support import eventually

STREAM = "contracts:stored"
DLQ = "{contracts:stored}:dlq"
REPLAYS = "{contracts:stored}:rapids:replay:billing"
SECRET = "hunter2-hunter2"


class StoredOrder(BaseEvent):
    order_id: str
    total: int
    password: str = ""

    @field_validator("total")
    @classmethod
    def check_total(cls, total: int, info: Any) -> int:
        if total < 0:
            raise ValueError(f"negative, with {SECRET}")
        return total


class StoredOther(BaseEvent):
    n: int


router = EventRouter(stream=STREAM, group="billing", dlq_stream=DLQ)


@router.on(StoredOrder)
async def bill(event: StoredOrder) -> None: ...


@router.on(StoredOther)
async def count(event: StoredOther) -> None: ...


def fields(event_type: str = "stored.order", version: int = 1, **data: Any) -> dict[str, str]:
    return {
        "event_type": event_type,
        "schema_version": str(version),
        "data": json.dumps(data),
        "id": "e-1",
        "timestamp": "2026-01-01T00:00:00+00:00",
        "correlation_id": "",
        "causation_id": "",
        "metadata": "{}",
    }


GOOD = fields(order_id="o-1", total=1)
OLD = fields(order_id="o-1", total="none", password=SECRET)
NEGATIVE = fields(order_id="o-1", total=-1, password=SECRET)


@pytest.fixture
def raw(redis_url: str) -> Iterator[redis_sync.Redis]:
    with redis_sync.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def checked(url: str, **options: Any) -> StoredCheck:
    async def session() -> StoredCheck:
        async with open_client(url) as client:
            return await check_stored(client, [STREAM], dlqs=[DLQ], **options)

    return asyncio.run(session())


def found(check: StoredCheck) -> list[tuple[str, str, str, str, int]]:
    return [(one.place, one.group, one.event_type, one.pointer, one.count) for one in check.problems]


def test_everything_is_parsed_and_nothing_changes(raw: redis_sync.Redis, redis_url: str) -> None:
    for one in (GOOD, OLD, GOOD, OLD, fields("stored.other", n=1), fields("unknown.type", x=1)):
        raw.xadd(STREAM, one)
    raw.xgroup_create(STREAM, "billing", "0")
    raw.xreadgroup("billing", "worker", {STREAM: ">"}, count=2)  # one of them does not parse
    raw.xadd(REPLAYS, {**OLD, "replay_handler": "bill", "replay_of": "1-1"}, id="7-1")
    raw.xgroup_create(REPLAYS, "billing", "0")
    raw.xreadgroup("billing", "worker", {REPLAYS: ">"}, count=2)
    letter = letter_fields(original_stream=STREAM, original_group="billing", **OLD)
    raw.xadd(DLQ, letter)  # type: ignore[arg-type]
    before = [raw.xinfo_stream(name, full=True) for name in (STREAM, DLQ)]

    check = checked(redis_url)

    assert (check.entries, check.pending, check.letters) == (6, 3, 1)
    assert (check.failed, check.known, check.complete) == (5, 0, True)
    assert sorted(found(check)) == [
        ("entries", "", "stored.order", "/total", 2),
        ("letters", "billing", "stored.order", "/total", 1),
        ("pending", "billing", "stored.order", "/total", 2),
    ]
    assert "5 of these would not parse: 6 entries, 3 pending, 1 letters" in str(check)
    assert [raw.xinfo_stream(name, full=True) for name in (STREAM, DLQ)] == before


def test_only_the_newest_of_each_type_are_parsed(raw: redis_sync.Redis, redis_url: str) -> None:
    raw.xadd(STREAM, fields("stored.other", n="none"))
    raw.xadd(STREAM, OLD)
    for _ in range(120):
        raw.xadd(STREAM, GOOD)

    check = checked(redis_url, newest=120)
    assert (check.entries, check.failed) == (121, 1), "the rare type is found behind many others"
    assert checked(redis_url, newest=121).failed == 2
    with pytest.raises(ValueError, match="newest must be"):
        checked(redis_url, newest=0)
    late = checked(redis_url, seconds=1e-6)
    assert (late.complete, "not everything was read" in str(late)) == (False, True)


def test_hidden_values_stay_hidden(raw: redis_sync.Redis, redis_url: str) -> None:
    raw.xadd(STREAM, NEGATIVE)
    raw.xadd(STREAM, fields(order_id="o-1", total=1, password={"in": SECRET}))
    check = checked(redis_url)
    assert check.failed == 2
    assert SECRET not in repr(check) + check.reasons + str(check)


def test_events_that_take_long_are_not_read_in_the_event_loop(
    raw: redis_sync.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may write to the stream must not stop the application, which checks again and again."""
    searched: list[threading.Thread] = []
    search = Redactor.document

    def noting(redactor: Redactor, document: bytes, also: Any = ()) -> Any:
        searched.append(threading.current_thread())
        return search(redactor, document, also)

    monkeypatch.setattr(Redactor, "document", noting)
    hostile = [f"password=secret-{number}" for number in range(300)]
    raw.xadd(STREAM, fields(order_id=hostile, total=1))  # type: ignore[arg-type]
    assert checked(redis_url).failed == 1
    assert searched
    assert threading.main_thread() not in searched


def test_what_a_letter_says_already_is_known(raw: redis_sync.Redis, redis_url: str) -> None:
    entry_id = raw.xadd(STREAM, OLD)
    letter = letter_fields(
        original_stream=STREAM, original_msg_id=entry_id, reason="deserialization_error", handler="", **OLD
    )
    raw.xadd(DLQ, letter)  # type: ignore[arg-type]

    check = checked(redis_url)
    assert (check.failed, check.known) == (0, 2)
    assert all(one.is_known for one in check.problems)


def plug_in(url: str, **options: Any) -> Rapids:
    return Rapids(routers=[billing_router()], url=url, **options)


def billing_router() -> EventRouter:
    made = EventRouter(stream=STREAM, group="billing", dlq_stream=DLQ)
    made.on(StoredOrder)(bill)
    return made


async def test_no_router_begins_while_something_stored_cannot_be_read(
    raw: redis_sync.Redis, redis_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_check, "PAUSE", 0.05)
    monkeypatch.setattr(readiness, "_FRESH", -1.0)
    caplog.set_level(logging.INFO, "rapids")
    raw.xadd(STREAM, OLD)
    async with plug_in(redis_url, check_stored=10, dead_letters=False).lifespan() as state:
        ready = state["rapids"].is_ready
        looked = reads(raw)
        await eventually(lambda: reads(raw) > looked + 2)
        assert not await ready()
        assert raw.xinfo_groups(STREAM) == [], "no router began"
        raw.delete(STREAM)
        await eventually(ready)
        assert [one["name"] for one in raw.xinfo_groups(STREAM)] == ["billing"]
    said = [record.getMessage() for record in caplog.records if "check_stored" in record.getMessage()]
    [found, unready, passed] = said
    why = "/total: Input should be"
    assert found.startswith("check_stored: 1 of these would not parse: ")
    assert found.endswith("the routers do not begin. This is checked again every 0.05 s")
    assert unready.startswith("not ready: check_stored: 1 of these would not parse: ")
    assert why in found
    assert why in unready
    assert passed == "check_stored: all parse: 0 entries, 0 pending, 0 letters: the routers begin"


def reads(raw: redis_sync.Redis) -> int:
    """How often the stream was read backwards, as the check does."""
    return raw.info("commandstats").get("cmdstat_xrevrange", {"calls": 0})["calls"]  # type: ignore[union-attr]


def test_events_for_a_newer_process_hold_nothing_back(raw: redis_sync.Redis, redis_url: str) -> None:
    raw.xadd(STREAM, fields(version=2, order_id="o-1", total=1))
    raw.xadd(STREAM, GOOD)
    with TestClient(FastAPI(lifespan=plug_in(redis_url, check_stored=10).lifespan)):
        assert raw.xinfo_groups(STREAM) != []


def test_an_application_whose_routers_are_held_back_stops(raw: redis_sync.Redis, redis_url: str) -> None:
    raw.xadd(STREAM, OLD)
    with TestClient(FastAPI(lifespan=plug_in(redis_url, check_stored=10).lifespan)):
        pass
    assert raw.xinfo_groups(STREAM) == []


@pytest.mark.parametrize("wrong", [-1, True, "10", 1.5])
def test_the_option_is_checked(wrong: Any) -> None:
    with pytest.raises(ValueError, match="check_stored must be a whole number"):
        Rapids(check_stored=wrong)


def test_the_command_reads_what_is_stored(raw: redis_sync.Redis, redis_url: str, tmp_path: Any) -> None:
    raw.xadd(STREAM, NEGATIVE)
    rapids, target = Command(""), "tests.contracts.test_stored_check:router"
    check = ("schema", "check", target, "--snapshot", str(tmp_path / "none.json"), "--url", redis_url)

    ran = rapids(*check, code=1)
    row = ran.stdout.splitlines()[1]
    assert row.startswith("contracts:stored  entries  stored.order")
    assert "/total" in row
    assert "1 of these would not parse: 1 entries" in ran.stderr
    [found] = rapids.json(*check, code=1)
    assert (found["ok"], found["stored"]["failed"], found["events"]) == (False, 1, [])
    annotated = rapids(*check, "--format", "github", code=1).stdout
    assert annotated.startswith("::error file=")
    assert SECRET not in ran.output + json.dumps(found) + annotated

    raw.delete(STREAM)
    raw.xadd(STREAM, GOOD)
    assert "all parse: 1 entries" in rapids(*check).stderr
