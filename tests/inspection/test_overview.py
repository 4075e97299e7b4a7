"""The overview: what it shows of streams and groups, what it says is wrong, and what it costs."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids import BaseEvent, GroupControl, NonRetryableError
from rapids.backoff import constant
from rapids.dead_letters import Cause
from rapids.inspection import GroupSnapshot, Overview, OverviewReader, WatchedGroup
from rapids.inspection.findings import Failing, GroupFacts, Retrying, findings_of
from tests.support import eventually
from tests.worker.helpers import (
    DLQ,
    GROUP,
    STREAM,
    DvOrder,
    DvPayment,
    calls,
    emit_orders,
    make_emitter,
    make_router,
    running,
)

WATCHED = (WatchedGroup(STREAM, GROUP, DLQ, 500), WatchedGroup(STREAM, None), WatchedGroup("missing", None))
NOW = datetime(2025, 11, 23, 20, 59, 31, tzinfo=UTC)


async def overview(redis: Redis, watched: Sequence[WatchedGroup] = WATCHED) -> Overview:
    return await OverviewReader(redis, lambda: watched).read()


def kinds(found: Overview) -> list[tuple[str, str]]:
    return [(one.severity, one.kind) for one in found.findings]


# --- on a server ----------------------------------------------------------------------------------------------------


async def test_a_failing_handler_comes_first_and_the_last_hour_is_there(redis: Redis) -> None:
    router = make_router(redis, redelivery_backoff=constant(600))

    @router.on(DvOrder)
    async def ship_order(event: BaseEvent) -> None:
        raise NonRetryableError("never")

    @router.on(DvPayment)
    async def charge(event: BaseEvent) -> None:
        raise TimeoutError("the bank")

    await redis.xgroup_create(STREAM, "unstarted", "0", mkstream=True)
    async with running(router):
        await emit_orders(redis, 1, 2, 3)
        await make_emitter(redis).emit(DvPayment())
        await eventually(lambda: router.counters.total("dead") == 3 and router.counters.total("retried") == 1)
        found = await overview(redis)
    later = await overview(redis)

    assert kinds(found) == [("danger", "failing"), ("danger", "no_living_consumer"), ("warning", "retrying")]
    failing, dead, retrying = found.findings
    pattern = r"`ship_order` has failed 3 times since .*\d\d:\d\d UTC, NonRetryableError; `charge` fails, too"
    assert re.fullmatch(pattern, failing.message), failing.message
    assert (failing.stream, failing.group, failing.dlq, failing.count) == (STREAM, GROUP, DLQ, 3)
    assert (dead.group, dead.count) == ("unstarted", 4)
    assert re.match(r"1 entry waits for another try of `charge` \(TimeoutError\), the next at ", retrying.message)

    [stream], [queue] = found.streams, found.queues
    assert (stream.stream, stream.length, stream.more_groups) == (STREAM, 4, False)
    assert (queue.dlq, queue.length, queue.maxlen, queue.causes, found.missing) == (DLQ, 3, 500, 1, ("missing",))
    group = stream.groups[0]
    assert (group.group, group.consumers_alive, group.waiting, group.dlq, group.dead_letters) == (GROUP, 1, 1, DLQ, 3)
    assert (len(stream.appended), len(group.handled)) == (60, 60)
    # The worker reported what it had not yet reported when it stopped.
    last = later.streams[0].groups[0].last_hour
    assert last is not None
    assert (last.delivered, last.handled, last.failed, last.retried, last.dead) == (4, 0, 4, 1, 3)
    assert stream.groups[1].last_hour is None


async def test_readers_at_the_same_time_share_a_read_and_nothing_is_searched(redis: Redis) -> None:
    """Fifty groups on a stream of many types cost a few round trips, each of a bounded size, and no SCAN."""
    pipeline = redis.pipeline(transaction=False)
    for number in range(200):
        pipeline.xadd(STREAM, {"event_type": f"type.{number}", "data": "{}"})
    for number in range(60):
        pipeline.xgroup_create(STREAM, f"group-{number:02}", "0")
    await pipeline.execute()
    await GroupControl(redis, STREAM, "group-07").pause(actor="ann", reason="the bank is down")
    reader = OverviewReader(redis, lambda: [WatchedGroup(STREAM, None, DLQ)])
    before = await calls(redis)
    found = await reader.read()
    assert await reader.read() is found
    used = {name: count - before.get(name, 0) for name, count in (await calls(redis)).items()}
    assert not {name for name, count in used.items() if count and ("scan" in name or name == "keys")}
    assert used["get"] == 50, "one read of the rates of each group"
    [stream] = found.streams
    assert (len(stream.groups), stream.more_groups) == (50, True)
    assert [one.group for one in stream.groups if one.pause is not None] == ["group-07"]
    assert len(found.findings) == 50
    [paused] = [one for one in found.findings if one.kind == "paused"]
    assert re.search(r"was paused by ann at .* UTC: the bank is down; 200 entries wait", paused.message)


async def test_a_key_that_is_no_stream_does_not_hide_the_others(redis: Redis) -> None:
    await redis.set("text", "no stream")
    await redis.xadd(STREAM, {"a": "b"})
    watched = [WatchedGroup("text", None, "text"), WatchedGroup(STREAM, None)]
    found = await overview(redis, watched)
    assert ([one.stream for one in found.streams], found.missing, found.queues) == ([STREAM], ("text",), ())
    assert kinds(found) == [("warning", "nobody_reads")]


# --- in words -------------------------------------------------------------------------------------------------------


def cause(handler: str = "ship_order", *, count: int = 312, minutes_ago: float = 0, group: str = GROUP) -> Failing:
    last = NOW - timedelta(minutes=minutes_ago)
    made = Cause(
        fingerprint="9f2c4b7d0a1e6f38",
        group=group,
        handler=handler,
        event_type="dv.order",
        reason="non_retryable",
        error_type="bank.errors.TimeoutError",
        position="",
        count=count,
        first_at=last - timedelta(minutes=45),
        last_at=last,
    )
    return Failing(made, DLQ, STREAM)


def group(**fields: int | None) -> GroupSnapshot:
    values = dict.fromkeys(("lag", "pending", "held", "waiting", "parked", "replays", "consumers"), 0)
    values |= {"consumers_alive": 1, "oldest_unsettled_ms": None}
    rest = {"lag_exact": True, "last_delivered_at": None, "entries_read": None, "oldest_unsettled_id": None}
    return GroupSnapshot(at=NOW, stream=STREAM, group=GROUP, last_delivered_id="0-0", **(values | rest | fields))  # type: ignore[arg-type]


def messages(causes: Sequence[Failing] = (), groups: Sequence[GroupFacts] = ()) -> list[str]:
    return [one.message for one in findings_of(NOW, (), groups, causes, ())]


def facts(handled: float | None = None, **fields: int | None) -> GroupFacts:
    return GroupFacts(group(**fields), handled, others_alive=False)


def test_a_cause_says_since_when_how_often_and_whom_else_it_hurts() -> None:
    assert messages([cause()]) == [
        "`ship_order` has failed 312 times since 20:14 UTC, TimeoutError; nothing else is affected"
    ]
    assert messages([cause(count=1), cause("charge")])[1].endswith("; `charge` fails, too")
    assert messages([cause(), cause("a"), cause("b")])[0].endswith("; 2 other handlers fail, too")
    retried = GroupFacts(group(waiting=5), None, False, [Retrying("charge", "OSError", NOW)])
    assert messages([cause()], [retried])[0].endswith("; `charge` fails, too")
    assert messages([cause("", count=2)])[0].startswith(f"group `{GROUP}` could not read 2 entries since 20:14 UTC")


@pytest.mark.parametrize(
    ("errors", "advice"),
    [
        (["OSError", "rapids.exceptions.RetryAfter"], "look at their attempts"),
        (["rapids.exceptions.RetryAfter"], "see what they wait for"),
    ],
)
def test_only_a_wait_that_handlers_did_not_ask_for_may_end_in_a_failure(errors: list[str], advice: str) -> None:
    waits = GroupFacts(group(waiting=5), None, False, [Retrying("charge", one, NOW) for one in errors])
    [found] = findings_of(NOW, (), [waits], (), ())
    assert (found.kind, found.advice.partition(";")[0].partition(":")[0]) == ("retrying", advice)


def test_what_failed_long_ago_is_a_warning_and_nobody_is_affected_by_it() -> None:
    found = findings_of(NOW, (), (), [cause(minutes_ago=1_500), cause("charge", count=1)], ())
    assert [(one.kind, one.severity) for one in found] == [("failing", "danger"), ("letters", "warning")]
    assert found[0].message == "`charge` has failed once since 20:14 UTC, TimeoutError; nothing else is affected"
    assert found[1].message == (
        "312 dead letters of `ship_order` since 2025-11-22 19:14 UTC, TimeoutError; none in the last hour"
    )


def test_a_group_that_does_nothing_is_stuck_and_one_that_is_slow_is_behind() -> None:
    assert messages(groups=[facts(0.0, lag=12, oldest_unsettled_ms=90_000)]) == [
        f"nothing was handled for a minute, although 12 entries of group `{GROUP}` wait, the oldest for 90 seconds"
    ]
    assert messages(groups=[facts(3.0, lag=1, oldest_unsettled_ms=840_000)]) == [
        f"1 entry of group `{GROUP}` is not handled yet, the oldest for 14 minutes"
    ]
    assert messages(groups=[facts(3.0, lag=12, oldest_unsettled_ms=90_000)]) == []
    assert messages(groups=[facts(None, lag=1, consumers_alive=0)]) == [
        f"no consumer of group `{GROUP}` is alive, and 1 entry waits"
    ]
    assert messages(groups=[facts(None, consumers_alive=0)]) == [], "it has nothing to do"


async def test_it_is_made_in_a_thread(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of groups take seconds, in which the event loop goes on."""
    where = list[threading.Thread]()

    def noted(*arguments: Any) -> Any:
        where.append(threading.current_thread())
        return findings_of(*arguments)

    monkeypatch.setattr("rapids.inspection.overview.findings_of", noted)
    await overview(redis)
    assert [one is threading.main_thread() for one in where] == [False]
