"""Settling entries in Redis, also those whose dead letters belong into another slot of a Cluster."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from redis.exceptions import RedisError

from rapids._core.renames import former_names
from rapids._storage import letters_elsewhere, settlement
from rapids._storage.client.connections import Commands, Reply
from rapids._storage.settlement import SettleCall
from rapids._worker.context import Member

__all__ = ["settle_all"]


UNSETTLED = (b"lost", b"stale", b"unwritten")
"""Answers after which the entry is pending as before: another consumer's, or this one's anew."""


async def settle_all(member: Member, calls: Sequence[SettleCall]) -> list[Reply]:
    """Settle entries by the script: what was done for each, or the error. Raises `RedisError` if no answer came."""
    dlq, maxlen = member.settings.dlq_stream, member.settings.dlq_maxlen
    if member.letters is not None and dlq is not None and any(one.letters for one in calls):
        return await _letters_first(member, member.letters, dlq, calls)
    here = dlq if member.letters is None else None
    return await settlement.settle(member.commands, member.name, calls, dlq=here, dlq_maxlen=maxlen)


async def _letters_first(member: Member, elsewhere: Commands, dlq: str, calls: Sequence[SettleCall]) -> list[Reply]:
    maxlen = member.settings.dlq_maxlen
    ready: list[SettleCall | Exception] = list(calls)
    with_letters = [at for at, one in enumerate(calls) if one.letters]
    those = [_with_former_names(calls[at], member.settings.renamed_handlers or {}) for at in with_letters]
    written: Sequence[SettleCall | Exception]
    try:
        written = await letters_elsewhere.write(member.commands, elsewhere, member.name, those, dlq=dlq, maxlen=maxlen)
    except (RedisError, OSError) as error:  # the node for letters may be away, and the other one not
        written = [error] * len(those)
    for at, one in zip(with_letters, written, strict=True):
        ready[at] = one
    sent = [one for one in ready if isinstance(one, SettleCall)]
    answers = iter(await settlement.settle(member.commands, member.name, sent, dlq=None, dlq_maxlen=None))
    replies = [next(answers) if isinstance(one, SettleCall) else one for one in ready]
    done = [calls[at] for at in with_letters if not (isinstance(replies[at], Exception) or replies[at] in UNSETTLED)]
    if done:
        with suppress(RedisError, OSError):  # what tells that a letter is written ends by itself, only later
            await letters_elsewhere.settled(elsewhere, done, dlq=dlq)
    return replies


def _with_former_names(call: SettleCall, renamed: Mapping[str, str]) -> SettleCall:
    letters = [replace(letter, former=former_names(renamed, letter.handler)) for letter in call.letters]
    return replace(call, letters=letters)
