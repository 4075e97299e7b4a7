"""How far a search has come in each stream, and where the next one goes on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, cast

import orjson

from rapids._core.entry_id import is_before, moment, order, parsed_id
from rapids._core.paging import Listing
from rapids._storage.trace_queries import Found, Looked
from rapids.inspection.causation_tree import ScannedWindow

__all__ = ["Search", "cursor_of", "places_in"]

EVENTS = Listing("events")

Kind = Literal["events", "replays", "letters", "archive"]


@dataclass(slots=True)
class Search:
    """A search of one stream, from its newest entry on."""

    key: str
    kind: Kind
    owner: str
    """For replays, the stream beside which they are; for the archive, the dead-letter stream."""
    start: str = "+"
    oldest: str = "-"
    group: str = ""
    entries: int = 0
    newest_id: str | None = None
    oldest_id: str | None = None
    first_id: str | None = None
    ended: bool = False
    found: list[Found] = field(default_factory=list[Found])

    def take(self, looked: Looked) -> None:
        """Note what was looked at, and where to go on."""
        self.entries += looked.entries
        self.newest_id = self.newest_id or looked.newest
        self.oldest_id = looked.oldest or self.oldest_id
        self.first_id, self.ended = looked.first, looked.ended
        self.found += looked.found
        if looked.oldest is not None:
            self.start = f"({looked.oldest}"

    def window(self) -> ScannedWindow:
        """What was looked at."""
        further = self.first_id is not None and (self.oldest_id is None or is_before(self.first_id, self.oldest_id))
        return ScannedWindow(
            *(self.key, self.kind, self.entries, self.newest_id, self._at(self.newest_id)),
            *(self.oldest_id, self._at(self.oldest_id), self.first_id, further, self.ended),
        )

    def _at(self, entry_id: str | None) -> datetime | None:
        # The archive's ids are microseconds.
        return None if entry_id is None else moment(order(entry_id)[0] // (1_000 if self.is_fine else 1))

    @property
    def is_fine(self) -> bool:
        return self.kind == "archive"


def cursor_of(searches: Iterable[Search], until: str) -> str | None:
    """Where to go on in those that have not ended; None where all have."""
    places = {search.key: search.start for search in searches if not search.ended}
    return EVENTS.cursor(orjson.dumps([places, until])) if places else None


def places_in(cursor: str) -> tuple[Mapping[str, str], str]:
    """The places by stream, and where events are to end, as `cursor_of` was given them. Raises `ValueError`."""
    try:
        stored: Any = orjson.loads(EVENTS.place(cursor))
        places, until = cast(tuple[dict[str, str], str], stored)
        fine = all(place == "+" or parsed_id(place.lstrip("(")) is not None for place in places.values())
        if not fine or not (until == "+" or parsed_id(until.lstrip("(")) is not None):
            raise EVENTS.bad(cursor)
    except (ValueError, TypeError, AttributeError) as error:
        raise EVENTS.bad(cursor) from error
    return places, until
