"""`tracked`: everything that a test sets off on a real server, until it is settled, and what it says if it is not."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from rapids import BaseEvent, Event, EventEmitter, EventRouter, current_delivery
from rapids.backoff import constant
from rapids.exceptions import NonRetryableError, NotConfiguredError, RetryAfter
from rapids.testing import Tracked, tracked
from rapids.testing.causes_text import causes_text
from rapids.tracker import TrackedEntry
from rapids_fastapi import EmitterDep, Rapids


class TeaOrdered(BaseEvent):
    cup: str


class TeaBrewed(BaseEvent):
    cup: str


class TeaServed(BaseEvent):
    cup: str


class TeaHouse:
    """Two groups on one stream, and one on another: brewing leads to serving, and fails as often as a test wants."""

    def __init__(self) -> None:
        self.emitter = EventEmitter(stream="tea")
        self.bills = EventEmitter(stream="tea:bills")
        self.kitchen = EventRouter(stream="tea", group="kitchen", redelivery_backoff=constant(3_600.0), block_ms=100)
        self.waiters = EventRouter(stream="tea", group="waiters", max_deliveries=2, block_ms=100)
        self.failures: dict[str, list[Exception]] = {}
        self.deliveries: list[tuple[str, int]] = []
        self.kitchen.on(TeaOrdered)(self.brew)
        self.waiters.on(TeaBrewed)(self.serve)

    async def brew(self, event: TeaOrdered) -> None:
        self._note("brew")
        await self.emitter.emit(TeaBrewed(cup=event.cup))

    async def serve(self, event: TeaBrewed) -> None:
        self._note("serve")
        await self.bills.emit(TeaServed(cup=event.cup))

    def _note(self, handler: str) -> None:
        delivery = current_delivery()
        assert delivery is not None
        self.deliveries.append((handler, delivery.deliveries))
        if waiting := self.failures.get(handler):
            raise waiting.pop(0)

    @asynccontextmanager
    async def tracked(self, url: str, **options: float | bool) -> AsyncIterator[Tracked]:
        routers = [self.kitchen, self.waiters]
        async with tracked(routers, emitters=[self.emitter, self.bills], redis=url, **options) as t:  # type: ignore[arg-type]
            yield t


async def test_everything_that_an_event_sets_off_is_awaited_also_on_other_streams(rapids_url: str) -> None:
    house = TeaHouse()
    async with house.tracked(rapids_url) as t:
        await t.emit(TeaOrdered(cup="before"), stream="tea")
        await t.settled()
        assert [type(event) for event in t] == [TeaOrdered, TeaBrewed, TeaServed]
    async with house.tracked(rapids_url) as t:
        await t.emit([TeaOrdered(cup="green"), TeaOrdered(cup="black")], stream="tea")
        await t.settled()
        assert t.only(TeaServed, cup="black").causation_id == t.only(TeaBrewed, cup="black").id
        assert len(t.emitted(TeaOrdered)) == 2
        t.nothing(Event, cup="before")
        t.all_handled()
        with pytest.raises(ValueError, match="stream must be given, since several are tracked: 'tea', 'tea:bills'"):
            await t.emit(TeaOrdered(cup="white"))


async def test_what_nothing_handled_is_not_all_handled(rapids_url: str) -> None:
    house = TeaHouse()
    async with house.tracked(rapids_url) as t:
        await t.settled()
        with pytest.raises(AssertionError) as raised:
            t.all_handled()
        assert str(raised.value) == "expected everything to be handled; nothing was emitted"
        await t.emit([TeaServed(cup="green"), TeaOrdered(cup="black")], stream="tea:bills")
        await t.settled()
        with pytest.raises(AssertionError) as raised:
            t.all_handled()
        assert without_ids(raised.value) == (
            "expected everything to be handled, but no handler is for what was emitted, 'tea.served' on stream "
            "'tea:bills' and 'tea.ordered' on stream 'tea:bills':\n"
            "tea.served: TeaServed(cup='green') [1-1 in 'tea:bills']\n"
            "tea.ordered: TeaOrdered(cup='black') [1-1 in 'tea:bills']"
        )
        await t.emit(TeaServed(cup="white"), stream="tea")
        await t.settled()
        with pytest.raises(AssertionError, match=r"for what was emitted, 'tea\.served' on stream 'tea' and "):
            t.all_handled()
        await t.emit(TeaOrdered(cup="white"), stream="tea")
        await t.settled()
        t.all_handled()


async def test_waits_pass_at_once_and_failures_are_kept(rapids_url: str) -> None:
    house = TeaHouse()
    house.failures["brew"] = [ConnectionError("no water"), RetryAfter(7_200, "boiling")]
    house.failures["serve"] = [NonRetryableError("spilt")]
    async with house.tracked(rapids_url) as t:
        await t.emit(TeaOrdered(cup="green"), stream="tea")
        await t.settled()
        assert house.deliveries == [("brew", 1), ("brew", 2), ("brew", 3), ("serve", 1)]
        [letter] = t.dead_letters
        assert (letter.handler, letter.group, letter.error) == ("serve", "waiters", "spilt")
        assert t.parked == ()
        with pytest.raises(AssertionError) as raised:
            t.all_handled()
    assert without_ids(raised.value) == (
        "expected everything to be handled, but 1 entry failed for good:\n"
        "tea.ordered: TeaOrdered(cup='green') [1-1 in 'tea']\n"
        "    kitchen: handled\n"
        "    waiters: no handler\n"
        "  tea.brewed: TeaBrewed(cup='green') [1-1 in 'tea']\n"
        "      kitchen: no handler\n"
        "      waiters: dead in 'serve', non_retryable: spilt"
    )


def test_a_chain_of_causes_of_any_length_is_shown() -> None:
    events = [TeaOrdered(id="tea-0", cup="0")]
    events += [TeaOrdered(id=f"tea-{n}", cup=str(n), causation_id=f"tea-{n - 1}") for n in range(1, 5_000)]
    entries = [TrackedEntry("tea", f"1-{n}", event, {}) for n, event in enumerate(events)]

    lines = causes_text(entries, {("tea", "1-99"): ["kitchen: NOT SETTLED, held"]}).splitlines()

    assert lines[0] == "tea.ordered: TeaOrdered(cup='0') [1-0 in 'tea']"
    assert lines[99].strip() == "tea.ordered: TeaOrdered(cup='99') [1-99 in 'tea']"
    assert lines[100].strip() == "kitchen: NOT SETTLED, held"
    assert lines[101:] == ["and 4900 more events"]
    assert max(map(len, lines)) < 200


async def test_without_dead_letters_entries_are_parked(rapids_url: str) -> None:
    house = TeaHouse()
    house.failures["brew"] = [NonRetryableError("no tea")]
    async with house.tracked(rapids_url, dead_letters=False) as t:
        await t.emit(TeaOrdered(cup="green"), stream="tea")
        await t.settled()
        [parked] = t.parked
        assert (parked.group, parked.entry.failures[0].error) == ("kitchen", "no tea")
        with pytest.raises(AssertionError, match=r"kitchen: parked in 'brew', non_retryable: no tea"):
            t.all_handled()


async def test_a_wait_beyond_the_limit_fails_at_once_and_names_the_limit(rapids_url: str) -> None:
    house = TeaHouse()
    house.failures["brew"] = [ConnectionError("no water") for _ in range(4)]
    async with house.tracked(rapids_url, fast_forward=7_300.0) as t:
        await t.emit(TeaOrdered(cup="green"), stream="tea")
        with pytest.raises(AssertionError) as raised:
            await t.settled()
        assert [deliveries for _, deliveries in house.deliveries] == [1, 2, 3]
        with pytest.raises(AssertionError, match=r"events are known after `await t.settled\(\)`"):
            t.only(TeaOrdered)
    text = re.sub(r"3,\d\d\d s", "3,600 s", without_ids(raised.value))
    assert text == (
        "1 entry not settled: an entry would wait for another 3,600 s, and fast_forward allows 2.0 h in total\n"
        "tea.ordered: TeaOrdered(cup='green') [1-1 in 'tea']\n"
        "    kitchen: NOT SETTLED, waiting for 'brew', 3 deliveries\n"
        "        brew, delivery 3: ConnectionError: no water\n"
        "    waiters: no handler"
    )


async def test_what_no_process_handles_is_named_when_the_time_is_over(rapids_url: str) -> None:
    house = TeaHouse()
    async with house.tracked(rapids_url) as t:
        await house.kitchen.stop()
        await house.emitter.emit(TeaOrdered(cup="green"))
        with pytest.raises(AssertionError) as raised:
            await t.settled(timeout=0.05)
    lines = str(raised.value).splitlines()
    assert "not settled: not settled within 0.05 s (timeout)" in lines[0]
    assert lines[2] == "    kitchen: NOT SETTLED, not delivered; its router does not run here"


def test_a_plain_test_tracks_an_application_of_test_client(rapids_environment: str) -> None:
    house = TeaHouse()
    app = FastAPI(lifespan=Rapids(emitter=house.emitter, routers=[house.kitchen]).lifespan)

    @app.post("/tea/{cup}")
    async def order(cup: str, emitter: EmitterDep) -> str:
        return await emitter.emit(TeaOrdered(cup=cup))

    house.failures["brew"] = [ConnectionError("no water")]
    with pytest.raises(NotConfiguredError, match="the application does not run a Rapids now"), tracked(app):
        pass
    with TestClient(app) as client, tracked(app) as t:
        assert client.post("/tea/green").status_code == 200
        t.settled()
        t.only(TeaBrewed, cup="green")
        t.all_handled()
        assert house.deliveries == [("brew", 1), ("brew", 2)]
        house.failures["brew"] = [NonRetryableError("no tea")]
        t.emit(TeaOrdered(cup="black"))
        t.settled()
        assert [letter.error for letter in t.dead_letters] == ["no tea"]
        assert "kitchen: dead in 'brew', non_retryable: no tea" in str(t)


async def test_what_cannot_be_tracked_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAPIDS_REDIS_URL", "redis://localhost:1/0")  # of the shell: perhaps a server in production
    with pytest.raises(TypeError, match="target must be an application, a Rapids, a router or a list of routers"):
        await tracked("app").__aenter__()
    with pytest.raises(
        NotConfiguredError, match=r"give tracked\(..., redis=rapids_url\), .* does not use RAPIDS_REDIS_URL"
    ):
        await tracked(TeaHouse().kitchen).__aenter__()
    with pytest.raises(ValueError, match="redis must be one of"):
        tracked(TeaHouse().kitchen, redis="localhost")
    with pytest.raises(ValueError, match="fast_forward must be a number of seconds from 0, not -1"):
        tracked(TeaHouse().kitchen, fast_forward=-1)
    with pytest.raises(RuntimeError, match="in an async test, write `async with tracked"):
        tracked(TeaHouse().kitchen).__enter__()


def without_ids(error: BaseException) -> str:
    return re.sub(r"\d{10,}-\d+", "1-1", str(error))
