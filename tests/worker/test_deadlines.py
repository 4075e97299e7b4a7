"""Time limits: one timer for all, and a limit for each handler."""

from __future__ import annotations

import asyncio

import pytest

from rapids._worker.deadlines import Deadlines


async def limited(deadlines: Deadlines, seconds: float, work: float) -> str:
    deadline = deadlines.of_current_task()
    task = asyncio.current_task()
    assert task is not None
    deadline.begin(seconds)
    try:
        await asyncio.sleep(work)
    except asyncio.CancelledError:
        return "over" if deadline.end() else "cancelled"
    finally:
        deadline.end()
        assert task.cancelling() == 0 or not deadline.expired
        deadlines.forget(deadline)
    return "done"


async def test_each_handler_has_its_own_deadline_and_all_share_a_timer() -> None:
    deadlines = Deadlines()
    limits = [(30.0, 0.04), (0.01, 30.0), (0.03, 30.0), (60.0, 0.04), (0.02, 30.0)]
    results = await asyncio.gather(*(limited(deadlines, limit, work) for limit, work in limits))
    assert results == ["done", "over", "over", "done", "over"]
    assert asyncio.current_task() is not None
    deadlines.close()


async def test_deadlines_one_after_another_in_one_task() -> None:
    deadlines = Deadlines()
    deadline = deadlines.of_current_task()
    for seconds, work, over in [(0.01, 30.0, True), (30.0, 0.0, False), (0.01, 30.0, True)]:
        deadline.begin(seconds)
        try:
            await asyncio.sleep(work)
        except asyncio.CancelledError:
            assert deadline.end()
        else:
            assert not deadline.end()
            assert not over
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    deadlines.close()


async def test_a_cancellation_from_elsewhere_is_no_time_out() -> None:
    deadlines = Deadlines()
    task = asyncio.create_task(limited(deadlines, 30.0, 60.0))
    await asyncio.sleep(0)
    task.cancel()
    assert await task == "cancelled"
    deadlines.close()


async def test_a_cancellation_together_with_a_time_out_is_a_cancellation() -> None:
    deadlines, loop = Deadlines(), asyncio.get_running_loop()

    async def work() -> bool:
        deadline = deadlines.of_current_task()
        deadline.begin(0.01)
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return deadline.end()
        return True

    task = asyncio.create_task(work())
    loop.call_later(0.01, task.cancel)
    loop.call_later(0.01, task.cancel)
    assert await task is False
    deadlines.close()


async def test_a_long_limit_leaves_the_timer_of_a_short_one_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    deadlines, looks = Deadlines(), list[float]()
    really = deadlines.look_at
    monkeypatch.setattr(deadlines, "look_at", lambda at: (looks.append(at), really(at)))
    deadline = deadlines.of_current_task()
    for _ in range(1_000):
        deadline.begin(30.0)
        deadline.end()
    assert len(looks) == 1
    deadlines.close()
