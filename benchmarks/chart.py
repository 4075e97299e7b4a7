"""The chart: bars of the ratios, as SVG, in colours that can be read on a light and on a dark page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from benchmarks.budgets import AtMostTimes, TimesFaster
from benchmarks.results import RowResult
from benchmarks.statistics import Spread
from benchmarks.table import number

WIDTH = 860
LABELS = 330
RIGHT = 80
ROW = 26
BAR = 14
HEADING = 44
GAP = 24
LONGEST = 20.0
"""A longer bar is cut off there, so that one does not make all others too short to read."""

STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #59636e }
  .title { font-weight: 600; font-size: 14px; fill: #3d444d }
  .bar { fill: #2f81f7 } .spread { stroke: #3d444d; stroke-width: 1.5 }
  .one { stroke: #8b949e; stroke-dasharray: 3 3 } .budget { stroke: #d1242f; stroke-width: 2 }
  @media (prefers-color-scheme: dark) {
    text { fill: #9da7b1 } .title { fill: #d1d9e0 } .spread { stroke: #d1d9e0 } .budget { stroke: #ff7b72 }
  }
"""


@dataclass(frozen=True, slots=True)
class Bar:
    label: str
    value: Spread
    budget: float | None


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    bars: Sequence[Bar]

    @property
    def height(self) -> int:
        return HEADING + ROW * len(self.bars) + GAP

    @property
    def most(self) -> float:
        """The value at the right end."""
        return min(LONGEST, max(1.0, *(max(bar.value.high, bar.budget or 0) for bar in self.bars)))


def chart(rows: Sequence[RowResult]) -> str:
    panels = [panel for panel in (_against_peer(rows), _against_floor(rows)) if panel.bars]
    height = sum(panel.height for panel in panels)
    parts: list[str] = []
    top = 0
    for panel in panels:
        parts += _drawn(panel, top)
        top += panel.height
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
            ' role="img" aria-label="Rapids, its peer and the floor">',
            f"<style>{STYLE}</style>",
            *parts,
            "</svg>\n",
        ]
    )


def _against_peer(rows: Sequence[RowResult]) -> Panel:
    bars = [Bar(row.row.title, row.to_peer, _limit(row, TimesFaster)) for row in _charted(rows) if row.to_peer]
    return Panel("Times as fast as rapids-streams 0.3.0 (more is better; red: the budget)", bars)


def _against_floor(rows: Sequence[RowResult]) -> Panel:
    """Of costs only: a share of the floor's rate would have to be read the other way round."""
    bars = [
        Bar(row.row.title, row.to_floor, _limit(row, AtMostTimes))
        for row in _charted(rows)
        if row.to_floor and row.row.lower_is_better
    ]
    return Panel("Cost, as a multiple of the hand-written floor's (less is better; red: the budget)", bars)


def _charted(rows: Sequence[RowResult]) -> list[RowResult]:
    return [row for row in rows if row.row.charted]


def _limit(result: RowResult, kind: type[AtMostTimes | TimesFaster]) -> float | None:
    return next((budget.factor for budget in result.row.budgets if isinstance(budget, kind)), None)


def _drawn(panel: Panel, top: int) -> list[str]:
    scale = (WIDTH - LABELS - RIGHT) / panel.most
    bottom = top + HEADING + ROW * len(panel.bars)
    one = LABELS + scale
    parts = [
        f'<text class="title" x="8" y="{top + 26}">{escape(panel.title)}</text>',
        f'<line class="one" x1="{one:.1f}" x2="{one:.1f}" y1="{top + HEADING - 6}" y2="{bottom}"/>',
    ]
    for at, bar in enumerate(panel.bars):
        parts += _bar(bar, top + HEADING + ROW * at, scale, panel.most)
    return parts


def _bar(bar: Bar, top: int, scale: float, most: float) -> list[str]:
    low, end, high = (LABELS + min(value, most) * scale for value in (bar.value.low, bar.value.median, bar.value.high))
    cut = " …" if bar.value.median > most else ""
    middle = top + BAR / 2
    furthest = max(high, end)
    parts = [
        f'<text x="{LABELS - 8}" y="{top + BAR - 2}" text-anchor="end">{escape(bar.label)}</text>',
        f'<rect class="bar" x="{LABELS}" y="{top}" width="{end - LABELS:.1f}" height="{BAR}" rx="2"/>',
        f'<line class="spread" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>',
    ]
    if bar.budget is not None:
        limit = LABELS + min(bar.budget, most) * scale
        furthest = max(furthest, limit)
        parts.append(f'<line class="budget" x1="{limit:.1f}" x2="{limit:.1f}" y1="{top - 4}" y2="{top + BAR + 4}"/>')
    parts.append(f'<text x="{furthest + 8:.1f}" y="{top + BAR - 2}">{number(bar.value.median)}{cut}</text>')
    return parts
