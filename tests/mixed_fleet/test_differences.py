"""What `docs/rapids-streams.md` says is different: each of it seen in a service of either kind."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

import pytest

from tests.mixed_fleet import environment
from tests.mixed_fleet.fleet import GROUP, STREAM, Fleet, Kind, Service
from tests.support import eventually
from tests.worker.helpers import settled

EACH = pytest.mark.parametrize("kind", ["old", "new"])
TWO = {"one": "FleetTask", "two": "FleetTask"}


def starter(fleet: Fleet, kind: Kind) -> Callable[..., Awaitable[Service]]:
    return {"old": fleet.old, "new": fleet.new}[kind]


async def all_settled(fleet: Fleet) -> None:
    await eventually(lambda: settled(fleet.redis, STREAM, GROUP))


@EACH
async def test_a_handler_after_one_that_fails(fleet: Fleet, kind: Kind) -> None:
    service = await starter(fleet, kind)(handlers=TWO, max_deliveries=1, claim_min_idle_ms=50)
    await service.tasks(1, **{f"{kind}_one": "fail"})
    await all_settled(fleet)

    assert service.done("two") == {"old": [], "new": [1]}[kind]


@EACH
async def test_which_handlers_run_again(fleet: Fleet, kind: Kind) -> None:
    service = await starter(fleet, kind)(handlers=TWO, max_deliveries=3, claim_min_idle_ms=50)
    await service.tasks(1, **{f"{kind}_two": "fail"})
    await all_settled(fleet)

    assert service.done("one") == {"old": [1, 1, 1], "new": [1]}[kind]


@EACH
async def test_how_often_a_handler_is_tried(fleet: Fleet, kind: Kind) -> None:
    service = await starter(fleet, kind)(max_deliveries=3, claim_min_idle_ms=50)
    await service.tasks(1, star="fail")

    [letter] = await eventually(fleet.letters)

    assert len(service.began()) == 3
    assert letter[b"handler"] == {"old": b"", "new": b"work"}[kind]


@EACH
async def test_no_retryable_exceptions(fleet: Fleet, kind: Kind) -> None:
    on = {"work": {"retryable_exceptions": []}}
    service = await starter(fleet, kind)(on=on, max_deliveries=2, claim_min_idle_ms=50)
    await service.tasks(1, star="fail")

    [letter] = await eventually(fleet.letters)

    assert len(service.began()) == {"old": 1, "new": 2}[kind]
    assert letter[b"reason"] == {"old": b"non_retryable", "new": b"max_deliveries_exceeded"}[kind]


@EACH
async def test_ids_inside_a_handler(fleet: Fleet, kind: Kind) -> None:
    service = await starter(fleet, kind)()
    fields = {"number": 1, "id": "e-1", "correlation_id": "c-1", "deeds": {kind: "emit"}}
    await service.emit(("FleetTask", fields))
    await eventually(lambda: 2 in service.done())

    event = service.reports("began")[-1]["event"]

    expected = {"old": (None, None), "new": ("c-1", "e-1")}[kind]
    assert (event["correlation_id"], event["causation_id"]) == expected


@EACH
async def test_a_handler_s_time_out_is_retried_as_a_time_out_error(fleet: Fleet, kind: Kind) -> None:
    on = {"work": {"timeout": 0.05}}
    service = await starter(fleet, kind)(on=on, max_deliveries=2, claim_min_idle_ms=50)
    await service.tasks(1, star="sleep:60")

    [letter] = await eventually(fleet.letters)

    assert letter[b"reason"] == b"max_deliveries_exceeded"


@EACH
async def test_the_smallest_maxlen_decides(fleet: Fleet, kind: Kind) -> None:
    """In whole nodes of a hundred entries, as both trim."""
    generous = await fleet.new(handlers={}, group="emitters", maxlen=100_000)
    await generous.tasks(*range(1_000), as_list=True)
    assert await fleet.redis.xlen(STREAM) == 1_000
    thrifty = await starter(fleet, kind)(handlers={}, maxlen=50)

    await thrifty.tasks(0)

    assert await fleet.redis.xlen(STREAM) < 200


async def test_an_exclusive_new_one_takes_at_once_what_an_old_one_works_on(fleet: Fleet) -> None:
    old = await fleet.old(claim_min_idle_ms=60_000)
    await old.tasks(1, old="sleep:60")
    await eventually(old.began)

    new = await fleet.new(claim_min_idle_ms=60_000, exclusive=True)
    await eventually(lambda: new.done() == [1])


@EACH
async def test_a_second_class_of_one_type(kind: Kind) -> None:
    code = """
from rapids import BaseEvent
class A(BaseEvent):
    event_type = "one.type"
try:
    class B(BaseEvent):
        event_type = "one.type"
except (ValueError, TypeError) as error:
    print(error)
"""
    python = environment.PYTHON if kind == "old" else sys.executable
    process = await asyncio.create_subprocess_exec(
        python, "-c", code, stdout=asyncio.subprocess.PIPE, cwd=environment.HOME
    )
    said, _ = await process.communicate()

    assert b"one.type" in said
