"""Cursors of lists: opaque text that says where the next page begins."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass

from rapids._core.entry_id import parsed_id

__all__ = ["Listing"]

MAX_QUOTED = 100
"""How many characters of a bad cursor an error quotes."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A list that is returned in pages. A cursor holds the name of its list, so no other list accepts it."""

    name: str

    def cursor(self, place: str | bytes) -> str:
        """The cursor for a place in the list. It consists of the characters A-Z, a-z, 0-9, - and _."""
        raw = place.encode() if isinstance(place, str) else place
        return urlsafe_b64encode(self.name.encode() + b":" + raw).decode().rstrip("=")

    def place(self, cursor: str) -> bytes:
        """The place that a cursor stands for. Raises `ValueError` for a cursor that did not come from this list."""
        try:
            raw = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        except (ValueError, TypeError) as error:
            raise self.bad(cursor) from error
        name, _, place = raw.partition(b":")
        if name != self.name.encode() or self.cursor(place) != cursor:
            raise self.bad(cursor)
        return place

    def text(self, cursor: str) -> str:
        """The place that a cursor stands for, as text."""
        try:
            return self.place(cursor).decode()
        except UnicodeDecodeError as error:
            raise self.bad(cursor) from error

    def entry_cursor(self, *entry_ids: str) -> str:
        """The cursor for a place that consists of one or several entry ids."""
        return self.cursor("_".join(entry_ids))

    def entry_ids(self, cursor: str, count: int) -> Sequence[str]:
        """The `count` entry ids of which a place in this list consists. Raises `ValueError` like `place`."""
        ids = self.text(cursor).split("_")
        if len(ids) != count or any(parsed_id(entry_id) != entry_id for entry_id in ids):
            raise self.bad(cursor)
        return ids

    @staticmethod
    def bad(cursor: object) -> ValueError:
        """The error to raise for a cursor that did not come from this list."""
        return ValueError(f"cursor must be one from an earlier page of this list, not {repr(cursor)[:MAX_QUOTED]}")
