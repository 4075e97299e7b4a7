"""Where the next page of dead letters starts, as text that says nothing to anybody else."""

from base64 import urlsafe_b64decode, urlsafe_b64encode

from rapids._core.entry_id import parsed_id

__all__ = ["entry_behind", "entry_cursor", "place_behind", "place_cursor"]

SHOWN = 100
"""Characters of a bad cursor that an error quotes."""


def place_cursor(kind: str, place: str) -> str:
    """A place in a listing of this kind."""
    return urlsafe_b64encode(f"{kind}:{place}".encode()).decode().rstrip("=")


def place_behind(kind: str, cursor: str) -> str:
    """The place a cursor stands for. Raises `ValueError` for one that no page of this kind gave out."""
    try:
        text = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (ValueError, TypeError) as error:
        raise _bad(cursor) from error
    named, _, place = text.partition(":")
    if named != kind or place_cursor(kind, place) != cursor:
        raise _bad(cursor)
    return place


def entry_cursor(entry_id: str) -> str:
    """The place behind an entry, in a listing by entry id."""
    return place_cursor("entry", entry_id)


def entry_behind(cursor: str) -> str:
    """The entry id that a cursor stands behind. Raises `ValueError` for one that no page gave out."""
    entry_id = place_behind("entry", cursor)
    if parsed_id(entry_id) != entry_id:
        raise _bad(cursor)
    return entry_id


def _bad(cursor: object) -> ValueError:
    return ValueError(f"cursor must be one that a page gave out, not {repr(cursor)[:SHOWN]}")
