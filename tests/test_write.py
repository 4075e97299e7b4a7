"""Whether replicas have what an emitter says is stored, by the answers of servers that take each other's place."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import pytest
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError

from rapids._core.settings import EmitterSettings
from rapids._emit.faults import NotReplicatedError
from rapids._emit.write import Appended, Emit, EmitCounts, Outgoing, Shortfall, Write

UNBLOCKED = ResponseError(
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)"
)


class Answers:
    """A server's answers in turn: to writes, and to what is asked in between, which is which events are stored."""

    def __init__(self, *answers: Sequence[Any]) -> None:
        self._answers = list(answers)
        self.asked: list[int] = []
        """How many entries each write had."""
        self.deadline: float | None = None
        self.is_ready = True

    async def send_packed(self, packed: Sequence[bytes], after: Sequence[object] = ()) -> list[Any]:
        self.asked.append(len(packed))
        return list(self._answers.pop(0))

    async def send(self, commands: Sequence[object]) -> list[Any]:
        return list(self._answers.pop(0))


async def written(answers: Answers, *, emits: int = 1, tries: int = 2) -> list[Appended]:
    """What becomes of emits of one event each, `event-0` and so on, of which one replica is to have a copy."""
    settings = EmitterSettings(stream="s", max_retries=tries, retry_delay=0.001, replicas=1)
    counts = EmitCounts("s", ())
    loop = asyncio.get_running_loop()
    of = [
        Emit([Outgoing(f"event-{n}", b"", counts.of_raw_type(b"t"))], loop.create_future(), counts, math.inf)
        for n in range(emits)
    ]
    await Write(answers, settings, of, "0-1").run()  # type: ignore[arg-type]
    return [emit.done.result() for emit in of]


def found(*ids: bytes) -> Sequence[object]:
    """The answer to the look-up: event ids and entry ids in turn, and that all was looked at."""
    return [[*ids, 1]]


@pytest.mark.parametrize("wait", [0, UNBLOCKED])
async def test_an_unconfirmed_emit_is_not_confirmed_by_the_failure_of_another(wait: object) -> None:
    first, second = await written(Answers([b"1-0", OutOfMemoryError("OOM"), wait]), emits=2, tries=1)
    assert isinstance(first, Shortfall)
    assert isinstance(first.error, NotReplicatedError)
    assert first.ids == ["1-0"]
    assert isinstance(second, Shortfall)
    assert second.ids == [None]


async def test_a_confirmed_emit_succeeds_though_another_one_fails() -> None:
    first, second = await written(Answers([b"1-0", OutOfMemoryError("OOM"), 1]), emits=2, tries=1)
    assert first == ["1-0"]
    assert isinstance(second, Shortfall)


async def test_an_unconfirmed_event_that_the_new_master_lacks_is_sent_again() -> None:
    answers = Answers([b"1-0", UNBLOCKED], found(), [b"2-0", 1])
    assert await written(answers) == [["2-0"]]


async def test_an_unconfirmed_event_that_the_new_master_has_is_not_stored_twice() -> None:
    answers = Answers([b"1-0", UNBLOCKED], found(b"event-0", b"1-0"), [None, 1])
    assert await written(answers) == [["1-0"]]


async def test_an_event_lost_in_a_failover_is_sent_again_with_refused_ones() -> None:
    answers = Answers([b"1-0", ReadOnlyError("READONLY"), UNBLOCKED], found(), [b"2-0", b"2-1", 1])
    assert await written(answers, emits=2) == [["2-0"], ["2-1"]]


async def test_after_the_last_attempt_an_event_is_stored_and_not_confirmed() -> None:
    (only,) = await written(Answers([b"1-0", UNBLOCKED]), tries=1)
    assert isinstance(only, Shortfall)
    assert isinstance(only.error, NotReplicatedError)
    assert (only.ids, only.unsure) == (["1-0"], set())


async def test_too_few_replicas_are_waited_for_only_once() -> None:
    (only,) = await written(Answers([b"1-0", 0]), tries=5)
    assert isinstance(only, Shortfall)
    assert only.ids == ["1-0"]
