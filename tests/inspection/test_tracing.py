"""The causation tree on a server: what is found, what became of it, and where the search ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids import DeadLetterQueue, EventEmitter, EventRouter
from rapids.exceptions import NonRetryableError, RetryAfter
from rapids.inspection import CausationTree, Inspector, TracedDelivery
from rapids.inspection import trace as tracing
from rapids.inspection.causation_tree import event
from tests.support import eventually
from tests.worker.helpers import DLQ, STREAM, DvOrder, DvPayment, DvShipment, as_text, make_router, running

OTHER = "dv:other"
OTHER_DLQ = "{dv:other}:dlq"
CORRELATION = "web-1"


async def put(
    redis: Redis,
    event_id: str,
    cause: str = "",
    *,
    stream: str = STREAM,
    correlation: str = CORRELATION,
    entry_id: str = "*",
    **more: Any,
) -> str:
    """Append the fields of an event."""
    fields = {
        "event_type": "dv.thing",
        "schema_version": "1",
        "data": "{}",
        "id": event_id,
        "timestamp": "2026-01-01T00:00:00+00:00",
        "correlation_id": correlation,
        "causation_id": cause,
        "metadata": "{}",
    }
    return as_text(await redis.xadd(stream, {**fields, **more}, id=entry_id))


async def trace(redis: Redis, *streams: str, **options: Any) -> CausationTree:
    return await Inspector(redis).trace(CORRELATION, streams=streams or (STREAM,), **options)


def states(tree: CausationTree) -> dict[tuple[str, str], str]:
    """What each group made of each event, by event id."""
    return {(event.event_id, made.group): made.state for event in tree.events for made in event.deliveries}


# --- the whole story ------------------------------------------------------------------------------------------------


class Story:
    """Three generations over two streams: an order, two payments of it and a shipment of one of those, each with a
    handler that does something else."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.orders = make_router(redis, group="orders", max_deliveries=1)
        self.others = make_router(redis, group="others", max_deliveries=3, dlq_stream=None)
        self.shipping = EventRouter(
            redis, stream=OTHER, group="shipping", max_deliveries=1, block_ms=500, dlq_stream=OTHER_DLQ
        )
        self.onward = EventEmitter(redis, stream=OTHER)
        self.fixed = False
        self.orders.on(DvOrder, name="take")(self.take)
        self.orders.on(DvOrder, name="log")(self.log)
        self.orders.on(DvPayment, name="charge")(self.charge)
        self.others.on(DvOrder, name="later")(self.later)
        self.others.on(DvPayment, name="never")(self.never)
        self.shipping.on(DvShipment, name="ship")(self.ship)
        self.shipping.on(DvShipment, name="label")(self.label)

    async def take(self, event: DvOrder) -> None:
        await EventEmitter(self.redis, stream=STREAM).emit([DvPayment(id="pay-1"), DvPayment(id="pay-2")])

    async def log(self, event: DvOrder) -> None: ...

    async def charge(self, event: DvPayment) -> None:
        if event.id == "pay-1":
            await self.onward.emit(DvShipment(id="ship-1"))
        elif not self.fixed:
            raise NonRetryableError("declined")

    async def later(self, event: DvOrder) -> None:
        raise RetryAfter(3_600)

    async def never(self, event: DvPayment) -> None:
        raise NonRetryableError("no such account")

    async def ship(self, event: DvShipment) -> None:
        raise NonRetryableError("no address")

    async def label(self, event: DvShipment) -> None:
        raise NonRetryableError("no ink")

    async def seen(self) -> CausationTree:
        return await trace(self.redis, STREAM, OTHER, dlqs=(DLQ, OTHER_DLQ))


