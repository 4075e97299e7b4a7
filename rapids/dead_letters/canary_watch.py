"""The watch of a canary: how many letters may be replayed now, which depends on the outcomes of those before."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from redis.exceptions import ResponseError

from rapids._core.outages import HaltedError, Retries
from rapids._storage import inspection_queries
from rapids._storage import operation_records as stored
from rapids._storage.client.connections import Commands
from rapids._storage.keys import Source, origin_of
from rapids._storage.operation_records import RESUMED, Claim
from rapids.dead_letters.canary import CanaryProgress, CanaryStep, Stop, begun_after, size_after, verdict
from rapids.dead_letters.operation import read_operation
from rapids.exceptions import OperationNotFoundError

__all__ = ["CanaryStopError", "CanaryWatch"]

MIN_PAUSE, MAX_PAUSE = 0.05, 1.0
"""Seconds between two queries for outcomes: more, the longer these take."""

WHY_PAUSE = 1.0
"""Seconds without an outcome after which it is found out why, and how often."""

MAX_GROUPS = 3
"""How many groups are named whose outcomes are missing."""


class CanaryStopError(Exception):
    """The canary stops the operation. `is_last`: no letters are left to replay."""

    def __init__(self, stop: Stop, why: str, *, is_last: bool) -> None:
        super().__init__(stop, why)
        self.stop: Stop = stop
        self.why = why
        self.is_last = is_last


class CanaryWatch:
    """The watch of the canary of an operation that this process has.

    What it knows is in Redis, so that another process continues in the middle of a step.
    """

    def __init__(self, commands: Commands, claim: Claim, retries: Retries) -> None:
        self._commands = commands
        self._claim = claim
        self._retries = retries

    async def room(self) -> int:
        """How many letters may be replayed now. After a complete step, it waits for the outcomes.

        Raises `CanaryStopError`; `HaltedError` if halted, or if this process no longer has the operation.
        """
        return await self._watch(is_last=False)

    async def finish(self) -> None:
        """Wait for the outcomes of the last step, after which no letters are left. Raises as `room` does."""
        await self._watch(is_last=True)

    async def _watch(self, *, is_last: bool) -> int:
        pause, waiting, since = MIN_PAUSE, -1, time.monotonic()
        while True:
            counted = await self._retries.run(lambda: stored.count_outcomes(self._commands, self._claim))
            if counted is None:
                raise HaltedError
            age_ms, streams = counted
            canary, done, was_stopped = await self._read()
            step = canary.steps[-1]
            if was_stopped:  # somebody resumed it: another step of the same size
                await self._change(begun_after(canary, done, step.size), begins=True)
                continue
            match verdict(step, canary.share, is_last=is_last, is_overdue=age_ms > canary.wait * 1000):
                case "send":
                    return step.size - step.sent
                case "passed":
                    if is_last:
                        return 0
                    await self._change(begun_after(canary, done, size_after(step.size)), begins=True)
                    pause = MIN_PAUSE
                case "wait":
                    if step.waiting != waiting:
                        waiting, since = step.waiting, time.monotonic()
                    if time.monotonic() - since > WHY_PAUSE:
                        since = time.monotonic()
                        await self._change({"canary_why": await self._why(step, streams)})
                    await self._retries.sleep(pause)
                    pause = min(1.5 * pause, MAX_PAUSE)
                case "overdue":
                    why = f"{await self._why(step, streams)}; it has waited for {canary.wait:g} s"
                    raise CanaryStopError("overdue", why, is_last=is_last)
                case "failed_again":
                    size = step.sent if is_last else step.size
                    why = (
                        f"{step.failed_again:,} of {size:,} replays of step {step.step} failed again: a share of "
                        f"{step.failed_again / size:.3g}, and {canary.share:g} is allowed"
                    )
                    raise CanaryStopError("failed_again", why, is_last=is_last)

    async def _read(self) -> tuple[CanaryProgress, int, bool]:
        """The canary, how many letters were replayed, and whether it had stopped and somebody resumed it."""
        claim = self._claim
        found = await self._retries.run(lambda: stored.read(self._commands, claim.dlq, claim.operation_id))
        if found is None:
            raise OperationNotFoundError(claim.operation_id)
        operation = read_operation(claim.operation_id, *found)
        if operation.canary is None:  # somebody has ended it
            raise HaltedError
        return operation.canary, operation.done, found[0]["canary_stopped"] == RESUMED

    async def _change(self, fields: Mapping[str, str | int], *, begins: bool = False) -> None:
        change = stored.change_canary
        if not await self._retries.run(lambda: change(self._commands, self._claim, fields, begins=begins)):
            raise HaltedError

    async def _why(self, step: CanaryStep, streams: Sequence[str]) -> str:
        """What the outcomes of a step wait for."""
        reasons = [await self._retries.run(lambda: self._reason(one)) for one in streams[:MAX_GROUPS]]  # noqa: B023 - awaited here
        more = "; and others" if len(streams) > MAX_GROUPS else ""
        return f"waits for {step.waiting:,} of {step.sent:,} outcomes of step {step.step}: {'; '.join(reasons)}{more}"

    async def _reason(self, replay_stream: str) -> str:
        source = Source(*origin_of(replay_stream))
        what, groups = "has not handled them yet", ()
        with suppress(ResponseError):  # the stream is gone
            groups = (await inspection_queries.groups(self._commands, source.replays(), names_of=source)).rows
        for group in groups:
            if group.paused:
                what = f"is paused {group.paused.description}"
            elif not group.living:
                what = "has no consumer that is alive"
            elif group.held_by_waiting:
                what = f"has {group.held_by_waiting:,} waiting for their next delivery"
        return f"group {source.group!r} {what}"
