"""What is kept of entries that somebody settled who does not know of it."""

from rapids._storage import scripts
from rapids._storage.client.connections import Commands, call, checked, run
from rapids._storage.keys import Source

__all__ = ["forget_settled"]

PAGE = 500
"""Entries looked at in one go, about: a small hash is given out whole."""


async def forget_settled(commands: Commands, source: Source, cursor: int) -> tuple[int, list[str]]:
    """Look at a page of the ledger, and forget what is not pending any more. Of a parked entry there is a ledger too.

    Returns where the next page starts, 0 after the last one, and the ids forgotten.
    """
    after, ledgers = await call(commands, "HSCAN", source.ledger, cursor, "COUNT", PAGE)
    ids: list[bytes] = ledgers[::2]
    if not ids:
        return int(after), []
    keys = (source.stream, source.ledger, source.due, source.parked)
    forgotten = checked((await run(commands, scripts.load("forget_settled"), [(keys, (source.group, *ids))]))[0])
    return int(after), [entry_id.decode() for entry_id in forgotten]
