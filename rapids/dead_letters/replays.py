"""What became of replays."""

from dataclasses import replace

from redis.asyncio import Redis, RedisCluster

from rapids._storage import archive
from rapids._storage.client.connections import SharedPool
from rapids.dead_letters.letter import DeadLetter, ReplayOutcome

__all__ = ["with_replays"]


async def with_replays(redis: Redis | RedisCluster, dlq: str, letter: DeadLetter) -> DeadLetter:
    """The letter, with what became of its replay, if it was replayed last. Raises `RedisError`."""
    if not letter.history or (last := letter.history[-1]).action != "replayed":
        return letter
    outcome = ReplayOutcome(last.at, last.scope, last.stream, last.entry_id, "sent")
    if last.scope != "everyone":
        commands = SharedPool(redis, last.stream)
        state = await archive.replay_state(commands, last.stream, letter.group, last.entry_id)
        # In this order: the letters of an entry are there before it is gone.
        letters = await archive.failed_again(SharedPool(redis, dlq), dlq, letter.id)
        match state, letters:
            case (("undelivered" | "pending"), _):
                outcome = replace(outcome, outcome=state, letters=letters)
            case "unknown", ():
                outcome = replace(outcome, outcome="unknown")
            case _, ():
                outcome = replace(outcome, outcome="handled", is_inferred=True)
            case _:
                outcome = replace(outcome, outcome="failed_again", letters=letters)
    return replace(letter, replays=(outcome,))
