"""What commands print: tables for people, JSON for programs, and texts from Redis that control no terminal."""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, TypeAlias

import typer
from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rapids.redaction import escaped

__all__ = [
    "Cell",
    "Column",
    "Json",
    "Limit",
    "ago",
    "lasted",
    "note",
    "print_json",
    "print_pairs",
    "print_table",
    "printed",
    "safe",
    "terminal",
    "to_json",
]

UNLIMITED = 10_000
"""Columns of what is no terminal: nothing is wrapped there, so that programs find a row in each line."""

GAP = 2
"""Spaces between columns."""

INDENT = 4
"""Spaces before the second line of a row."""

MIN_CUT = 24
"""Columns of a terminal that a text which is cut has at least."""

Json: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print JSON for programs: one object, or one in each line.")
]
"""The option `--json`."""

Limit: TypeAlias = Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="How many to show.")]

Cell: TypeAlias = str | int | datetime | Text | None


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. On a terminal, a text that `is_cut` ends with an ellipsis if there is no room."""

    name: str
    is_number: bool = False
    is_cut: bool = False
    is_below: bool = False
    """It is in a second line of each row, if the terminal has no room for all columns in one."""


def terminal(*, is_error: bool = False) -> Console:
    """Standard output or error. Colours are only on a terminal, and not if NO_COLOR is set."""
    stream = sys.stderr if is_error else sys.stdout
    width = None if stream.isatty() else UNLIMITED
    return Console(file=stream, width=width, markup=False, emoji=False, highlight=False)


def safe(value: object) -> str:
    """A text that prints as what it is: without control characters, and without what UTF-8 cannot hold."""
    return escaped(str(value).encode(errors="backslashreplace").decode())


def printed(text: str, style: str = "") -> Text:
    """A text from Redis, as a cell."""
    return Text(safe(text), style)


def note(text: str) -> None:
    """A line for people, on standard error."""
    terminal(is_error=True).print(safe(text), soft_wrap=True)


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[Cell]], *, is_error: bool = False) -> None:
    """A table, one row for each item, on standard output or error."""
    out = terminal(is_error=is_error)
    table = [[Text(column.name, "bold") for column in columns], *([_cell(value) for value in row] for row in rows)]
    widths = [max(cell.cell_len for cell in cells) for cells in zip(*table, strict=True)]
    needed = sum(min(width, MIN_CUT) if columns[at].is_cut else width for at, width in enumerate(widths))
    is_split = needed + GAP * (len(columns) - 1) > out.width and any(column.is_below for column in columns)
    above = [at for at, column in enumerate(columns) if not (is_split and column.is_below)]
    below = [at for at, column in enumerate(columns) if is_split and column.is_below]
    room = out.width - sum(widths[at] for at in above) - GAP * (len(above) - 1)
    for at in above:
        if columns[at].is_cut:
            widths[at] = max(widths[at] + min(room, 0), MIN_CUT)
    for row in table:
        for cell, column, width in zip(row, columns, widths, strict=True):
            cell.truncate(width, overflow="ellipsis")
            cell.align("right" if column.is_number else "left", width)
        for indent, places in ((0, above), (INDENT, below)):
            if places:
                line = Text(" " * indent) + Text(" " * GAP).join(row[at] for at in places)
                line.rstrip()
                out.print(line, soft_wrap=True)


def print_pairs(pairs: Iterable[tuple[str, Cell]]) -> None:
    """Names and values, one pair in each line."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(name, _cell(value))
    out = terminal()
    with out.capture() as captured:  # without the spaces that fill the last column
        out.print(table)
    out.file.write("\n".join(line.rstrip(" ") for line in captured.get().split("\n")))


def print_json(value: object) -> None:
    """One object as one line of JSON. Dataclasses are objects with their fields, times ISO 8601 in UTC."""
    sys.stdout.write(to_json(value) + "\n")
    sys.stdout.flush()


def to_json(value: object) -> str:
    """A line of JSON. It is ASCII, since characters beyond it can control the terminal on which others print it."""
    return json.dumps(TypeAdapter[Any](type(value)).dump_python(value, mode="json", by_alias=True))


def _cell(value: Cell) -> Text:
    match value:
        case Text():
            return value
        case None | "":
            return Text("-", "dim")
        case datetime():
            return Text(f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z")
        case int():
            return Text(f"{value:,}")
        case str():
            return printed(value)


def ago(moment: datetime | None, now: datetime) -> str:
    """How long ago it was."""
    return "-" if moment is None else f"{lasted((now - moment).total_seconds() * 1000)} ago"


def lasted(milliseconds: float | None) -> str:
    """A duration in its largest unit: `350 ms`, `12 s`, `5 min`, `3 h`, `9 d`."""
    if milliseconds is None:
        return "-"
    if milliseconds < 1_000:
        return f"{max(milliseconds, 0):.0f} ms"
    seconds = milliseconds / 1_000
    for unit, size, limit in (("s", 1, 120), ("min", 60, 7_200), ("h", 3_600, 172_800)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:,.0f} d"
