"""Dead letters of a stream whose dead-letter stream is in another slot of a Cluster, where no script may have both.

The letter is written first, then the entry is settled: whatever happens in between, the letter is there, and the entry
is delivered again. A key beside the letter tells that it is written, for whoever settles the entry in the end.
"""

from collections.abc import Sequence
from dataclasses import replace

from rapids._storage import scripts
from rapids._storage.client.connections import Command, Commands, Reply, checked, run
from rapids._storage.keys import letter_index, letter_written
from rapids._storage.settlement import Letter, SettleCall

__all__ = ["settled", "write"]

UNSETTLED_MS = 7 * 24 * 3_600_000
"""For how long it is known that a letter is written while its entry is not settled (milliseconds)."""

SETTLED_MS = 600_000
"""For how long afterwards: as long as a process could stand still just before it writes the same letter."""


async def write(
    commands: Commands, elsewhere: Commands, consumer: str, calls: Sequence[SettleCall], *, dlq: str, maxlen: int | None
) -> list[SettleCall | Exception]:
    """The calls as they are to be made in the stream's slot, their letters written; or why a letter is not.

    Letters of entries that another consumer has by now are not written: it writes its own.
    Raises `RedisError` if no answer came.
    """
    held = await _held(commands, consumer, calls)
    wanted = [(at, letter) for at, one in enumerate(calls) if held[at] for letter in one.letters]
    requests = [_request(calls[at], letter, dlq, maxlen) for at, letter in wanted]
    replies: list[Reply] = await run(elsewhere, scripts.load("write_letter"), requests) if requests else []
    faults = {at: reply for (at, _), reply in zip(wanted, replies, strict=True) if isinstance(reply, Exception)}
    return [faults.get(at) or _marked(one, is_written=held[at]) for at, one in enumerate(calls)]


async def settled(elsewhere: Commands, calls: Sequence[SettleCall], *, dlq: str) -> None:
    """These were settled: soon nobody needs to know any more that their letters are written. Raises `RedisError`."""
    keys = [_key(one, letter.handler, dlq) for one in calls for letter in one.letters]
    for reply in await elsewhere.send([("PEXPIRE", key, SETTLED_MS) for key in keys]):
        checked(reply)


async def _held(commands: Commands, consumer: str, calls: Sequence[SettleCall]) -> list[bool]:
    """Whether the delivery that a call is to settle is this consumer's still."""
    asked = [("XPENDING", one.source.stream, one.source.group, one.entry_id, one.entry_id, 1) for one in calls]
    rows = [checked(reply) for reply in await commands.send(asked)]
    return [
        row[0][1] == consumer.encode() and row[0][3] <= one.delivery if row else one.verb == "bury"
        for row, one in zip(rows, calls, strict=True)
    ]


def _request(one: SettleCall, letter: Letter, dlq: str, maxlen: int | None) -> tuple[Sequence[str], Command]:
    written = [_key(one, name, dlq) for name in (letter.handler, *letter.former)]
    return (dlq, written[0], letter_index(dlq), *written[1:]), (UNSETTLED_MS, maxlen or 0, *letter.fields)


def _key(one: SettleCall, handler: str, dlq: str) -> str:
    source = one.source
    return letter_written(dlq, f"{source.stream}:{source.group}:{one.entry_id.decode()}:{handler}")


def _marked(one: SettleCall, *, is_written: bool) -> SettleCall:
    return replace(one, letters=[replace(letter, fields=(), is_written=is_written) for letter in one.letters])
