"""Answers of a Cluster's node that another node is to be asked: MOVED for good, ASK while a slot moves.

See https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#redirection-and-resharding.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeAlias

from redis.exceptions import AskError, MovedError

from rapids._storage.client.commands import Reply

__all__ = ["Guide", "Send", "follow"]

ROUNDS = 5
"""How often commands are sent on; nodes that do not agree by then will later."""
PAUSE = 0.02
"""Seconds before the second round, the third after twice as long, and so on: news of a slot takes its time."""

Send: TypeAlias = Callable[[Sequence[bytes]], Awaitable[list[Reply]]]


class Guide(Protocol):
    """What knows the nodes."""

    async def moved(self, error: MovedError) -> None:
        """A node said that another has the slot now. Raises `RedisError` if that one is not known to any."""
        ...

    async def ask(self, error: AskError, packed: Sequence[bytes], behind: Sequence[bytes]) -> list[Reply]:
        """The answers of the node a slot moves to, for commands sent on to it. Raises `RedisError`."""
        ...


async def follow(
    guide: Guide, replies: Sequence[Reply], packed: Sequence[bytes], again: Send, behind: Sequence[bytes] = ()
) -> list[Reply]:
    """The answers, those to commands that were sent on among them.

    `again` sends commands to the node that has the slot by then. `behind`: numbers asked for behind the commands about
    what came before on the same connection, such as WAIT; they are asked for again, and the least one counts.
    Raises `RedisError` if an answer did not come.
    """
    replies = list(replies)
    for round_ in range(ROUNDS):
        sent_on = [at for at, reply in enumerate(replies[: len(packed)]) if isinstance(reply, AskError)]
        if not sent_on:
            break
        if round_:
            await asyncio.sleep(PAUSE * round_)
        error: AskError = replies[sent_on[0]]
        # Those of one kind at a time; a command's answer may change from the one to the other meanwhile.
        same = [at for at in sent_on if isinstance(replies[at], MovedError) == isinstance(error, MovedError)]
        wanted = [packed[at] for at in same]
        if isinstance(error, MovedError):
            await guide.moved(error)
            answers = await again([*wanted, *behind])
        else:
            answers = await guide.ask(error, wanted, behind)
        for at, answer in zip(same, answers, strict=False):
            replies[at] = answer
        if behind:
            replies[len(packed) :] = _least(replies[len(packed) :], answers[len(same) :])
    return replies


def _least(before: Sequence[Reply], now: Sequence[Reply]) -> list[Reply]:
    return [
        one if isinstance(one, Exception) else other if isinstance(other, Exception) else min(one, other)
        for one, other in zip(before, now, strict=True)
    ]
