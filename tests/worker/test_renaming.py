"""Handlers that get another name: what is stored under the old one, an alias, counts for the handler."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids import DeadLetterQueue, EventRouter, NonRetryableError
from rapids._core.attempt_log import Attempt, AttemptLog
from rapids._core.outcomes import Ledger, Wait
from rapids._storage.keys import Source
from rapids.backoff import constant
from rapids.counters import OTHER
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


NAMES = {"old": "new", "older": "new"}


def test_a_ledger_is_read_with_present_names() -> None:
    of_old, of_new = (
        Ledger(*(frozenset({name}), frozenset({"other"}), 3, frozenset({name}), (Wait(name, 2, due_ms=5),), logs))
        for name, logs in (
            ("old", (("new", attempts(3)), ("old", attempts(1, 2)), ("other", attempts(4)))),
            ("new", (("new", attempts(1, 2, 3)), ("other", attempts(4)))),
        )
    )
    assert of_old.under(NAMES) == of_new
    assert of_new.under(NAMES) == of_new


def attempts(*deliveries: int) -> AttemptLog:
    return AttemptLog.of(*map(Attempt, deliveries))


def test_if_one_handler_waits_twice_the_wait_with_more_deliveries_counts() -> None:
    waits = (Wait("first", 1, due_ms=1), Wait("new", 1, due_ms=9), Wait("old", 2, due_ms=5))
    expected = (Wait("first", 1, due_ms=1), Wait("new", 2, due_ms=5))
    assert Ledger(recorded=2, waits=waits).under(NAMES).waits == expected


def router_with(*handlers: tuple[str, tuple[str, ...]]) -> EventRouter:
    router = make_router(None)
    for name, aliases in handlers:
        router.on(DvOrder, name=name, aliases=aliases)(noting([]))
    return router


@pytest.mark.parametrize(
    ("aliases", "whose"),
    [
        (("charge",), "'charge', the name of a handler"),
        (("collect", "pay"), "'pay', an alias of 'charge'"),
        (("take_payment",), "'take_payment', the name of a handler"),
    ],
    ids=["another's name", "another's alias", "its own name"],
)
def test_an_alias_that_is_taken_is_refused_where_it_is_given(aliases: tuple[str, ...], whose: str) -> None:
    router = router_with(("charge", ("pay",)))
    with pytest.raises(ValueError, match=f"^aliases must be names that no handler of the router has, not {whose}$"):
        router.on(DvOrder, name="take_payment", aliases=aliases)(noting([]))
    router.on(DvOrder, name="take_payment", aliases=("collect",))(noting([]))  # nothing of the other was kept


@pytest.mark.parametrize("name", ["pay", None])
def test_a_handler_cannot_have_the_alias_of_another_one_as_its_name(name: str | None) -> None:
    router = router_with(("charge", ("pay",)))

    async def pay(event: DvOrder) -> None: ...

    with pytest.raises(ValueError, match=r"not 'pay', which is an alias of 'charge'$"):
        router.on(DvOrder, name=name)(pay)


@pytest.mark.parametrize("aliases", ["old", 5, {"old": "new"}, ("old", 5), (None,)])
def test_aliases_must_be_a_tuple_of_names(aliases: Any) -> None:
    with pytest.raises(TypeError, match=r"^aliases must be a"):
        make_router(None).on(DvOrder, aliases=aliases)


@pytest.mark.parametrize("aliases", [("",), ("a\nb",), ("a", "a")])
def test_aliases_must_be_printable_and_different(aliases: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"^aliases must "):
        make_router(None).on(DvOrder, aliases=aliases)


def test_two_routers_may_have_the_same_aliases() -> None:
    for _ in range(2):
        router_with(("charge", ("pay",)))


# --- a rename while entries are pending -----------------------------------------------------------------------------


def noting(seen: list[Any], error: Exception | None = None) -> Any:
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)
        if error is not None:
            raise error

    return handle


def router_of(redis: Redis, *handlers: tuple[Any, ...], **options: Any) -> EventRouter:
    """`handlers`: each a name, a function, and its aliases, if it has any."""
    router = make_router(redis, **options)
    for name, handler, *aliases in handlers:
        router.on(DvOrder, name=name, aliases=aliases)(handler)
    return router


async def left_behind(redis: Redis, *handlers: tuple[str, Any], **options: Any) -> None:
    """Have an entry handled once by a service that has these handlers, and kept for another delivery."""
    router = router_of(redis, *handlers, redelivery_backoff=constant(0.2), **options)
    async with running(router):
        await make_emitter(redis).emit(DvOrder(number=7))
        await eventually(lambda: redis.hlen(Source(STREAM, GROUP).ledger))


async def test_a_handler_that_finished_under_its_old_name_does_not_run_again(redis: Redis) -> None:
    charged, shipped = list[Any](), list[Any]()
    await left_behind(redis, ("charge", noting(charged)), ("ship", noting(shipped, ValueError("no van"))))

    handlers = ("take money", noting(charged), "charge"), ("ship", noting(shipped))
    async with running(router_of(redis, *handlers)):
        await until_settled(redis)

    assert (charged, shipped) == ([7], [7, 7])
    await check_keys(redis)


async def test_a_handler_that_died_under_its_old_name_gets_no_second_letter(redis: Redis) -> None:
    charged, shipped = list[Any](), list[Any]()
    refused = noting(charged, NonRetryableError("no money"))
    await left_behind(redis, ("charge", refused), ("ship", noting(shipped, ValueError("no van"))))

    handlers = ("take money", noting(charged), "charge"), ("ship", noting(shipped))
    async with running(router_of(redis, *handlers)):
        await until_settled(redis)

    assert (charged, shipped) == ([7], [7, 7])
    assert [letter[b"handler"] for letter in await letters(redis)] == [b"charge"]


async def test_a_handler_that_waited_under_its_old_name_keeps_its_due_time_and_deliveries(redis: Redis) -> None:
    charged, refused = list[Any](), ValueError("no money")
    await left_behind(redis, ("charge", noting(charged, refused)), max_deliveries=2)

    router = router_of(redis, ("take money", noting(charged, refused), "pay", "charge"), max_deliveries=2)
    async with running(router):
        await until_settled(redis)

    assert charged == [7, 7]  # its last one
    [letter] = await letters(redis)
    assert (letter[b"handler"], letter[b"error"], letter[b"deliveries"]) == (b"take money", b"no money", b"2")
    assert [attempt.delivery for attempt in AttemptLog.load(letter[b"attempts"]).kept] == [1, 2]
    dead = router.counters.total("dead", handler="take money")
    assert (dead, router.counters.total("dead")) == (1, 1)
    await check_keys(redis)


async def test_a_parked_handler_gets_its_late_letter_under_the_new_name(
    redis: Redis,
) -> None:
    charged, shipped, late = list[Any](), list[Any](), ValueError("no van")
    refused = noting(charged, NonRetryableError("no money"))
    await left_behind(redis, ("charge", refused), ("ship", noting(shipped, late)), dlq_stream=None)

    handlers = ("take money", noting(charged), "charge"), ("ship", noting(shipped))
    async with running(router_of(redis, *handlers)):
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
    before = router_of(redis, ("charge", noting(charged), "take money"), ("ship", ship), **options)
    after = router_of(redis, ("take money", noting(charged), "charge"), ("ship", ship), **options)
    async with running(before, after):
        await make_emitter(redis).emit([DvOrder(number=number) for number in range(20)])
        await eventually(lambda: before.counters.total("retried") > 50 and after.counters.total("retried") > 50)
        van.set()
        await until_settled(redis)
    assert sorted(charged) == list(range(20))
    assert await letters(redis) == []


# --- without an alias -----------------------------------------------------------------------------------------------


async def test_an_entry_that_waits_for_a_removed_handler_becomes_a_letter(
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
    assert b"aliases=('charge',)" in letter[b"error"]
    assert len([one for one in caplog.messages if "waits for 'charge'" in one]) == 2
    errors = [attempt.error for attempt in AttemptLog.load(letter[b"attempts"]).kept]
    assert errors == ["no money", *(3 * [letter[b"error"].decode()])]
    assert router.counters.total("dead", handler=OTHER) == router.counters.total("dead") == 1

    charged.clear()
    async with running(router_of(redis, ("take money", noting(taken), "charge"))):
        await DeadLetterQueue(redis, DLQ).replay(letter[b"letter_id"].decode())
        await eventually(lambda: taken == [7, 7])
    await check_keys(redis)


async def test_an_entry_that_waits_for_a_handler_of_other_types_now_becomes_a_letter(redis: Redis) -> None:
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


async def test_an_entry_that_waits_for_a_removed_handler_is_parked_without_a_dead_letter_stream(
    redis: Redis,
) -> None:
    await left_behind(redis, ("charge", noting([], ValueError("no money"))), max_deliveries=2, dlq_stream=None)
    async with running(router := router_of(redis, ("ship", noting([])), max_deliveries=2, dlq_stream=None)):
        await eventually(lambda: router.counters.total("parked") == 1)
    assert list(await redis.hgetall(Source(STREAM, GROUP).parked)) != []