async def test_three_generations_over_two_streams_and_what_became_of_each(redis: Redis) -> None:
    story = Story(redis)
    others, letters = DeadLetterQueue(redis, OTHER_DLQ), DeadLetterQueue(redis, DLQ)
    async with running(story.orders, story.others, story.shipping):
        order = DvOrder(id="order", correlation_id=CORRELATION)
        await EventEmitter(redis, stream=STREAM).emit(order)
        await EventEmitter(redis, stream=STREAM).emit(DvOrder(id="unrelated", correlation_id="web-2"))
        tree = await eventually(lambda: _of_letters(story, 3))

        assert {event.event_id: (event.stream, event.depth, event.causation_id) for event in tree.events} == {
            "order": (STREAM, 0, ""),
            "pay-1": (STREAM, 1, "order"),
            "pay-2": (STREAM, 1, "order"),
            "ship-1": (OTHER, 2, "pay-1"),
        }
        assert [tree.events[root].event_id for root in tree.roots] == ["order"]
        assert tree.began_at == tree.events[0].appended_at
        assert states(tree) == {
            ("order", "orders"): "handled",
            ("order", "others"): "waiting",
            ("pay-1", "orders"): "handled",
            ("pay-1", "others"): "parked",
            ("pay-2", "orders"): "dead",
            ("pay-2", "others"): "parked",
            ("ship-1", "shipping"): "dead",
        }
        made = {(event.event_id, made.group): made for event in tree.events for made in event.deliveries}
        assert {key for key, one in made.items() if one.inferred} == {("order", "orders"), ("pay-1", "orders")}
        waiting, parked = made["order", "others"], made["pay-1", "others"]
        assert waiting.pending is not None
        assert waiting.pending.due_at is not None
        [handler] = waiting.handlers
        assert (handler.handler, handler.state, handler.due_at) == ("later", "waiting", waiting.pending.due_at)
        assert parked.pending is not None
        assert [(failure.handler, failure.error) for failure in parked.pending.failures] == [
            ("never", "no such account")
        ]
        assert [handler.state for handler in parked.handlers] == ["gave_up"]
        assert (tree.complete, tree.cursor, tree.limits) == (True, None, ())

        by_handler = {letter.handler: letter for letter in tree.letters}
        assert {name: letter.dlq for name, letter in by_handler.items()} == {
            "charge": DLQ,
            "ship": OTHER_DLQ,
            "label": OTHER_DLQ,
        }
        assert made["pay-2", "orders"].letters == (by_handler["charge"].id,)

        story.fixed = True
        await letters.replay(by_handler["charge"].id)
        await others.replay(by_handler["ship"].id)
        await others.discard(by_handler["label"].id)
        tree = await eventually(lambda: _of_replays(story))

    by_id = {letter.id: letter for letter in tree.letters}
    [charged] = by_id[by_handler["charge"].id].replays
    assert (charged.outcome, charged.is_inferred) == ("handled", True)
    [shipped] = by_id[by_handler["ship"].id].replays
    assert (shipped.outcome, shipped.is_inferred) == ("failed_again", False)
    [again] = shipped.letters
    assert (by_id[again].replay_of, by_id[again].state) == (by_handler["ship"].id, "dead")
    assert by_id[by_handler["label"].id].state == "discarded"
    assert states(tree)["pay-2", "orders"] == "replayed"
    assert states(tree)["ship-1", "shipping"] == "dead"


async def _of_letters(story: Story, count: int) -> CausationTree | None:
    tree = await story.seen()
    settled = all(made.state not in ("undelivered", "held") for event in tree.events for made in event.deliveries)
    # Letters are read after events: an event that was emitted in between is not in the tree yet.
    whole = {letter.event_id for letter in tree.letters} <= {event.event_id for event in tree.events}
    return tree if settled and whole and len(tree.letters) == count else None


async def _of_replays(story: Story) -> CausationTree | None:
    tree = await story.seen()
    outcomes = {replay.outcome for letter in tree.letters for replay in letter.replays}
    return tree if outcomes == {"handled", "failed_again"} else None


async def test_replays_that_are_not_settled_are_pending(redis: Redis) -> None:
    story = Story(redis)
    async with running(story.shipping):
        await story.onward.emit(DvShipment(id="ship-1", correlation_id=CORRELATION))
        tree = await eventually(lambda: _of_letters(story, 2))
    letter = next(letter for letter in tree.letters if letter.handler == "ship")
    await DeadLetterQueue(redis, OTHER_DLQ).replay(letter.id)
    tree = await story.seen()
    [replay] = tree.replays
    assert (replay.group, replay.handler, replay.letter_id, replay.event_id) == (
        "shipping",
        "ship",
        letter.id,
        "ship-1",
    )
    assert replay.delivery.state == "undelivered"
    assert replay.original_entry_id == tree.events[0].entry_id


