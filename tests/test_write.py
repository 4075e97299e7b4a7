"""Whether replicas have what an emitter says is stored, by the answers of servers that take each other's place."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError

from rapids._core.settings import EmitterSettings
from rapids._emit.write import Appended, Emit, EmitCounts, NotReplicatedError, Outgoing, Shortfall, Write

UNBLOCKED = ResponseError(
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)"
)


class Answers:
    """A server's answers in turn: to writes, and to what is asked in between, which is which events are stored."""

    def __init__(self, *answers: Sequence[Any]) -> None:
        self._answers = list(answers)
        self.asked: list[int] = []
        """How many entries each write had."""

    async def send_packed(self, packed: Sequence[bytes], behind: Sequence[object] = ()) -> list[Any]:
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
        Emit([Outgoing(f"event-{n}", b"", counts.of_raw_type(b"t"))], loop.create_future(), counts)
        for n in range(emits)
    ]
    await Write(answers, settings, of, "0-1").run()  # type: ignore[arg-type]
    return [emit.done.result() for emit in of]


def found(*ids: bytes) -> Sequence[object]:
    """The answer to the look-up: event ids and entry ids in turn, and that all was looked at."""
    return [[*ids, 1]]


@pytest.mark.parametrize("wait", [0, UNBLOCKED])
async def test_what_no_replica_confirmed_is_not_confirmed_by_the_trouble_of_another(wait: object) -> None:
    first, second = await written(Answers([b"1-0", OutOfMemoryError("OOM"), wait]), emits=2, tries=1)
    assert isinstance(first, Shortfall)
    assert isinstance(first.error, NotReplicatedError)
    assert first.ids == ["1-0"]
    assert isinstance(second, Shortfall)
    assert second.ids == [None]


async def test_what_replicas_confirmed_is_told_though_another_emit_has_trouble() -> None:
    first, second = await written(Answers([b"1-0", OutOfMemoryError("OOM"), 1]), emits=2, tries=1)
    assert first == ["1-0"]
    assert isinstance(second, Shortfall)


async def test_what_was_not_confirmed_in_a_failover_is_looked_up_at_the_new_master_and_sent_again_if_it_is_gone() -> (
    None
):
    answers = Answers([b"1-0", UNBLOCKED], found(), [b"2-0", 1])
    assert await written(answers) == [["2-0"]]


async def test_what_was_not_confirmed_in_a_failover_is_not_stored_twice_if_the_new_master_has_it() -> None:
    answers = Answers([b"1-0", UNBLOCKED], found(b"event-0", b"1-0"), [None, 1])
    assert await written(answers) == [["1-0"]]


async def test_what_the_old_master_stored_and_the_new_one_lost_is_sent_again_with_what_was_refused() -> None:
    answers = Answers([b"1-0", ReadOnlyError("READONLY"), UNBLOCKED], found(), [b"2-0", b"2-1", 1])
    assert await written(answers, emits=2) == [["2-0"], ["2-1"]]


async def test_where_tries_are_used_up_it_was_stored_and_not_confirmed() -> None:
    (only,) = await written(Answers([b"1-0", UNBLOCKED]), tries=1)
    assert isinstance(only, Shortfall)
    assert isinstance(only.error, NotReplicatedError)
    assert (only.ids, only.unsure) == (["1-0"], set())


async def test_too_few_replicas_are_waited_for_once() -> None:
    (only,) = await written(Answers([b"1-0", 0]), tries=5)
    assert isinstance(only, Shortfall)
    assert only.ids == ["1-0"]
