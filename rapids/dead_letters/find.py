"""Which fingerprints a filter asks for, and between which ids."""

from dataclasses import dataclass

from rapids._core.entry_id import FIRST_ID, LAST_ID, is_before, milliseconds, previous_id
from rapids._storage.letter_index import OTHERS, IndexState
from rapids._wire.fingerprints import Fingerprint
from rapids.dead_letters.letter import LetterFilter

__all__ = ["Choice", "Span", "choose", "span_of"]


@dataclass(frozen=True, slots=True)
class Choice:
    """Fingerprints of which letters may match a filter."""

    names: tuple[str, ...]
    count: int
    """How many letters they have."""
    tells_all: bool
    """Whether all of these match, their times aside, so that none needs to be looked at."""


@dataclass(frozen=True, slots=True)
class Span:
    """Entry ids: those behind `after`, up to `upto`."""

    after: str
    upto: str


def choose(state: IndexState, wanted: LetterFilter) -> Choice:
    """Those of the index that a filter asks for."""
    names, count, tells_all = list[str](), 0, wanted.q is None
    for row in state.fingerprints:
        is_told = row.name != OTHERS
        fingerprint = Fingerprint.read(row.description)
        if is_told and not wanted.may_match(fingerprint, row.name):
            continue
        names.append(row.name)
        count += row.count
        tells_all = tells_all and is_told and wanted.tells_all(fingerprint)
    return Choice(tuple(names), count, tells_all)


def span_of(wanted: LetterFilter) -> Span | None:
    """The ids that may match by their time, None where none can. An entry id begins with the time of its writing."""
    after, upto = FIRST_ID, LAST_ID
    if wanted.until is not None:
        if (until := milliseconds(wanted.until)) == 0:
            return None
        upto = previous_id(f"{until}-0")
    if wanted.since is not None and (since := milliseconds(wanted.since)) > 0:
        after = previous_id(f"{since}-0")
    return Span(after, upto) if is_before(after, upto) else None
