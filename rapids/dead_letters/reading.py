"""Letters as the stream has them, read."""

from collections.abc import Sequence

from rapids._core.entry_id import order
from rapids._storage import letters
from rapids._storage.client.connections import Commands
from rapids._wire.entry_format import Fields
from rapids._wire.letter_format import LetterRead
from rapids.dead_letters.letter import DeadLetter

__all__ = ["read_letters"]


async def read_letters(
    commands: Commands, dlq: str, rows: Sequence[tuple[bytes, Fields]]
) -> Sequence[tuple[str, DeadLetter]]:
    """Letters with their entry ids. A letter's id is its entry's, unless it was restored under a new one."""
    claimed = [LetterRead.of(fields).values.get(b"letter_id", b"") for _, fields in rows]
    strangers = {claim for (entry_id, _), claim in zip(rows, claimed, strict=True) if claim not in (b"", entry_id)}
    restored: dict[bytes, int | None] = {}
    if strangers:
        names = sorted(strangers)
        times = await letters.restored_at(commands, dlq, names)
        restored = dict(zip(names, times, strict=True))
    read: list[tuple[str, DeadLetter]] = []
    for (raw_id, fields), claim in zip(rows, claimed, strict=True):
        entry_id = raw_id.decode()
        was_restored = restored.get(claim) == order(entry_id)[0]
        read.append((entry_id, DeadLetter.read(claim.decode() if was_restored else entry_id, fields)))
    return read