async def test_held_and_undelivered_events_are_shown(redis: Redis) -> None:
    go_on = asyncio.Event()
    router = make_router(redis, consumer="worker")

    @router.on(DvOrder)
    async def book(event: DvOrder) -> None:
        await go_on.wait()

    async with running(router):
        await EventEmitter(redis, stream=STREAM).emit(DvOrder(correlation_id=CORRELATION))
        await eventually(lambda: _first_is(redis, "held"))
        [made] = (await trace(redis)).events[0].deliveries
        assert made.pending is not None
        assert (made.pending.consumer, made.pending.consumer_alive, made.pending.deliveries) == ("worker", True, 1)
        go_on.set()
    await put(redis, "late")
    assert (await trace(redis)).events[-1].deliveries == (TracedDelivery(made.group, "undelivered"),)


async def _first_is(redis: Redis, state: str) -> bool:
    deliveries = (await trace(redis)).events[0].deliveries
    return bool(deliveries) and deliveries[0].state == state


# --- hostile input --------------------------------------------------------------------------------------------------


async def test_cycles_missing_parents_and_copies(redis: Redis) -> None:
    causes = [("one", "three"), ("two", "one"), ("three", "two"), ("self", "self"), ("orphan", "nobody")]
    for second, (event_id, cause) in enumerate(causes, 1):
        await put(redis, event_id, cause, entry_id=f"{second}000-0")
    await put(redis, "two", "one", stream=OTHER, entry_id="6000-0")
    await put(redis, "child", "two", stream=OTHER, entry_id="7000-0")
    tree = await trace(redis, STREAM, OTHER)
    by_id = {(event.stream, event.event_id): event for event in tree.events}
    assert [tree.events[root].event_id for root in tree.roots] == ["one", "self", "orphan"]
    assert {key[1] for key, event in by_id.items() if event.in_cycle} == {"one", "two", "three", "self"}
    assert by_id[STREAM, "orphan"].missing_parent
    assert by_id[STREAM, "two"].copies == by_id[OTHER, "two"].copies == 2
    parent = by_id[OTHER, "child"].parent
    assert parent is not None
    assert tree.events[parent].stream == STREAM
    assert {event.depth for event in tree.events} == {0, 1, 2}


async def test_an_event_without_a_correlation_id_stands_for_its_own_id(redis: Redis) -> None:
    await put(redis, CORRELATION, correlation="")
    await put(redis, "child", CORRELATION)
    tree = await trace(redis)
    assert [event.event_id for event in tree.events] == [CORRELATION, "child"]
    assert tree.roots == (0,)


async def test_fields_of_any_order_kind_and_size(redis: Redis) -> None:
    large = "x" * 5_000_000
    for number in range(3):
        await put(redis, f"large-{number}", data=large)
    await redis.xadd(STREAM, {"id": "turned", "x": "y", "correlation_id": CORRELATION, b"\xff": b"\x00"})
    await redis.xadd(STREAM, {"correlation_id": CORRELATION})
    await redis.xadd(STREAM, {"nothing": "at all"})
    tree = await trace(redis)
    assert [event.event_id for event in tree.events] == ["large-0", "large-1", "large-2", "turned", ""]
    assert [(event.data, event.data_size) for event in tree.events[:3]] == [(None, 5_000_000)] * 3
    assert tree.complete


async def test_letters_of_a_group_the_stream_does_not_have(redis: Redis) -> None:
    entry_id = await put(redis, "one")
    letter = {"original_stream": STREAM, "original_group": "gone", "original_msg_id": entry_id, "handler": "<b>"}
    await redis.xadd(DLQ, letter)  # as other versions write them: without a correlation id
    await redis.xadd(DLQ, {**letter, "original_stream": OTHER})
    tree = await trace(redis, dlqs=(DLQ,))
    [made] = tree.events[0].deliveries
    assert (made.group, made.state, made.inferred) == ("gone", "group_unknown", False)
    assert made.letters == tuple(letter.id for letter in tree.letters)
    assert len(tree.letters) == 1


# --- bounds ---------------------------------------------------------------------------------------------------------


