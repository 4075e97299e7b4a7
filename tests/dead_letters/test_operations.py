"""Operations: their options and states, their runners, and letters that cannot be moved."""

from __future__ import annotations

import asyncio
import json

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from rapids import DeadLetterQueue, LetterFilter
from rapids._storage import keys
from rapids.audit import AuditLog
from rapids.dead_letters import runner
from rapids.dead_letters.operation import Operation, Selector
from rapids.exceptions import OperationNotFoundError, OperationRunningError, OperationStateError
from tests.dead_letters.helpers import write
from tests.dead_letters.operation_runs import ALL, ended, run, write_many
from tests.dead_letters.recorded_moves import make_operations, moved
from tests.support import eventually, full_thread_pool
from tests.worker.helpers import DLQ, all_keys, letters


async def audited(redis: Redis) -> list[tuple[bytes, bytes]]:
    return [(fields[b"action"], fields[b"actor"]) for _, fields in await redis.xrange(keys.audit_log(DLQ))]


async def test_an_operation_starts_runs_and_ends(redis: Redis) -> None:
    operations, _ = make_operations(redis)
    ids = await write_many(redis, 5)
    begun = await operations.start("replay", ALL, scope="group", actor="ann", reason="fixed")
    assert (begun.state, begun.total, begun.total_exact, begun.done) == ("running", 5, True, 0)
    assert (begun.kind, begun.selector, begun.scope, begun.actor, begun.reason) == (
        "replay",
        ALL,
        "group",
        "ann",
        "fixed",
    )
    assert (begun.upto, begun.ended_at, begun.owner) == (ids[-1], None, "")

    result = await operations.run_until_ended(begun.id)
    assert (result.state, result.done, result.skipped, result.failed) == ("completed", 5, 0, 0)
    assert result.ended_at is not None
    assert result.owner != ""
    assert await moved(redis) == ids
    assert await audited(redis) == [(b"operation_started", b"ann"), (b"operation_completed", b"ann")]


async def test_the_audit_log_says_what_was_selected_and_what_became_of_it(redis: Redis) -> None:
    operations, given = make_operations(redis)
    ids = await write_many(redis, 4, handler="ship")
    given.blocked, given.broken = {ids[1]}, {ids[1]: ValueError("no")}
    wanted = Selector(filter=LetterFilter(handler="ship", event_type="dv.*"))
    begun = await operations.start("replay", wanted, scope="group", rate=1_000.0, max_items=100, actor="ann")
    await operations.pause(begun.id)
    await operations.resume(begun.id)
    await operations.run_until_ended(begun.id)
    ended, resumed, paused, started = (await AuditLog(redis, DLQ).list()).items
    selector = json.loads(started.details["selector"])
    assert selector == {"filter": {"handler": "ship", "event_type": "dv.*"}}
    more = {name: value for name, value in started.details.items() if name != "selector"}
    assert more == {
        "kind": "replay",
        "scope": "group",
        "rate": "1000.0",
        "max_items": "100",
        "total": "4",
        "total_exact": "1",
    }
    assert (ended.action, ended.actor, ended.target) == ("operation_completed", "ann", begun.id)
    assert ended.details == {"kind": "replay", "done": "3", "skipped": "0", "failed": "1"}
    for entry in (paused, resumed):
        assert entry.details == {"kind": "replay", "done": "0", "skipped": "0", "failed": "0"}


async def test_the_audit_log_has_the_beginning_of_a_long_selector(redis: Redis) -> None:
    operations, _ = make_operations(redis)
    ids = tuple(f"{n}-0" for n in range(1, 1_001))
    await operations.cancel((await operations.start("discard", Selector(ids=ids))).id)
    cancelled, started = (await AuditLog(redis, DLQ).list()).items
    assert len(started.details["selector"]) == 1_000
    assert started.details["selector"].startswith('{"ids": ["1-0", "2-0", ')
    assert (started.details["total"], started.details.get("scope")) == ("0", None), "none of these exists"
    assert (cancelled.action, cancelled.details["kind"]) == ("operation_cancelled", "discard")


async def test_letters_written_after_the_start_are_not_selected(redis: Redis) -> None:
    operations, _ = make_operations(redis)
    ids = await write_many(redis, 3)
    begun = await operations.start("discard", ALL)
    await write_many(redis, 3)
    assert (await operations.run_until_ended(begun.id)).done == 3
    assert await moved(redis) == ids


