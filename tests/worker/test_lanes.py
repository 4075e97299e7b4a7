"""Lanes as a model, without a server: entries of one key run one after another, in the order in which they came."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from redis.asyncio import Redis

from rapids._storage import streams
from rapids._storage.groups import RawEntry
from rapids._storage.keys import Source
from rapids._worker.gate import Gate
from rapids._worker.inflight import HeldEntry
from rapids._worker.intake import Intake
from rapids._worker.lanes import Lanes
from tests.support import eventually
from tests.worker.helpers import (
    DvOrder,
    make_emitter,
    make_router,
    running,
    until_settled,
)

KEYS = ("ann", "bob", "cid")


class LanesModel(RuleBasedStateMachine):
    """Entries are numbers; what the model keeps is what must be true of them."""

    @initialize()
    def begin(self) -> None:
        self.lanes: Lanes[int] = Lanes()
        self.number = 0
        self.now = 0.0
        self.came: defaultdict[str, list[int]] = defaultdict(list)
        self.begun: defaultdict[str, list[int]] = defaultdict(list)
        self.running: dict[str, int] = {}
        self.awaited: dict[str, tuple[int, float]] = {}

    def _run(self, key: str, number: int) -> None:
        assert key not in self.running, "two of one key ran at a time"
        self.running[key] = number
        self.begun[key].append(number)

    @rule(key=st.sampled_from(KEYS))
    def come(self, key: str) -> None:
        self.number += 1
        self.came[key].append(self.number)
        began = self.lanes.enter(key, b"%d" % self.number, self.number)
        assert began == (key not in self.running and key not in self.awaited)
        if began:
            self._run(key, self.number)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.running)))
        del self.running[key]
        if (next_ := self.lanes.leave(key)) is not None:
            self._run(key, next_)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), delay=st.floats(0, 5))
    def fail(self, data: st.DataObject, delay: float) -> None:
        key = data.draw(st.sampled_from(sorted(self.running)))
        number = self.running.pop(key)
        self.begun[key].remove(number)  # it begins again
        self.awaited[key] = (number, self.now + delay)
        self.lanes.hold(key, b"%d" % number, self.now + delay)

    @precondition(lambda self: self.awaited)
    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.awaited)))
        number, _ = self.awaited.pop(key)
        assert self.lanes.enter(key, b"%d" % number, number), "the one that was waited for had to wait"
        self._run(key, number)

    @rule(seconds=st.floats(0, 3))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        due = {key for key, (_, at) in self.awaited.items() if at <= self.now}
        begin = self.lanes.overdue(self.now)
        for key in due:
            self.came[key].remove(self.awaited.pop(key)[0])  # another consumer's now
        assert {key for key, _ in begin} == {key for key in due if len(self.came[key]) > len(self.begun[key])}
        for key, number in begin:
            self._run(str(key), number)

    @rule()
    def stop(self) -> None:
        left = self.lanes.drain()
        expected = [number for key in KEYS for number in self._waiting(key)]
        assert sorted(left) == sorted(expected)
        for key in KEYS:
            self.came[key] = [number for number in self.came[key] if number not in left]

    def _waiting(self, key: str) -> list[int]:
        held = {self.awaited[key][0]} if key in self.awaited else set()
        return [number for number in self.came[key] if number not in self.begun[key] and number not in held]

    @invariant()
    def in_order_and_counted(self) -> None:
        if not hasattr(self, "lanes"):
            return
        for key in KEYS:
            held = {self.awaited[key][0]} if key in self.awaited else set()
            begun = [number for number in self.came[key] if number in self.begun[key]]
            assert begun == [number for number in self.begun[key] if number in self.came[key]]
            assert begun == [number for number in self.came[key] if number not in held][: len(begun)]
        assert self.lanes.queued == sum(len(self._waiting(key)) for key in KEYS)
        assert self.lanes.next_overdue == min((at for _, at in self.awaited.values()), default=float("inf"))

    @invariant()
    def nothing_is_kept_of_keys_that_rest(self) -> None:
        if hasattr(self, "lanes"):
            assert len(self.lanes) == len(self.running) + len(self.awaited)


TestLanes = LanesModel.TestCase


def test_no_later_entry_begins_before_those_that_another_consumer_had() -> None:
    lanes = Lanes[str]()
    lanes.foresee("ann", b"2-0", 10.0)
    lanes.foresee("ann", b"10-0", 5.0)
    assert lanes.next_overdue == 5.0
    assert not lanes.enter("ann", b"11-0", "eleven"), "new"
    assert lanes.enter("ann", b"1-0", "one"), "abandoned, and earlier"
    assert not lanes.enter("ann", b"10-0", "ten"), "due, but not the first"
    assert not lanes.enter("ann", b"2-0", "two"), "the one before it still runs"
    assert [lanes.leave("ann") for _ in range(4)] == ["two", "ten", "eleven", None]
    assert (len(lanes), lanes.queued) == (0, 0)


def test_a_lane_waits_for_the_other_entries_that_another_consumer_had() -> None:
    lanes = Lanes[str]()
    lanes.foresee("ann", b"2-0", 10.0)
    lanes.foresee("ann", b"3-0", 20.0)
    assert not lanes.enter("ann", b"4-0", "four")
    assert lanes.enter("ann", b"2-0", "two")
    lanes.hold("ann", b"2-0", 15.0)  # it failed again
    assert not lanes.enter("ann", b"1-0", "one")
    assert lanes.overdue(16.0, is_held=lambda entry_id: entry_id == b"2-0") == []
    assert lanes.enter("ann", b"2-0", "two")
    assert lanes.leave("ann") == "one"
    assert lanes.leave("ann") is None, "three is to come"
    assert lanes.overdue(25.0) == [("ann", "four")]
    assert lanes.leave("ann") is None
    assert (len(lanes), lanes.queued) == (0, 0)


def test_what_is_forgotten_leaves_only_what_runs() -> None:
    lanes = Lanes[str]()
    assert lanes.enter("ann", b"1-0", "one")
    assert not lanes.enter("ann", b"2-0", "two")
    lanes.foresee("bob", b"3-0", 10.0)
    lanes.forget()
    assert (len(lanes), lanes.queued, lanes.next_overdue) == (1, 0, float("inf"))
    assert not lanes.enter("ann", b"2-0", "again"), "the first one still runs"
    assert lanes.enter("bob", b"4-0", "four")


def test_a_key_goes_on_after_an_entry_was_released_that_had_its_turn() -> None:
    """The group was paused when the entry before it had ended, and no handler was free yet."""
    source, intake = Source("events", "group"), Intake(Gate(lease_seconds=60), 10)
    first, second, third = (HeldEntry(RawEntry(source, b"%d-0" % number, ()), 0.0) for number in range(3))
    assert intake.enter_lane("ann", first)
    assert not intake.enter_lane("ann", second)
    intake.pass_lane_on("ann")
    assert intake.drain() == [second]
    assert intake.enter_lane("ann", third), "it waited for ever"


async def test_an_entry_that_the_old_master_does_not_know_is_not_lost(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failover a lane's entry was looked up over a connection that still led to the old master, which had never
    had it; what was not there was acknowledged as lost, over a new connection, at the master that had it."""
    handled, go_on = list[int](), asyncio.Event()
    router = make_router(redis, concurrency=2, order_by=lambda event: "one key", batch_size=5)

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        handled.append(event.number)
        await go_on.wait()

    entry, asked = streams.entry, []

    async def of_before(commands: Any, stream: str, entry_id: bytes) -> Any:
        asked.append(entry_id)
        return None if len(asked) <= 3 else await entry(commands, stream, entry_id)

    monkeypatch.setattr(streams, "entry", of_before)
    async with running(router):
        await make_emitter(redis).emit([DvOrder(number=number) for number in range(20)])
        await eventually(lambda: router.counters.total("delivered") == 20)
        go_on.set()
        await until_settled(redis)
    assert asked, "no entry was looked up"
    assert handled == list(range(20))
    assert router.counters.total("lost") == 0
