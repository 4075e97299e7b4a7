"""Cursors: where the next page of a listing begins, as text that says nothing to its users."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass

from rapids._core.entry_id import parsed_id

__all__ = ["Listing"]

MAX_QUOTED = 100
"""Characters of a bad cursor that an error quotes."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A listing that is given out in pages. A cursor holds the listing's name, so no other listing takes it."""

    name: str

    def cursor(self, place: str | bytes) -> str:
        """The cursor for a place, of the characters A-Z, a-z, 0-9, - and _."""
        raw = place.encode() if isinstance(place, str) else place
        return urlsafe_b64encode(self.name.encode() + b":" + raw).decode().rstrip("=")

    def place(self, cursor: str) -> bytes:
        """The place a cursor stands for. Raises `ValueError` for one that no page of this listing gave out."""
        try:
            raw = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        except (ValueError, TypeError) as error:
            raise self.bad(cursor) from error
        name, _, place = raw.partition(b":")
        if name != self.name.encode() or self.cursor(place) != cursor:
            raise self.bad(cursor)
        return place

    def text(self, cursor: str) -> str:
        """The same for a place that is text."""
        try:
            return self.place(cursor).decode()
        except UnicodeDecodeError as error:
            raise self.bad(cursor) from error

    def entry_cursor(self, *entry_ids: str) -> str:
        """The cursor for a place that is one entry id or several."""
        return self.cursor("_".join(entry_ids))

    def entry_ids(self, cursor: str, count: int) -> Sequence[str]:
        """As many entry ids as make a place of this listing. Raises `ValueError` as `place` does."""
        ids = self.text(cursor).split("_")
        if len(ids) != count or any(parsed_id(entry_id) != entry_id for entry_id in ids):
            raise self.bad(cursor)
        return ids

    @staticmethod
    def bad(cursor: object) -> ValueError:
        """What to raise for a cursor that no page gave out."""
        return ValueError(f"cursor must be one that a page of this listing gave out, not {repr(cursor)[:MAX_QUOTED]}")
