"""The audit log: who changed what, when and why."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids import DeadLetterQueue, GroupControl
from rapids._storage.keys import audit_log
from rapids.audit import LISTING, AuditEntry, AuditLog, merged_page
from rapids.exceptions import LetterStateError
from tests.dead_letters.helpers import write
from tests.worker.helpers import DLQ, GROUP, STREAM, check_keys

DAY_MS = 86_400_000


@pytest.fixture
def queue(redis: Redis) -> DeadLetterQueue:
    return DeadLetterQueue(redis, DLQ)


def described(entry: AuditEntry) -> tuple[str, ...]:
    return entry.action, entry.target, entry.actor, entry.reason, entry.operation


async def test_a_log_that_does_not_exist_is_empty(redis: Redis) -> None:
    page = await AuditLog(redis, DLQ).list()
    assert (page.items, page.cursor) == ((), None)


async def test_every_change_of_a_letter_is_in_it_once(queue: DeadLetterQueue, redis: Redis) -> None:
    first, second = await write(redis), await write(redis)
    await queue.discard(first, actor="ada", reason="é\nnoise")
    await queue.restore(first, actor="bob")
    await queue.replay(second, actor="eve", reason="fixed", scope="group")
    for change in (queue.replay(second), queue.discard(second), queue.restore(second)):
        with pytest.raises(LetterStateError):
            await change

    items = (await AuditLog(redis, DLQ).list()).items

    assert [described(entry) for entry in items] == [
        ("letter_replayed", second, "eve", "fixed", ""),
        ("letter_restored", first, "bob", "", ""),
        ("letter_discarded", first, "ada", "é\nnoise", ""),
    ]
    assert [dict(entry.details) for entry in items] == [{"scope": "group"}, {}, {}]
    assert all(abs(entry.at - datetime.now(UTC)) < timedelta(minutes=1) for entry in items)
    assert 89 * DAY_MS < await redis.pttl(audit_log(DLQ)) <= 90 * DAY_MS
    await check_keys(redis)


async def test_the_log_names_the_one_of_many_callers_that_changed_a_letter(
    queue: DeadLetterQueue, redis: Redis
) -> None:
    letter_id = await write(redis)
    changes = [queue.discard(letter_id, actor=str(number)) for number in range(8)]
    results = await asyncio.gather(*changes, return_exceptions=True)
    [winner] = [str(at) for at, result in enumerate(results) if not isinstance(result, Exception)]
    assert [entry.actor for entry in (await AuditLog(redis, DLQ).list()).items] == [winner]


async def test_the_actors_of_a_pause_and_a_resume_are_in_the_log_of_the_stream(redis: Redis) -> None:
    await redis.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    control = GroupControl(redis, STREAM, GROUP)
    assert await control.resume(actor="ada") is None
    await control.pause(actor="ada", reason="the bank is down")
    await control.pause(actor="bob", reason="it is paused already")
    await control.resume(actor="eve", reason="it is back")

    items = (await AuditLog(redis, STREAM).list()).items

    assert [described(entry) for entry in items] == [
        ("group_resumed", GROUP, "eve", "it is back", ""),
        ("group_paused", GROUP, "ada", "the bank is down", ""),
    ]
    assert items[0].details == {"paused_by": "ada", "paused_because": "the bank is down"}
    await check_keys(redis)


async def test_a_manual_pause_without_details_is_resumed_and_recorded(redis: Redis) -> None:
    await redis.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    await redis.hset("{dv:events}:rapids:paused:dv-group", "x", "y")
    await GroupControl(redis, STREAM, GROUP).resume(actor="eve")
    [entry] = (await AuditLog(redis, STREAM).list()).items
    assert (entry.action, entry.details) == ("group_resumed", {})


async def test_what_changed_nothing_is_added(redis: Redis) -> None:
    log = AuditLog(redis, DLQ)
    await log.add("export_started", actor="ada", reason="for the bank", details={"filter": "é" * 1_000, "none": ""})
    [entry] = (await log.list()).items
    assert described(entry) == ("export_started", "", "ada", "for the bank", "")
    assert entry.details == {"filter": "é" * 1_000}
    await check_keys(redis)
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("action must be a non-empty string", {"action": ""}),
        ("actor must be a string of at most 200", {"actor": "x" * 201}),
        (r"details must not name .*, as 'letter' does", {"details": {"letter": "1-1"}}),
        (r"details must not name .*, as 'actor' does", {"details": {"actor": "eve"}}),
        (r"details\['x'\] must be a string of at most 1000", {"details": {"x": "x" * 1_001}}),
    ]
    for message, options in wrong:
        with pytest.raises(ValueError, match=message):
            await log.add(**{"action": "x"} | options)
    with pytest.raises(TypeError, match=r"details\['n'\] must be a string"):
        await log.add("x", details={"n": 1})  # type: ignore[dict-item]


@pytest.mark.parametrize("limit", [1, 2, 3, 9, 10, 500])
async def test_cursors_lead_to_every_entry_once_while_others_come(redis: Redis, limit: int) -> None:
    for number in range(9):
        await redis.xadd(audit_log(DLQ), {"action": str(number)})
    log, found, cursor = AuditLog(redis, DLQ), list[str](), None
    while True:
        page = await log.list(cursor=cursor, limit=limit)
        found += [entry.action for entry in page.items]
        if (cursor := page.cursor) is None:
            break
        await redis.xadd(audit_log(DLQ), {"action": "newer"})
    assert found == list("876543210")


async def test_some_ten_thousand_entries_are_kept(queue: DeadLetterQueue, redis: Redis) -> None:
    letter_id = await write(redis)
    async with redis.pipeline(transaction=False) as pipeline:
        for _ in range(10_500):
            pipeline.xadd(audit_log(DLQ), {"action": "old"})
        await pipeline.execute()
    await queue.discard(letter_id)
    assert await redis.xlen(audit_log(DLQ)) <= 10_200
    assert (await AuditLog(redis, DLQ).list(limit=1)).items[0].action == "letter_discarded"


async def test_an_entry_of_another_writer_is_shown_as_far_as_it_can_be_read(redis: Redis) -> None:
    await redis.execute_command("XADD", audit_log(DLQ), "18446744073709551615-1", b"\xff", b"\xfe", "actor", b"\xff")
    [entry] = (await AuditLog(redis, DLQ).list()).items
    assert (entry.at.year, entry.actor, entry.action, entry.target) == (9999, "\ufffd", "", "")
    assert entry.details == {"\ufffd": "\ufffd"}


@pytest.mark.parametrize("cursor", ["", "x", "1-1", "+", "\x00", "ZW50cnk6MC0w", "Z3JvdXBzOjE6YQ"])
async def test_a_cursor_that_no_page_returned_is_refused(redis: Redis, cursor: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        await AuditLog(redis, DLQ).list(cursor=cursor)


@pytest.mark.parametrize("limit", [0, 501, -1])
async def test_a_limit_out_of_range_is_refused(redis: Redis, limit: int) -> None:
    with pytest.raises(ValueError, match="limit"):
        await AuditLog(redis, DLQ).list(limit=limit)


def test_an_impossible_stream_name_is_refused(redis: Redis) -> None:
    options: list[Any] = ["", "}{"]
    for stream in options:
        with pytest.raises(ValueError, match="stream"):
            AuditLog(redis, stream)


class TestSeveralLogs:
    async def test_changes_are_in_order_by_time_and_then_by_stream(self, redis: Redis) -> None:
        last = 2**64 - 1
        for stream, entry_id in [("a", "9-2"), ("b", "9-2"), ("b", f"9-{last}"), ("a", "10-0"), ("b", f"{last}-0")]:
            await redis.xadd(audit_log(stream), {"action": "x"}, id=entry_id)
        in_order = [(f"{last}-0", "b"), ("10-0", "a"), (f"9-{last}", "b"), ("9-2", "a"), ("9-2", "b")]
        for limit in (1, 2, 4, 5):
            seen: list[tuple[str, str]] = []
            cursor: str | None = None
            while True:
                page = await merged_page(redis, ["b", "a", "no log"], cursor=cursor, limit=limit)
                seen += [(change.id, change.stream) for change in page.items]
                if (cursor := page.cursor) is None:
                    break
            assert seen == in_order

    @pytest.mark.parametrize(
        "place", ["", "x", "1", "0-0 s", "1-1-1 s", "18446744073709551616-0 s", "01-1 s", "1-18446744073709551616 s"]
    )
    async def test_a_cursor_of_no_page_is_refused(self, redis: Redis, place: str) -> None:
        with pytest.raises(ValueError, match="cursor must be one"):
            await merged_page(redis, [STREAM], cursor=LISTING.cursor(place))

    async def test_an_option_that_makes_no_sense_is_refused(self, redis: Redis) -> None:
        with pytest.raises(ValueError, match="limit must be a whole number from 1 to 500, not 501"):
            await merged_page(redis, [STREAM], limit=501)
        with pytest.raises(TypeError, match="streams must be several names, not 'orders'"):
            await merged_page(redis, "orders")
