"""Which fingerprints a filter asks for, and between which ids."""

from dataclasses import dataclass
from datetime import UTC, datetime

from rapids._storage.letter_index import OTHERS, IndexState
from rapids._wire.fingerprints import Fingerprint
from rapids.dead_letters.letter import LetterFilter

__all__ = ["LAST_ID", "Choice", "Span", "choose", "earlier", "next_id", "span_of"]

LARGEST = 2**64 - 1
LAST_ID = f"{LARGEST}-{LARGEST}"


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
    after, upto = "0-0", LAST_ID
    if wanted.until is not None:
        if (until := _milliseconds(wanted.until)) == 0:
            return None
        upto = f"{until - 1}-{LARGEST}"
    if wanted.since is not None and (since := _milliseconds(wanted.since)) > 0:
        after = f"{since - 1}-{LARGEST}"
    return Span(after, upto) if earlier(after, upto) else None


def earlier(one: str, other: str) -> bool:
    """Whether an entry id is before another."""
    return _numbers(one) < _numbers(other)


def next_id(entry_id: str) -> str:
    """The id behind this one, for a range that leaves its end out; the last one of all stays."""
    ms, seq = _numbers(entry_id)
    if seq < LARGEST:
        return f"{ms}-{seq + 1}"
    return f"{ms + 1}-0" if ms < LARGEST else entry_id


def _numbers(entry_id: str) -> tuple[int, int]:
    ms, _, seq = entry_id.partition("-")
    return int(ms), int(seq)


def _milliseconds(moment: datetime) -> int:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(round(aware.timestamp() * 1000), 0)
