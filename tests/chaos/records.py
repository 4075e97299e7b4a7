"""What the processes of a run put on record: lines in append-only files, one file a process, one write a line.

A line is a kind and words. Times are `time.monotonic()`, which is one clock for all processes of a machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path


class Recorder:
    """Appends lines. A process killed right after a call has its line on record: the machine stays up."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def __call__(self, kind: str, *words: object) -> None:
        line = " ".join([kind, *(str(word).replace("\n", "\\n") for word in words)])
        os.write(self._file, f"{line}\n".encode())


@dataclass(frozen=True, slots=True)
class Execution:
    """One handler run on one delivery. `end` is None where the process did not live to see it."""

    entry_id: str
    number: int
    handler: str
    deliveries: int
    pid: int
    start: float
    end: float | None = None
    result: str = ""
    """`done`, `failed`, or empty."""
    spent: int = 1
    """Deliveries that count for this handler."""


NOTES = ("standstill", "outage", "back", "bug")
"""Its loop was blocked for so many seconds; Redis failed; Redis is back; an error that should not be."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something a process said about itself: one of `NOTES`."""

    pid: int
    kind: str
    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Emit:
    """What an emitter learned about an event: `confirmed`, `failed`, `unknown`; `sent` if it died before that.

    `unconfirmed`: it is stored, and fewer replicas than were asked for have confirmed it. `at`: when it was begun.
    """

    number: int
    status: str
    at: float = 0.0


def worker_file(folder: Path, pid: int) -> Path:
    return folder / f"worker-{pid}.records"


def emitter_file(folder: Path, pid: int) -> Path:
    return folder / f"emitter-{pid}.records"


def read_executions(folder: Path) -> list[Execution]:
    found: list[Execution] = []
    for pid, lines in _files(folder, "worker"):
        begun: dict[str, Execution] = {}
        for kind, *words in lines:
            if kind == "begin":
                serial, entry_id, number, handler, deliveries, spent, at = words
                begun[serial] = Execution(
                    entry_id, int(number), handler, int(deliveries), pid, float(at), spent=int(spent)
                )
            elif kind in ("done", "failed"):
                one = begun.pop(words[0])
                start = (one.entry_id, one.number, one.handler, one.deliveries, one.pid, one.start)
                found.append(Execution(*start, float(words[1]), kind, one.spent))
        found += begun.values()
    return found


def read_notes(folder: Path) -> list[Note]:
    return [
        Note(pid, kind, float(words[0]), " ".join(words[1:]))
        for role in ("worker", "emitter")
        for pid, lines in _files(folder, role)
        for kind, *words in lines
        if kind in NOTES
    ]


def read_emits(folder: Path) -> dict[int, Emit]:
    """The last word about each event."""
    emits: dict[int, Emit] = {}
    for _, lines in _files(folder, "emitter"):
        for kind, *words in lines:
            if kind == "sent":
                emits[int(words[0])] = Emit(int(words[0]), kind, float(words[1]))
            elif kind in ("confirmed", "unconfirmed", "failed", "unknown"):
                emits[int(words[0])] = replace(emits[int(words[0])], status=kind)
    return emits


def _files(folder: Path, role: str) -> Iterator[tuple[int, list[list[str]]]]:
    for path in sorted(folder.glob(f"{role}-*.records")):
        text = path.read_text()
        yield int(path.stem.split("-")[1]), [line.split(" ") for line in text.splitlines()]