async def test_the_window_is_shown_and_a_cursor_continues_after_it(redis: Redis) -> None:
    ids = [
        await put(redis, f"event-{number}", correlation=CORRELATION if number % 2 else "web-2") for number in range(20)
    ]
    tree = await trace(redis, window=5)
    [window] = tree.windows
    assert (window.entries, window.newest_id, window.oldest_id, window.first_id) == (5, ids[-1], ids[-5], ids[0])
    assert (window.reaches_further, window.exhausted) == (True, False)
    assert (tree.complete, tree.limits) == (False, ("entries",))
    found = [event.entry_id for event in tree.events]
    while tree.cursor is not None:
        await put(redis, "newer")
        tree = await trace(redis, window=5, cursor=tree.cursor)
        found = [event.entry_id for event in tree.events] + found
    assert found == ids[1::2]


async def test_since_and_until(redis: Redis) -> None:
    for second in range(10):
        fields = {"id": f"event-{second}", "correlation_id": CORRELATION}
        await redis.xadd(STREAM, fields, id=f"{1_700_000_000_000 + second * 1_000}-0")  # type: ignore[arg-type]
    whole = await trace(redis)
    since, until = whole.events[3].appended_at, whole.events[6].appended_at
    tree = await trace(redis, since=since, until=until)
    assert [event.event_id for event in tree.events] == ["event-3", "event-4", "event-5"]
    assert (tree.windows[0].exhausted, tree.windows[0].reaches_further) == (True, True)


async def test_a_tree_of_thousands_of_events_is_cut_and_says_so(redis: Redis) -> None:
    pipeline = redis.pipeline(transaction=False)
    for number in range(2_500):
        pipeline.xadd(STREAM, {"id": f"e{number}", "causation_id": f"e{number - 1}", "correlation_id": CORRELATION})
    await pipeline.execute()
    tree = await trace(redis)
    assert tree.limits == ("events",)
    assert 1_000 <= len(tree.events) <= 2_000
    assert tree.events[-1].depth == len(tree.events) - 1
    seen = len(tree.events)
    while tree.cursor is not None:
        tree = await trace(redis, cursor=tree.cursor)
        seen += len(tree.events)
    assert seen == 2_500


async def test_missing_streams_are_empty(redis: Redis) -> None:
    tree = await trace(redis, dlqs=(DLQ,))
    assert (tree.events, tree.letters, tree.complete, tree.began_at) == ((), (), True, None)
    assert [(window.kind, window.entries) for window in tree.windows] == [
        ("events", 0),
        ("letters", 0),
        ("archive", 0),
    ]


async def test_events_of_many_groups_are_made_in_turns_with_other_tasks(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(100):
        await redis.xadd(STREAM, {"id": f"e{number}", "correlation_id": CORRELATION})
    turn, turns = 0, list[int]()

    async def count() -> None:
        nonlocal turn
        while True:
            await asyncio.sleep(0)
            turn += 1

    def event_then(*arguments: Any) -> Any:
        turns.append(turn)
        return event(*arguments)

    monkeypatch.setattr(tracing, "event", event_then)
    counting = asyncio.create_task(count())
    await trace(redis)
    counting.cancel()
    assert len(turns) == len(set(turns)) == 100


@pytest.mark.parametrize(
    "cursor",
    [
        *("", "x", "W10", "e30", "W3siYSI6ICJiIn0sICIrIl0", "\x00", "é"),
        tracing.EVENTS.cursor(f'[{{"{STREAM}": "((1-1"}}, "+"]'),
        tracing.EVENTS.cursor(f'[{{"{STREAM}": "+"}}, "((1-1"]'),
    ],
)
async def test_a_cursor_that_no_tree_returned_is_refused(redis: Redis, cursor: str) -> None:
    with pytest.raises(ValueError, match=r"^cursor must be"):
        await trace(redis, cursor=cursor)


@pytest.mark.parametrize("options", [{"window": 0}, {"window": 100_001}])
async def test_options_out_of_range(redis: Redis, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^window must be"):
        await trace(redis, **options)
    for correlation_id in ("", "x" * 1_001):
        with pytest.raises(ValueError, match=r"^correlation_id must be"):
            await Inspector(redis).trace(correlation_id, streams=(STREAM,))
    with pytest.raises(ValueError, match=r"^streams must be"):
        await Inspector(redis).trace("x", streams=("",))
