"""Handlers that get another name: what is stored under the old one counts for the new one, where the router is told."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids import DeadLetterQueue, EventRouter, NonRetryableError
from rapids._core.attempt_log import Attempt, AttemptLog
from rapids._core.outcomes import Ledger, Wait
from rapids._core.renames import Renames, former_names
from rapids._storage.keys import Source
from rapids.backoff import constant
from rapids.counters import OTHER
from rapids.exceptions import NotConfiguredError
from tests.support import eventually
from tests.worker.helpers import (
    DLQ,
    GROUP,
    STREAM,
    DvOrder,
    DvPayment,
    check_keys,
    letters,
    make_emitter,
    make_router,
    running,
    until_settled,
)

# --- the rules ------------------------------------------------------------------------------------------------------


def test_an_old_name_leads_to_the_last_new_one() -> None:
    renames = Renames({"a": "b", "b": "c", "x": "y"}, ["c", "y", "z"])
    assert [renames.now(name) for name in ("a", "b", "c", "x", "z", "unknown")] == ["c", "c", "c", "y", "z", "unknown"]
    assert former_names({"a": "b", "b": "c", "x": "y"}, "c") == ("a", "b")
    assert former_names({"a": "b", "b": "c", "x": "y"}, "z") == ()


def test_a_ledger_is_read_with_the_names_of_today() -> None:
    renames = Renames({"old": "new"}, ["new", "other"])
    of_old, of_new = (
        Ledger(*(frozenset({name}), frozenset({"other"}), 3, frozenset({name}), (Wait(name, 2, due_ms=5),), logs))
        for name, logs in (
            ("old", (("new", attempts(3)), ("old", attempts(1, 2)), ("other", attempts(4)))),
            ("new", (("new", attempts(1, 2, 3)), ("other", attempts(4)))),
        )
    )
    assert renames.in_ledger(of_old) == of_new
    assert renames.in_ledger(of_new) == of_new


def attempts(*deliveries: int) -> AttemptLog:
    return AttemptLog.of(*map(Attempt, deliveries))


def test_of_two_waits_for_one_handler_the_one_that_has_spent_more_counts() -> None:
    renames = Renames({"old": "new"}, ["new", "first"])
    waits = (Wait("first", 1, due_ms=1), Wait("new", 1, due_ms=9), Wait("old", 2, due_ms=5))
    expected = (Wait("first", 1, due_ms=1), Wait("new", 2, due_ms=5))
    assert renames.in_ledger(Ledger(recorded=2, waits=waits)).waits == expected


@pytest.mark.parametrize(
    ("renamed", "message"),
    [
        ({"a": "pay"}, r"^renamed_handlers must be to .*'charge', 'ship'.*, not from 'a' to 'pay'"),
        ({"a": "b", "b": "pay"}, r"^renamed_handlers must be to .*'charge', 'ship'.*, not from 'a' to 'pay'"),
        ({"ship": "charge"}, r"^renamed_handlers must be from .*, not from 'ship', which one has"),
    ],
)
async def test_what_does_not_fit_the_handlers_is_refused_at_the_start(
    redis: Redis, renamed: dict[str, str], message: str
) -> None:
    router = make_router(redis, renamed_handlers=renamed)
    for name in ("charge", "ship"):
        router.on(DvOrder, name=name)(noting([]))
    with pytest.raises(ValueError, match=message):
        await router.start()
    assert not router.running


async def test_a_client_is_missed_before_a_name(redis: Redis) -> None:
    with pytest.raises(NotConfiguredError):
        await EventRouter(renamed_handlers={"a": "b"}).start()


# --- a rename while entries are pending -----------------------------------------------------------------------------


def noting(seen: list[Any], error: Exception | None = None) -> Any:
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)
        if error is not None:
            raise error

    return handle


def router_of(redis: Redis, *handlers: tuple[str, Any], **options: Any) -> EventRouter:
    router = make_router(redis, **options)
    for name, handler in handlers:
        router.on(DvOrder, name=name)(handler)
    return router


async def left_behind(redis: Redis, *handlers: tuple[str, Any], **options: Any) -> None:
    """Have an entry handled once by a service that has these handlers, and kept for another delivery."""
    router = router_of(redis, *handlers, redelivery_backoff=constant(0.2), **options)
    async with running(router):
        await make_emitter(redis).emit(DvOrder(number=7))
        await eventually(lambda: redis.hlen(Source(STREAM, GROUP).ledger))


async def test_who_was_done_under_the_old_name_does_not_run_again(redis: Redis) -> None:
    charged, shipped = list[Any](), list[Any]()
    await left_behind(redis, ("charge", noting(charged)), ("ship", noting(shipped, ValueError("no van"))))

    handlers = ("take money", noting(charged)), ("ship", noting(shipped))
    async with running(router_of(redis, *handlers, renamed_handlers={"charge": "take money"})):
        await until_settled(redis)

    assert (charged, shipped) == ([7], [7, 7])
    await check_keys(redis)


async def test_who_was_dead_under_the_old_name_gets_no_second_letter(redis: Redis) -> None:
    charged, shipped = list[Any](), list[Any]()
    refused = noting(charged, NonRetryableError("no money"))
    await left_behind(redis, ("charge", refused), ("ship", noting(shipped, ValueError("no van"))))

    handlers = ("take money", noting(charged)), ("ship", noting(shipped))
    async with running(router_of(redis, *handlers, renamed_handlers={"charge": "take money"})):
        await until_settled(redis)

    assert (charged, shipped) == ([7], [7, 7])
    assert [letter[b"handler"] for letter in await letters(redis)] == [b"charge"]


async def test_who_waited_under_the_old_name_runs_in_its_own_time_with_what_it_had_spent(redis: Redis) -> None:
    charged, refused = list[Any](), ValueError("no money")
    await left_behind(redis, ("charge", noting(charged, refused)), max_deliveries=2)

    renamed = {"charge": "pay", "pay": "take money"}
    router = router_of(redis, ("take money", noting(charged, refused)), max_deliveries=2, renamed_handlers=renamed)
    async with running(router):
        await until_settled(redis)

    assert charged == [7, 7]  # its last one
    [letter] = await letters(redis)
    assert (letter[b"handler"], letter[b"error"], letter[b"deliveries"]) == (b"take money", b"no money", b"2")
    assert [attempt.delivery for attempt in AttemptLog.load(letter[b"attempts"]).kept] == [1, 2]
    dead = router.counters.total("dead", handler="take money")
    assert (dead, router.counters.total("dead")) == (1, 1)
    await check_keys(redis)


async def test_who_gave_up_under_the_old_name_while_there_was_no_dead_letter_stream_has_a_letter_by_the_new_one(
    redis: Redis,
) -> None:
    charged, shipped, late = list[Any](), list[Any](), ValueError("no van")
    refused = noting(charged, NonRetryableError("no money"))
    await left_behind(redis, ("charge", refused), ("ship", noting(shipped, late)), dlq_stream=None)

    handlers = ("take money", noting(charged)), ("ship", noting(shipped))
    async with running(router_of(redis, *handlers, renamed_handlers={"charge": "take money"})):
        await until_settled(redis)

    assert (charged, shipped) == ([7], [7, 7])
    assert [letter[b"handler"] for letter in await letters(redis)] == [b"take money"]


async def test_services_that_know_both_names_share_a_group_while_they_are_rolled_out(redis: Redis) -> None:
    """In two steps: first the old name is there and the new one is known, then the other way round."""
    charged, shipped, van = list[Any](), list[Any](), asyncio.Event()

    async def ship(event: DvOrder) -> None:
        shipped.append(event.number)
        if not van.is_set():
            raise ValueError("no van")

    options: dict[str, Any] = {"max_deliveries": 1_000, "claim_min_idle_ms": 200}
    before = router_of(
        redis, ("charge", noting(charged)), ("ship", ship), renamed_handlers={"take money": "charge"}, **options
    )
    after = router_of(
        redis, ("take money", noting(charged)), ("ship", ship), renamed_handlers={"charge": "take money"}, **options
    )
    async with running(before, after):
        await make_emitter(redis).emit([DvOrder(number=number) for number in range(20)])
        await eventually(lambda: before.counters.total("retried") > 50 and after.counters.total("retried") > 50)
        van.set()
        await until_settled(redis)
    assert sorted(charged) == list(range(20))
    assert await letters(redis) == []


# --- without being told ---------------------------------------------------------------------------------------------


async def test_an_entry_that_waits_for_a_handler_that_is_no_more_ends_as_its_letter(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """After as many deliveries as it would have had: another process of the group may have that handler."""
    charged = list[Any]()
    await left_behind(redis, ("charge", noting(charged, ValueError("no money"))), max_deliveries=4)
    taken = list[Any]()
    caplog.set_level(logging.WARNING)
    async with running(router := router_of(redis, ("take money", noting(taken)), max_deliveries=4)):
        await until_settled(redis)

    assert (charged, taken) == ([7], [7])
    [letter] = await letters(redis)
    assert (letter[b"handler"], letter[b"reason"]) == (b"charge", b"non_retryable")
    assert b"the group has no handler 'charge'" in letter[b"error"]
    assert b"renamed_handlers={'charge': ...}" in letter[b"error"]
    assert len([one for one in caplog.messages if "waits for 'charge'" in one]) == 2
    errors = [attempt.error for attempt in AttemptLog.load(letter[b"attempts"]).kept]
    assert errors == ["no money", *(3 * [letter[b"error"].decode()])]
    assert router.counters.total("dead", handler=OTHER) == router.counters.total("dead") == 1

    charged.clear()
    async with running(router_of(redis, ("take money", noting(taken)), renamed_handlers={"charge": "take money"})):
        await DeadLetterQueue(redis, DLQ).replay(letter[b"letter_id"].decode())
        await eventually(lambda: taken == [7, 7])
    await check_keys(redis)


async def test_an_entry_that_waits_for_a_handler_of_other_types_by_now_ends_as_its_letter(redis: Redis) -> None:
    charged = list[Any]()
    await left_behind(redis, ("charge", noting(charged, ValueError("no money"))), max_deliveries=2)
    router = router_of(redis, ("ship", noting([])), max_deliveries=2)
    router.on(DvPayment, name="charge")(noting(charged))
    async with running(router):
        await until_settled(redis)
        [letter] = await letters(redis)
        assert (letter[b"handler"], letter[b"error"]) == (
            b"charge",
            b"the handler 'charge' is not for its type any more",
        )
        await DeadLetterQueue(redis, DLQ).replay(letter[b"letter_id"].decode())
        await eventually(lambda: charged == [7, 7])  # it was asked for by name


async def test_an_entry_that_waits_for_a_handler_that_is_no_more_is_parked_without_a_dead_letter_stream(
    redis: Redis,
) -> None:
    await left_behind(redis, ("charge", noting([], ValueError("no money"))), max_deliveries=2, dlq_stream=None)
    async with running(router := router_of(redis, ("ship", noting([])), max_deliveries=2, dlq_stream=None)):
        await eventually(lambda: router.counters.total("parked") == 1)
    assert list(await redis.hgetall(Source(STREAM, GROUP).parked)) != []
