"""What a step of the server's clock is, what no process takes after one, and what is corrected; without such a step."""

from __future__ import annotations

import time

import pytest
from redis.asyncio import Redis

from rapids._storage import future_times, groups
from rapids._storage.client.connections import SharedPool
from rapids._storage.keys import Source
from rapids._worker.identity import TTL_MS
from rapids._worker.server_clock import ServerClock
from tests.support import eventually
from tests.worker.helpers import GROUP, STREAM, emit_orders, pending

SOURCE = Source(STREAM, GROUP)


async def test_only_what_lies_in_the_future_is_corrected(redis: Redis) -> None:
    await redis.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    await emit_orders(redis, *range(3))
    await redis.xreadgroup(GROUP, "living", {STREAM: ">"})
    commands = SharedPool(redis, STREAM)
    assert await future_times.correct_entries(commands, SOURCE, b"living") == 0
    assert TTL_MS < 10_000
    await redis.set(SOURCE.consumer("living"), "token", px=10_000)
    await redis.set(SOURCE.handlers("living"), "{}", px=80_000)
    await future_times.shorten(commands, {SOURCE.consumer("living"): TTL_MS, SOURCE.handlers("living"): 90_000})
    assert 0 < await redis.pttl(SOURCE.consumer("living")) <= TTL_MS
    assert TTL_MS < await redis.pttl(SOURCE.handlers("living")) <= 80_000


async def test_a_claim_takes_no_entry_of_others_later_than_the_clock_can_be(redis: Redis) -> None:
    await redis.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    ids = [entry_id.encode() for entry_id in await emit_orders(redis, 1)]
    await redis.xreadgroup(GROUP, "gone", {STREAM: ">"})
    commands = SharedPool(redis, STREAM)

    async def claim(latest_ms: int) -> groups.Claimed:
        return await groups.claim(commands, SOURCE, "me", ids=ids, min_idle_ms=1, due=0, latest_ms=latest_ms)

    await eventually(lambda: _idle(redis))
    refused = await claim(1)
    assert refused.entries == []
    assert len((await claim(refused.now_ms + 60_000)).entries) == 1


async def _idle(redis: Redis) -> bool:
    return (await pending(redis))[0]["time_since_delivered"] > 1


class Clocks:
    """A server's clock and this process's, which the test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, lease_seconds: float) -> None:
        self.own, self.ahead = 1_000.0, 1_700_000_000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.own)
        self.clock = ServerClock({}, lease_seconds=lease_seconds)

    def see(self, *, asked_before: float = 0.001) -> int:
        """How many steps were noticed after an answer, which came so many seconds after the question."""
        asked_at = self.own
        self.own += asked_before
        self.clock.see(int((self.own + self.ahead) * 1000), asked_at)
        return self.clock.steps


@pytest.mark.parametrize("seconds", [120.0, 10.0, 1.5, -1.5, -3_600.0])
def test_a_step_is_noticed(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    clocks = Clocks(monkeypatch, lease_seconds=60)
    assert not clocks.clock.may_take_over
    clocks.see()
    clocks.own += 4.1
    assert clocks.clock.may_take_over
    assert clocks.see() == 0
    clocks.ahead += seconds
    clocks.own += 2
    assert clocks.see() == 1
    assert not clocks.clock.may_take_over
    clocks.own += 59
    assert clocks.see() == 1
    assert not clocks.clock.may_take_over
    clocks.own += 2
    assert clocks.clock.may_take_over


def test_a_drift_a_standstill_and_a_late_answer_are_no_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = Clocks(monkeypatch, lease_seconds=60)
    for turn in range(1_000):
        clocks.own += 2
        clocks.ahead += 0.001
        clocks.see(asked_before=90 if turn % 100 == 99 else 0.001)
    assert clocks.clock.steps == 0


def test_a_step_behind_a_late_answer_is_noticed_with_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = Clocks(monkeypatch, lease_seconds=60)
    clocks.see()
    clocks.see(asked_before=150)
    clocks.ahead += 120
    assert clocks.see() == 1


def test_the_latest_believable_time_is_within_half_a_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = Clocks(monkeypatch, lease_seconds=60)
    assert clocks.clock.latest_ms(60) == 2**53
    clocks.see()
    clocks.own += 10
    now_ms = (clocks.own + clocks.ahead) * 1000
    assert now_ms + 30_000 <= clocks.clock.latest_ms(60) < now_ms + 31_000
