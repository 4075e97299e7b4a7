"""The gate, without a server: what may begin, what waits, and what is released."""

from __future__ import annotations

import asyncio
import time

import pytest

from rapids._storage.groups import RawEntry
from rapids._storage.keys import Source
from rapids._worker.gate import Answer, Gate
from rapids._worker.inflight import HeldEntry, State

LEASE = 60.0
SOON = 30.0


def held(*, age: float = 0.0) -> HeldEntry:
    """An entry whose lease was ours so many seconds ago."""
    return HeldEntry(RawEntry(Source("orders", "billing"), b"1-0", ()), time.monotonic() - age)


def open_gate(*, exclusive: bool = False) -> Gate:
    """One of a consumer that has its name, and is the active one."""
    gate = Gate(lease_seconds=LEASE, exclusive=exclusive)
    gate.keep_name(time.monotonic() + SOON)
    if exclusive:
        gate.be_active(time.monotonic() + SOON)
    return gate


@pytest.mark.parametrize("exclusive", [False, True])
def test_an_entry_begins_if_nothing_prevents_it(exclusive: bool) -> None:
    assert open_gate(exclusive=exclusive).ask(held()) is Answer.BEGIN


def test_an_entry_whose_lease_may_have_lapsed_waits_for_an_answer_of_redis() -> None:
    gate, one = open_gate(), held(age=LEASE + 1)

    assert gate.ask(one) is Answer.WAIT
    assert gate.ask(one, is_confirmed=True) is Answer.BEGIN


def test_an_entry_whose_consumer_name_may_be_taken_waits_for_an_answer_of_redis() -> None:
    gate = open_gate()
    gate.keep_name(time.monotonic())

    assert gate.ask(held()) is Answer.WAIT


def test_an_entry_waits_for_an_answer_of_redis_if_another_consumer_may_be_active() -> None:
    gate = open_gate(exclusive=True)
    gate.be_active(time.monotonic())

    assert gate.ask(held()) is Answer.WAIT
    gate.keep_name(time.monotonic() + SOON)  # which says nothing of who is active
    assert gate.ask(held()) is Answer.WAIT


def test_on_standby_nothing_is_read_and_no_entry_is_certain() -> None:
    gate = open_gate(exclusive=True)
    gate.may_read.set()

    gate.stand_by()

    assert not gate.is_active
    assert not gate.may_read.is_set()
    assert gate.ask(held()) is Answer.WAIT


def test_a_consumer_that_is_not_exclusive_is_always_active() -> None:
    gate = Gate(lease_seconds=LEASE)

    assert gate.is_active
    assert gate.may_read.is_set()


@pytest.mark.parametrize("is_confirmed", [False, True])
def test_a_lost_entry_does_not_begin(is_confirmed: bool) -> None:
    one = held()
    one.state = State.LOST

    assert open_gate().ask(one, is_confirmed=is_confirmed) is Answer.RELEASE


def test_nothing_begins_during_a_pause() -> None:
    gate = open_gate()

    gate.pause()
    assert gate.ask(held(), is_confirmed=True) is Answer.RELEASE

    gate.resume()
    assert gate.ask(held()) is Answer.BEGIN


def test_after_a_pause_an_exclusive_consumer_reads_only_once_what_is_older_is_processed() -> None:
    gate = open_gate(exclusive=True)
    gate.may_read.set()

    gate.pause()
    gate.resume()

    assert not gate.may_read.is_set()


def test_the_end_of_a_pause_does_not_open_a_closed_gate() -> None:
    gate = open_gate()
    gate.pause()
    gate.close()

    gate.resume()

    assert gate.closed.is_set()
    assert gate.ask(held()) is Answer.RELEASE


def test_beginning_counts_and_changes_the_state_but_not_of_a_lost_entry() -> None:
    gate, one, lost = open_gate(), held(), held()
    lost.state = State.LOST

    gate.begin(one)
    gate.begin(lost)
    assert (gate.running, one.state, lost.state) == (2, State.RUNNING, State.LOST)

    gate.end()
    gate.end()
    assert gate.running == 0


async def test_an_entry_that_runs_alone_waits_for_the_others_and_keeps_new_ones_waiting() -> None:
    gate, order = open_gate(), list[str]()
    gate.begin(held())

    async def alone() -> None:
        async with gate.alone():
            order.append("alone")
            assert gate.ask(held()) is Answer.WAIT
            assert gate.ask(held(), is_alone=True) is Answer.BEGIN
            await asyncio.sleep(0)

    async def other() -> None:
        await gate.free()
        order.append("other")

    first = asyncio.create_task(alone())
    await asyncio.sleep(0)
    assert gate.ask(held()) is Answer.WAIT
    second = asyncio.create_task(other())
    await asyncio.sleep(0)
    assert order == []

    gate.end()
    await asyncio.gather(first, second)

    assert order == ["alone", "other"]
    assert gate.ask(held()) is Answer.BEGIN


async def test_a_wait_to_run_alone_that_is_cancelled_lets_the_others_begin() -> None:
    gate = open_gate()
    gate.begin(held())

    async def alone() -> None:
        async with gate.alone():
            raise AssertionError

    task = asyncio.create_task(alone())
    await asyncio.sleep(0)
    assert not gate.is_free
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert gate.is_free
    assert gate.ask(held()) is Answer.BEGIN