@pytest.mark.parametrize("by", ["ids", "filter", "fingerprint"])
async def test_an_operation_moves_the_selected_letters(redis: Redis, by: str) -> None:
    operations, _ = make_operations(redis)
    wanted = await write_many(redis, 2, handler="ship")
    await write_many(redis, 2)
    fingerprint = (await DeadLetterQueue(redis, DLQ).get(wanted[0])).fingerprint
    selector = {
        "ids": Selector(ids=tuple(wanted)),
        "filter": Selector(filter=LetterFilter(handler="ship")),
        "fingerprint": Selector(fingerprint=fingerprint),
    }[by]
    begun = await operations.start("replay", selector)
    assert (await operations.get(begun.id)).selector == selector
    assert (await operations.run_until_ended(begun.id)).done == 2
    assert await moved(redis) == wanted


async def test_only_one_operation_of_a_kind_runs_at_a_time(redis: Redis) -> None:
    operations, _ = make_operations(redis)
    first = await operations.start("replay", ALL)
    await operations.start("discard", ALL)
    with pytest.raises(OperationRunningError) as caught:
        await operations.start("replay", ALL)
    assert caught.value.operation_id == first.id
    await operations.pause(first.id)
    with pytest.raises(OperationRunningError):
        await operations.start("replay", ALL)
    await operations.cancel(first.id)
    await operations.start("replay", ALL)


async def test_a_deleted_operation_blocks_no_other(redis: Redis) -> None:
    operations, _ = make_operations(redis)
    first = await operations.start("replay", ALL)
    await redis.delete(keys.operation(DLQ, first.id))
    second = await operations.start("replay", ALL)
    assert (await operations.run_until_ended(second.id)).state == "completed"
    assert [one.id for one in (await operations.list()).items] == [second.id]


