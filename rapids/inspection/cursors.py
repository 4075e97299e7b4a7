"""Where the next page of a listing starts, as text that says nothing to anybody else.

A listing of entries also keeps where it ends: behind what was there when it began. So it comes to an end however fast
entries are added while others are settled.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from math import isnan

from rapids._core.entry_id import next_id, parsed_id

__all__ = ["EntryCursor", "TimeCursor", "name_after", "name_cursor"]

SHOWN = 100
"""Characters of a bad cursor that an error quotes."""


def bad(cursor: object) -> ValueError:
    return ValueError(f"cursor must be one that a page of this listing gave out, not {repr(cursor)[:SHOWN]}")


def parts_of(cursor: str, count: int) -> list[str]:
    parts = cursor.split("_") if isinstance(cursor, str) else []  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
    if len(parts) != count:
        raise bad(cursor)
    return parts


@dataclass(frozen=True, slots=True)
class EntryCursor:
    """A place in a listing by entry id: the id to begin at and the one to end at."""

    start: str = "-"
    until: str = ""

    @classmethod
    def read(cls, cursor: str | None) -> "EntryCursor":
        """Raises `ValueError` for a cursor that no page gave out."""
        if cursor is None:
            return cls()
        start, until = parts_of(cursor, 2)
        if parsed_id(start) is None or parsed_id(until) is None:
            raise bad(cursor)
        return cls(start, until)

    @classmethod
    def behind(cls, entry_id: str, until: str) -> str | None:
        """The place behind an entry, None where it is the end."""
        if entry_id == until:
            return None
        return f"{next_id(entry_id)}_{until}"


@dataclass(frozen=True, slots=True)
class TimeCursor:
    """A place in a listing by time: the entry to begin behind, as its time and id, and the time to end at."""

    after: tuple[str, str] = ("", "")
    until: str = ""

    @classmethod
    def read(cls, cursor: str | None) -> "TimeCursor":
        """Raises `ValueError` for a cursor that no page gave out."""
        if cursor is None:
            return cls()
        due, entry_id, until = parts_of(cursor, 3)
        if not (_is_score(due) and _is_score(until)) or parsed_id(entry_id) is None:
            raise bad(cursor)
        return cls((due, entry_id), until)

    @classmethod
    def behind(cls, due: str, entry_id: str, until: str) -> str:
        """The place behind an entry."""
        return f"{due}_{entry_id}_{until}"


def _is_score(text: str) -> bool:
    """Whether Redis takes this for a score. It writes 1e+20 where others write all digits."""
    return re.fullmatch(r"-?(inf|[0-9.]{1,30}(e[+-]?[0-9]{1,3})?)", text) is not None and _is_number(text)


def _is_number(text: str) -> bool:
    try:
        return not isnan(float(text))
    except ValueError:
        return False


def name_cursor(name: bytes) -> str:
    """The place behind a name, in a listing by name."""
    return urlsafe_b64encode(b"." + name).decode()


def name_after(cursor: str | None) -> bytes:
    """The first name there can be behind a cursor's. Raises `ValueError` for a cursor that no page gave out."""
    if cursor is None:
        return b""
    try:
        name = urlsafe_b64decode(cursor)
    except (ValueError, TypeError) as error:
        raise bad(cursor) from error
    if name_cursor(name[1:]) != cursor:
        raise bad(cursor)
    return name[1:] + b"\0"
