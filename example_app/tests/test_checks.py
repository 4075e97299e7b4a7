"""The checks of `--once` notice what is wrong: each one sees a story with one fault."""

from collections.abc import Awaitable
from decimal import Decimal
from io import StringIO
from typing import Any, cast

import httpx
import pytest
from redis.asyncio import Redis

from example_app.demo import story as story_module
from example_app.demo.checks import Evidence, end_of
from example_app.demo.narration import Narrator
from example_app.demo.story import Placed, Story, StoryError
from example_app.events import OrderPlaced, OrderShipped, PaymentProcessed
from example_app.handlers import GROUP
from rapids import BaseEvent, EventEmitter

STREAM = "test:orders"
PLACED = Placed("o-1", "Ada", "web-1")
EVENTS: list[BaseEvent] = [
    OrderPlaced(order_id="o-1", customer="Ada", items=["lamp"], total=Decimal(1), correlation_id="web-1"),
    PaymentProcessed(order_id="o-1", payment_id="pay_1", amount=Decimal(1), correlation_id="web-1"),
    OrderShipped(order_id="o-1", tracking_number="1Z", correlation_id="web-1"),
]
SHIPPED = {"status": "shipped", "history": [{"event_type": "order.placed"}, {"event_type": "order.shipped"}]}


class ScriptedStory(Story):
    """A story whose service says what a test wants it to say."""

    says: dict[str, Any]

    async def order(self, placed: Placed) -> dict[str, Any]:
        return self.says["order"]

    async def dead_letters(self, placed: Placed) -> list[dict[str, Any]]:
        return self.says["dead"]

    async def dead_letter(self, letter_id: str) -> dict[str, Any]:
        return self.says["letter"]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(story_module, "PATIENCE", 0.05)


@pytest.fixture
async def evidence(redis: Redis) -> Evidence:
    """A story that went well."""
    story = ScriptedStory(httpx.AsyncClient(timeout=60), "", Narrator(StringIO(), colour=False))
    story.orders = [PLACED]
    story.replayed = [{"letter_id": "7-0", "stream": "replays", "entry_id": "8-0"}]
    story.says = {"order": SHIPPED, "dead": [], "letter": {"state": "replayed"}}
    for stream in (STREAM, "replays"):
        await redis.xgroup_create(stream, GROUP, mkstream=True)
    return Evidence(story, redis, STREAM, await end_of(redis, STREAM))


def says(evidence: Evidence) -> dict[str, Any]:
    return cast(ScriptedStory, evidence.story).says


async def emit(evidence: Evidence, *events: BaseEvent) -> None:
    await EventEmitter(evidence.redis, stream=STREAM).emit(list(events))


async def test_a_story_that_went_well_has_nothing_wrong(evidence: Evidence) -> None:
    await emit(evidence, *EVENTS)
    assert await evidence.every_order_is_shipped() == ""
    assert await evidence.one_dead_letter_replayed() == ""
    assert await evidence.events_share_the_correlation_id() == ""
    assert await evidence.nothing_is_pending() == ""


@pytest.mark.parametrize(
    ("order", "wrong"),
    [
        ({**SHIPPED, "status": "paid"}, "is paid"),
        ({**SHIPPED, "history": SHIPPED["history"][:1]}, "history"),
        ({**SHIPPED, "history": [*SHIPPED["history"], {"event_type": "order.shipped"}]}, "history"),
    ],
)
async def test_an_order_that_was_not_shipped_is_found(evidence: Evidence, order: dict[str, Any], wrong: str) -> None:
    says(evidence)["order"] = order
    assert wrong in await evidence.every_order_is_shipped()


async def test_a_story_without_orders_fails(evidence: Evidence) -> None:
    evidence.story.orders.clear()
    assert await evidence.every_order_is_shipped() == "there are no orders"


async def test_a_letter_that_is_still_dead_is_found(evidence: Evidence) -> None:
    says(evidence)["letter"] = {"state": "dead"}
    assert "['dead']" in await evidence.one_dead_letter_replayed()


async def test_a_missing_letter_and_an_extra_one_are_found(evidence: Evidence) -> None:
    says(evidence)["dead"] = [{"id": "9-0"}]
    assert await evidence.one_dead_letter_replayed() == "still dead: ['9-0']"
    evidence.story.replayed.clear()
    assert await evidence.one_dead_letter_replayed() == "the operator's letters are []"


async def test_an_event_with_another_correlation_id_is_found(evidence: Evidence) -> None:
    await emit(evidence, *EVENTS[:2], EVENTS[2].model_copy(update={"correlation_id": "web-2"}))
    assert "['web-1', 'web-2']" in await evidence.events_share_the_correlation_id()


async def test_a_missing_event_and_two_versions_of_one_event_are_found(evidence: Evidence) -> None:
    await emit(evidence, *EVENTS[:2])
    assert "are ['order.placed', 'payment.processed']" in await evidence.events_share_the_correlation_id()
    await emit(evidence, EVENTS[2], EVENTS[2])  # a repetition with the same id is one event
    assert await evidence.events_share_the_correlation_id() == ""
    await emit(evidence, EVENTS[2].model_copy(update={"id": "another"}))
    assert "'order.shipped', 'order.shipped'" in await evidence.events_share_the_correlation_id()


@pytest.mark.parametrize("stream", [STREAM, "replays"])
async def test_an_entry_without_acknowledgement_is_found(evidence: Evidence, stream: str) -> None:
    if stream == STREAM:
        await emit(evidence, *EVENTS)
    else:
        await evidence.redis.xadd(stream, {"a": "b"}, id="8-0")
    await evidence.redis.xreadgroup(GROUP, "somebody", {stream: ">"})
    assert "without acknowledgement" in await evidence.nothing_is_pending()


async def test_entries_of_earlier_runs_and_of_others_are_ignored(evidence: Evidence) -> None:
    redis = evidence.redis
    await emit(evidence, EVENTS[0].model_copy(update={"correlation_id": "an earlier run"}))
    now = Evidence(evidence.story, redis, STREAM, await end_of(redis, STREAM))
    for junk in (b"{", b"[]", b"1", b'{"order_id": "o-2"}'):
        await redis.xadd(STREAM, {"data": junk})
    await redis.xadd(STREAM, {"other": "fields"})
    await redis.xreadgroup(GROUP, "somebody", {STREAM: ">"})
    await emit(now, *EVENTS)
    assert await now.events_share_the_correlation_id() == ""
    assert await now.nothing_is_pending() == ""


async def test_the_end_of_a_missing_stream_is_its_beginning(redis: Redis) -> None:
    assert await end_of(redis, "nothing") == "0-0"


async def test_a_story_does_not_wait_for_ever() -> None:
    async def nothing() -> Awaitable[None] | None:
        return None

    with pytest.raises(StoryError, match=r"it did not come within 0\.05 s"):
        await story_module.eventually(nothing, "it did not come")
