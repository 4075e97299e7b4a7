"""Pages of dead letters, newest first: by the index as far as it goes, and by looking at the rest."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from rapids._core.entry_id import FIRST_ID, LAST_ID, is_before, next_id
from rapids._core.paging import Listing
from rapids._storage import letter_index, letters
from rapids._storage.client.connections import Commands
from rapids._storage.letter_index import IndexState
from rapids.dead_letters.find import Choice, Span, choose, span_of
from rapids.dead_letters.letter import DeadLetter, LetterFilter, LetterPage, read_letters

__all__ = ["page_of"]

LISTING = Listing("letters")

SCAN_LIMIT = 2_000
"""Letters looked at for one page, so that a filter that matches few never makes one request read everything."""
FIRST_STEP, SCAN_STEP = 20, 200
"""Letters read at once: twice as many each time, as long as they are small."""
ENOUGH_BYTES = 16_000_000
"""Bytes of letters after which a page ends, however few it has: they may be of any size."""


async def page_of(commands: Commands, dlq: str, wanted: LetterFilter, *, cursor: str | None, limit: int) -> LetterPage:
    """A page of letters that match. Raises `ValueError` for a cursor that no page gave out."""
    behind = LAST_ID if cursor is None else LISTING.entry_ids(cursor, 1)[0]
    span = span_of(wanted)
    if wanted == LetterFilter():
        page = _Page(commands, dlq, wanted, limit, behind)
        await page.look_at_all(behind, FIRST_ID)
        return page.finished(await letters.length(commands, dlq), exact=True)
    state = await letter_index.state(commands, dlq)
    choice = choose(state, wanted)
    page = _Page(commands, dlq, wanted, limit, behind)
    if span is not None:
        upto = behind if is_before(behind, span.upto) else next_id(span.upto)
        page.behind = upto
        await _fill(page, state, choice, Span(span.after, upto))
    else:
        page.more = False
    unindexed = max(state.length - state.entries, 0)
    is_exact = choice.tells_all and not unindexed and wanted.since is None and wanted.until is None
    return page.finished(choice.count + unindexed, exact=is_exact)


async def _fill(page: "_Page", state: IndexState, choice: Choice, span: Span) -> None:
    """Letters before `span.upto` and behind `span.after`."""
    edge = state.to if is_before(span.after, state.to) else span.after
    if is_before(edge, span.upto):
        await page.look_at_all(span.upto, edge)
        if page.more:
            return
        page.behind = next_id(edge)
    page.more = is_before(span.after, page.behind)
    if page.more:
        await page.look_up(state, choice, span.after)


@dataclass(slots=True)
class _Page:
    """A page in the making."""

    commands: Commands
    dlq: str
    wanted: LetterFilter
    limit: int
    behind: str
    """The entry id before which the next letter is."""
    found: list[DeadLetter] = field(default_factory=list[DeadLetter])
    scanned: int = 0
    size: int = 0
    """Bytes of letters looked at."""
    more: bool = True

    @property
    def is_done(self) -> bool:
        is_enough = len(self.found) >= self.limit or self.scanned >= SCAN_LIMIT or self.size >= ENOUGH_BYTES
        return not self.more or is_enough

    def _step(self) -> int:
        """How many letters to read next, of which no more are wanted than this page lacks if all match."""
        step = min(max(2 * self.scanned, FIRST_STEP), SCAN_STEP, SCAN_LIMIT - self.scanned)
        if self.scanned:
            step = min(step, ENOUGH_BYTES // 4 * self.scanned // max(self.size, 1) + 1)
        return step if self.wanted != LetterFilter() else min(step, self.limit - len(self.found) + 1)

    async def look_at_all(self, before: str, after: str) -> None:
        """Look at every letter before an id and behind another."""
        self.behind = before
        while not self.is_done:
            step = self._step()
            newest = "+" if self.behind == LAST_ID else f"({self.behind}"
            rows = await letters.page(self.commands, self.dlq, newest=newest, oldest=f"({after}", count=step)
            self.more = len(rows) == step
            self._take(await read_letters(self.commands, self.dlq, rows))

    async def look_up(self, state: IndexState, choice: Choice, after: str) -> None:
        """Look up those that the index has before this place and behind an id."""
        while not self.is_done:
            wanted = self.limit - len(self.found)
            selected = await letter_index.select(
                *(self.commands, self.dlq, state.epoch, choice.names),
                behind=self.behind,
                until=next_id(after),
                count=wanted if choice.tells_all else SCAN_STEP,
                newest_first=True,
                whole=True,
            )
            if selected is None:  # rebuilt since then: the rest is read from the stream
                return await self.look_at_all(self.behind, after)
            self.more = not selected.done
            self._take(await read_letters(self.commands, self.dlq, [(row[0], row[1]) for row in selected.rows]))
            if len(self.found) < self.limit:
                self.scanned += selected.looked_at - len(selected.rows)
                self.behind = selected.last
        return None

    def _take(self, rows: Sequence[tuple[str, DeadLetter]]) -> None:
        for at, (entry_id, letter) in enumerate(rows, 1):
            self.scanned += 1
            self.size += sum(map(len, letter.stored))
            self.behind = entry_id
            if self.wanted.matches(letter):
                self.found.append(letter)
            if len(self.found) == self.limit:
                self.more = self.more or at < len(rows)
                return

    def finished(self, total: int, *, exact: bool) -> LetterPage:
        cursor = LISTING.entry_cursor(self.behind) if self.more else None
        return LetterPage(tuple(self.found), cursor, total, exact, self.scanned)
