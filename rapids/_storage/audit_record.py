"""The audit log of a stream: written by the scripts that change something (`auditing.lua`), read here."""

from collections.abc import Sequence

from rapids._storage.client.connections import Commands, call
from rapids._storage.keys import audit_log

__all__ = ["page"]


async def page(
    commands: Commands, stream: str, *, before: str | None, count: int
) -> list[tuple[bytes, Sequence[bytes]]]:
    """Up to `count` entries, newest first, from the one before an id; from the newest where that is None."""
    newest = "+" if before is None else f"({before}"
    return [
        (row[0], row[1]) for row in await call(commands, "XREVRANGE", audit_log(stream), newest, "-", "COUNT", count)
    ]
