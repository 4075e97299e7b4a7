"""Redirects: which commands are sent again, where, how often, and which answer counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from redis.exceptions import AskError, MovedError, ResponseError

from rapids._storage.client import commands
from rapids._storage.client.commands import follow

MOVED, ASK = "7 10.0.0.2:7000", "7 10.0.0.3:7000"


class Nodes:
    """Answers by script; notes what is asked of it."""

    def __init__(self, *answers: Sequence[Any]) -> None:
        self.answers = list(answers)
        self.calls: list[Any] = []

    async def moved(self, error: MovedError) -> None:
        self.calls.append(("moved", f"{error.host}:{error.port}"))

    async def ask(self, error: AskError, packed: Sequence[bytes], after: Sequence[bytes]) -> list[Any]:
        self.calls.append(("ask", f"{error.host}:{error.port}", list(packed), list(after)))
        return list(self.answers.pop(0))

    async def again(self, packed: Sequence[bytes]) -> list[Any]:
        self.calls.append(("again", list(packed)))
        return list(self.answers.pop(0))


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "PAUSE", 0)


async def test_a_command_with_an_answer_is_not_sent_again() -> None:
    nodes = Nodes([b"2"])
    replies = [b"1", MovedError(MOVED), ResponseError("no")]
    followed = await follow(nodes, replies, [b"a", b"b", b"c"], nodes.again)
    assert followed[:2] == [b"1", b"2"]
    assert isinstance(followed[2], ResponseError)
    assert nodes.calls == [("moved", "10.0.0.2:7000"), ("again", [b"b"])]


async def test_a_migrating_slot_is_asked_at_its_target_and_a_moved_one_at_its_new_node() -> None:
    nodes = Nodes([b"1"], [b"2"])
    replies = [AskError(ASK), MovedError(MOVED)]
    assert await follow(nodes, replies, [b"a", b"b"], nodes.again) == [b"1", b"2"]
    assert nodes.calls == [
        ("ask", "10.0.0.3:7000", [b"a"], []),
        ("moved", "10.0.0.2:7000"),
        ("again", [b"b"]),
    ]


async def test_the_target_of_a_move_may_send_on_as_well() -> None:
    nodes = Nodes([MovedError(MOVED)], [b"1"])
    assert await follow(nodes, [AskError(ASK)], [b"a"], nodes.again) == [b"1"]


async def test_nodes_that_disagree_are_not_asked_for_ever() -> None:
    nodes = Nodes(*[[MovedError(MOVED)]] * 100)
    (reply,) = await follow(nodes, [MovedError(MOVED)], [b"a"], nodes.again)
    assert isinstance(reply, MovedError)
    assert len([one for one in nodes.calls if one[0] == "again"]) == commands.ROUNDS


@pytest.mark.parametrize("error", [MovedError(MOVED), AskError(ASK)])
async def test_replicas_are_waited_for_again_and_the_least_of_them_counts(error: AskError) -> None:
    nodes = Nodes([b"2", 1])
    assert await follow(nodes, [b"1", error, 2], [b"a", b"b"], nodes.again, [b"wait"]) == [b"1", b"2", 1]
    assert nodes.calls[-1] in [("again", [b"b", b"wait"]), ("ask", "10.0.0.3:7000", [b"b"], [b"wait"])]
    nodes = Nodes([b"2", 2])
    assert await follow(nodes, [b"1", error, 1], [b"a", b"b"], nodes.again, [b"wait"]) == [b"1", b"2", 1]


async def test_replicas_that_could_not_be_waited_for_are_an_error_whichever_it_was() -> None:
    refused = ResponseError("WAIT cannot be used with replica instances")
    nodes = Nodes([b"2", 1])
    assert await follow(nodes, [MovedError(MOVED), refused], [b"a"], nodes.again, [b"wait"]) == [b"2", refused]
    nodes = Nodes([b"2", refused])
    assert await follow(nodes, [MovedError(MOVED), 1], [b"a"], nodes.again, [b"wait"]) == [b"2", refused]
