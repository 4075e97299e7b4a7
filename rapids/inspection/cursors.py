"""Places in the listings of the inspector.

A listing of entries also keeps where it ends: after what was there when it began. So it comes to an end however fast
entries are added while others are settled.
"""

import re
from dataclasses import dataclass
from math import isnan

from rapids._core.entry_id import next_id, parsed_id
from rapids._core.paging import Listing

__all__ = ["EntryPlace", "TimePlace", "name_after"]

WAITING_ENTRIES = Listing("waiting")


@dataclass(frozen=True, slots=True)
class EntryPlace:
    """A place in a listing by entry id: the id to begin at and the one to end at."""

    start: str = "-"
    until: str = ""

    @classmethod
    def read(cls, listing: Listing, cursor: str | None) -> "EntryPlace":
        """Raises `ValueError` for a cursor that no page gave out."""
        return cls() if cursor is None else cls(*listing.entry_ids(cursor, 2))

    @staticmethod
    def after(listing: Listing, entry_id: str, until: str) -> str | None:
        """The cursor for the place after an entry, None where that is the end."""
        return None if entry_id == until else listing.entry_cursor(next_id(entry_id), until)


@dataclass(frozen=True, slots=True)
class TimePlace:
    """A place in the listing of waiting entries: the time and id of the entry to begin after, and the last time."""

    after: tuple[str, str] = ("", "")
    until: str = ""

    @classmethod
    def read(cls, cursor: str | None) -> "TimePlace":
        """Raises `ValueError` for a cursor that no page gave out."""
        if cursor is None:
            return cls()
        parts = WAITING_ENTRIES.text(cursor).split("_")
        if len(parts) != 3 or not (_is_score(parts[0]) and _is_score(parts[2])) or parsed_id(parts[1]) is None:
            raise WAITING_ENTRIES.bad(cursor)
        return cls((parts[0], parts[1]), parts[2])

    @property
    def cursor(self) -> str:
        """The cursor for this place."""
        return WAITING_ENTRIES.cursor("_".join((*self.after, self.until)))


def _is_score(text: str) -> bool:
    """Whether Redis takes this for a score. It writes 1e+20 where others write all digits."""
    return re.fullmatch(r"-?(inf|[0-9.]{1,30}(e[+-]?[0-9]{1,3})?)", text) is not None and _is_number(text)


def _is_number(text: str) -> bool:
    try:
        return not isnan(float(text))
    except ValueError:
        return False


def name_after(listing: Listing, cursor: str | None) -> bytes:
    """The first name there can be after a cursor's. Raises `ValueError` for a cursor that no page gave out."""
    return b"" if cursor is None else listing.place(cursor) + b"\0"
