"""Terms: one consumer after another is the active one of its group, and what it may do ends with its term.

A term has a token of its own. It does not end when the key that says who is active expires, but when another consumer
becomes active: until then nobody else was given anything. Scripts that act for the active consumer compare the token.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from rapids._storage import scripts
from rapids._storage.client.connections import Commands, checked, run
from rapids._storage.keys import Source

__all__ = ["REMEMBERED_MS", "Term", "end", "hold", "keys_of", "option_of"]

REMEMBERED_MS = 3_600_000
"""For how many milliseconds the latest term is remembered. A consumer that stood still for longer begins a new one."""


@dataclass(frozen=True, slots=True)
class Term:
    """A term of a group, which is that of its stream's source. On standby, the token is empty."""

    source: Source
    token: str = ""


def keys_of(term: Term | None) -> tuple[str, ...]:
    """The keys by which a script sees whether the term has ended. None without a term: the group is not exclusive."""
    return () if term is None else (term.source.exclusive, term.source.term)


def option_of(term: Term | None) -> Mapping[str, str]:
    """The option for a script that acts in a term."""
    return {} if term is None else {"term": term.token}


async def hold(
    commands: Commands,
    term: Term,
    next_token: str,
    *,
    ttl_ms: int,
    latest_ms: int = 2**53,
    remember: bool = True,
) -> tuple[str, int]:
    """Stay the active consumer for `ttl_ms` milliseconds from now, or become it if there is none.

    After another consumer's term, a new one begins only until `latest_ms` by the server's clock.
    Returns the token of the group's term (the given one's, or `next_token` if a new one begins, or another consumer's),
    and the server's time (milliseconds). `remember`: whether a renewal begins the time again for which the term is
    remembered.
    """
    call_ = (keys_of(term), (term.token, next_token, ttl_ms, REMEMBERED_MS, latest_ms, int(remember)))
    token, now_ms = checked((await run(commands, scripts.load("hold_term"), [call_]))[0])
    return token.decode() if isinstance(token, bytes) else token, now_ms


async def end(commands: Commands, term: Term) -> None:
    """End a term, so that another consumer becomes active at once."""
    checked((await run(commands, scripts.load("release"), [(keys_of(term), (term.token,))]))[0])