async def test_an_operation_deleted_while_it_runs_is_dropped(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    operations, given = make_operations(redis)
    ids = await write_many(redis, 4)
    given.blocked = {ids[1]}

    async def delete(number: int) -> None:
        if number == 1:
            await redis.delete(keys.operation(DLQ, begun.id))

    given.before_step = delete
    begun = await operations.start("replay", ALL)
    with pytest.raises(OperationNotFoundError):
        await operations.run_until_ended(begun.id)
    assert await moved(redis) == ids[:2]
    assert not await redis.exists(keys.operation(DLQ, begun.id))


async def test_a_runner_of_the_starting_process_takes_an_operation_at_once(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "POLL_PAUSE", 3_600.0)
    operations, given = make_operations(redis)
    ids = await write_many(redis, 3)
    async with run(operations):
        await eventually(lambda: any(task.get_name().startswith("rapids-operations-") for task in asyncio.all_tasks()))
        begun = await operations.start("replay", ALL)
        assert (await ended(operations, begun.id)).done == 3
        assert await moved(redis) == ids
        for _ in range(3):  # though the one before it may have ended just now
            assert (await ended(operations, (await operations.start("replay", ALL)).id)).done == 0
    assert given.steps == 1


async def test_an_operation_paused_and_resumed_at_once_continues_at_once(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "POLL_PAUSE", 3_600.0)
    operations, given = make_operations(redis)
    await write_many(redis, 3)

    async def hesitate(number: int) -> None:
        if number == 0:
            await operations.pause(begun.id)
            await operations.resume(begun.id)

    given.before_step = hesitate
    begun = await operations.start("replay", ALL)
    async with run(operations):
        assert (await ended(operations, begun.id)).done == 3
    assert given.steps == 2


async def test_letters_that_cannot_be_moved_together_are_moved_one_by_one(redis: Redis) -> None:
    operations, given = make_operations(redis)
    ids = await write_many(redis, 10)
    given.broken = {ids[3]: ResponseError("ERR this one")}

    async def refuse(number: int) -> None:
        raise ResponseError("ERR one of these")

    given.before_step = refuse
    result = await operations.run_until_ended((await operations.start("replay", ALL)).id)
    assert (result.state, result.done, result.failed) == ("completed", 9, 1)
    assert [(one.letter_id, one.error) for one in result.errors] == [(ids[3], "ResponseError: ERR this one")]


async def test_two_kinds_of_operations_run_concurrently(redis: Redis) -> None:
    operations, _ = make_operations(redis)
    await write_many(redis, 20, handler="ship")
    await write_many(redis, 2)
    async with run(operations):
        slow = await operations.start("replay", Selector(filter=LetterFilter(handler="ship")), rate=0.001)
        quick = await operations.start("discard", Selector(filter=LetterFilter(handler="pay")))
        assert (await ended(operations, quick.id)).done == 2
        assert (await operations.get(slow.id)).state == "running"


async def test_letters_that_cannot_be_moved_are_counted_and_the_rest_is_moved(redis: Redis) -> None:
    operations, given = make_operations(redis)
    ids = await write_many(redis, 10)
    given.blocked = {ids[0], ids[4], ids[5], ids[9]}
    given.broken = {ids[4]: ValueError("no event"), ids[9]: RuntimeError("x" * 5_000)}
    begun = await operations.start("replay", ALL)
    await redis.xdel(DLQ, ids[5])
    result = await operations.run_until_ended(begun.id)
    assert (result.state, result.done, result.failed) == ("completed", 7, 2)
    assert [error.letter_id for error in result.errors] == [ids[4], ids[9]]
    assert result.errors[0].error == "ValueError: no event"
    assert len(result.errors[1].error) == 500
    assert await moved(redis) == [one for one in ids if one not in (ids[4], ids[5], ids[9])]


async def test_letters_that_are_gone_are_skipped(redis: Redis) -> None:
    operations, given = make_operations(redis)
    ids = await write_many(redis, 4)
    given.blocked = {ids[2]}
    begun = await operations.start("replay", Selector(ids=tuple(ids)))
    await redis.xdel(DLQ, ids[1], ids[2])
    result = await operations.run_until_ended(begun.id)
    assert (result.done, result.skipped, result.failed, result.errors) == (2, 2, 0, ())


async def test_a_hundred_errors_are_kept_and_all_are_counted(redis: Redis) -> None:
    operations, given = make_operations(redis)
    ids = await write_many(redis, 120)
    given.blocked = set(ids)
    given.broken = dict.fromkeys(ids, ValueError("no"))
    result = await operations.run_until_ended((await operations.start("replay", ALL)).id)
    assert (result.failed, len(result.errors)) == (120, 100)
    assert given.steps < 30, "each was tried with others first"


async def test_an_operation_moves_no_more_letters_than_its_limit(redis: Redis) -> None:
    operations, _ = make_operations(redis)
    ids = await write_many(redis, 10)
    begun = await operations.start("replay", ALL, max_items=3)
    assert (begun.total, begun.total_exact) == (3, True)
    assert (await operations.run_until_ended(begun.id)).done == 3
    assert await moved(redis) == ids[:3]


@pytest.mark.parametrize("verb", ["pause", "cancel"])
async def test_a_pause_or_cancellation_is_honoured_by_the_very_next_step(redis: Redis, verb: str) -> None:
    operations, given = make_operations(redis)
    ids = await write_many(redis, 6)
    given.blocked = {ids[2], ids[3]}

    async def interfere(number: int) -> None:
        if number == 1:  # two were moved, and one by itself
            await getattr(operations, verb)(begun.id, actor="ann")

    given.before_step = interfere
    begun = await operations.start("replay", ALL)
    async with run(operations):
        await eventually(lambda: given.steps == 2)
        held = await operations.get(begun.id)
        assert (held.state, held.done) == ({"pause": "paused", "cancel": "cancelled"}[verb], 3)
        if verb == "pause":
            assert (await operations.resume(begun.id)).state == "running"
            assert (await ended(operations, begun.id)).done == 6
            assert await moved(redis) == ids
        else:
            assert await moved(redis) == ids[:3]


async def test_an_operation_that_has_ended_cannot_be_changed(redis: Redis) -> None:
    operations, _ = make_operations(redis)
    begun = await operations.start("replay", ALL)
    assert (await operations.cancel(begun.id, actor="bob", reason="no")).state == "cancelled"
    assert (await operations.cancel(begun.id)).state == "cancelled"
    with pytest.raises(OperationStateError) as caught:
        await operations.resume(begun.id)
    assert caught.value.state == "cancelled"
    assert (await operations.run_until_ended(begun.id)).state == "cancelled"
    assert (await audited(redis))[1:] == [(b"operation_cancelled", b"bob")]
    done = await operations.run_until_ended((await operations.start("replay", ALL)).id)
    with pytest.raises(OperationStateError):
        await operations.cancel(done.id)


async def test_a_state_change_requested_twice_is_made_once(redis: Redis) -> None:
    operations, _ = make_operations(redis)
    begun = await operations.start("replay", ALL)
    assert await operations.resume(begun.id) == begun
    paused = await operations.pause(begun.id, actor="ann")
    assert await operations.pause(begun.id, actor="bob") == paused
    assert (await audited(redis))[1:] == [(b"operation_paused", b"ann")]


async def test_an_unknown_operation_is_not_found(redis: Redis) -> None:
    operations, _ = make_operations(redis)
    for ask in (operations.get, operations.pause, operations.resume, operations.cancel, operations.run_until_ended):
        with pytest.raises(OperationNotFoundError):
            await ask("x")


async def test_operations_are_listed_newest_first_and_the_last_hundred_are_kept(redis: Redis) -> None:
    operations, _ = make_operations(redis)
    paused = await operations.start("discard", ALL)
    await operations.pause(paused.id)
    started: list[str] = []
    for _ in range(103):
        begun = await operations.start("replay", ALL)
        started.insert(0, begun.id)
        await operations.cancel(begun.id)
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = await operations.list(limit=30, cursor=cursor)
        found += [one.id for one in page.items]
        if (cursor := page.cursor) is None:
            break
    assert len(found) == 100
    assert sorted(found) == sorted([*started[:99], paused.id])
    assert len(await all_keys(redis, "*rapids:operation:*")) == 100
    with pytest.raises(ValueError, match="cursor"):
        await operations.list(cursor="nonsense")
    with pytest.raises(ValueError, match="limit"):
        await operations.list(limit=101)


async def test_watching_an_operation_ends_when_it_has_ended(redis: Redis) -> None:
    operations, _ = make_operations(redis)
    await write_many(redis, 3)
    begun = await operations.start("replay", ALL)
    seen: list[Operation] = []
    async for operation in operations.watch(begun.id, interval=0.01):
        seen.append(operation)
        if len(seen) == 1:
            await operations.run_until_ended(begun.id)
    assert (seen[0], seen[-1].state, seen[-1].done) == (begun, "completed", 3)


async def test_a_preview_changes_nothing(redis: Redis) -> None:
    operations, _ = make_operations(redis)
    ids = await write_many(redis, 25)
    await write(redis, fields={b"data": b'{"number":"many"}'})
    before = await letters(redis)
    preview = await operations.preview("replay", ALL)
    assert (preview.total, preview.total_exact) == (26, True)
    assert [letter.id for letter in preview.sample] == ids[:20]
    assert (preview.checked, preview.unparseable) == (26, 1)
    assert (await operations.preview("replay", ALL, max_items=3)).total == 3
    assert await letters(redis) == before
    assert (await operations.list()).items == ()


async def test_a_preview_does_not_wait_for_handlers_that_fill_the_threads(redis: Redis) -> None:
    operations, _ = make_operations(redis)
    await write_many(redis, 1)
    async with full_thread_pool():
        assert (await operations.preview("replay", ALL)).checked == 1


async def test_each_key_expires(redis: Redis) -> None:
    operations, given = make_operations(redis)
    ids = await write_many(redis, 2)
    given.blocked, given.broken = {ids[0]}, {ids[0]: ValueError("no")}
    await operations.start("discard", ALL)
    await operations.run_until_ended((await operations.start("replay", ALL)).id)
    for key in await all_keys(redis, "*:rapids:operat*"):
        assert await redis.pttl(key) > 0, key
    assert not await redis.exists(keys.operating(DLQ, "replay"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "remove"}, "kind must be 'replay' or 'discard' or 'restore', not 'remove'"),
        ({"scope": "all"}, "scope must be"),
        ({"rate": 0}, "rate must be a finite number of letters a second above 0, or None, not 0"),
        ({"rate": float("nan")}, "rate must be"),
        ({"max_items": 0}, "max_items must be a whole number of 1 or more, or None, not 0"),
        ({"actor": "x" * 201}, "actor must be"),
        ({"reason": "x" * 1_001}, "reason must be"),
    ],
)
async def test_options_are_checked(redis: Redis, options: dict[str, object], message: str) -> None:
    operations, _ = make_operations(redis)
    given: dict[str, object] = {"kind": "replay", "selector": ALL} | options
    with pytest.raises(ValueError, match=message):
        await operations.start(**given)  # type: ignore[arg-type]
