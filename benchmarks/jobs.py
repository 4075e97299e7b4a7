"""What a contender is asked to do and what it answers: JSON on its command line and on its last line of output."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

STREAM = "bench"
GROUP = "bench"
DLQ = "{bench}:dlq"
LETTER_INDEX = f"{DLQ}:rapids:index"
"""What the keys of the index of letters begin with."""

RARE_ERROR = "RareError"
RARE_LETTERS = 5
"""The oldest letters of a dead-letter stream: no other has this type of error."""

FIRST = 1_000_000
"""The number of the first event. Numbers have seven digits each, so that every event is as long as any other."""

SAMPLE = 7_777_777
"""The number of the event that a prefilled stream is made of: its digits are replaced by those of each entry."""

KEYS = 1_000
"""Different values of an event's `customer`, which is what keyed order goes by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One measurement in one process of one contender. Counts are events; `warm` of them come before the clock."""

    task: str
    """`emit-one`, `emit-concurrent`, `emit-lists`, `consume`, `latency`, `sample`, or of our own `letters-...`."""
    contender: str
    url: str
    loop: str = "asyncio"
    """`asyncio`, or `uvloop`."""
    count: int = 0
    warm: int = 0
    payload: int = 0
    """Bytes of text in each event, besides its other fields."""
    batch_size: int | None = None
    """None: what the contender does by default."""
    concurrency: int | None = None
    order_by: str | None = None
    pause: float = 0.0
    """Seconds each handler sleeps."""
    handlers: int = 1
    """Handlers that match the event."""
    decoys: int = 0
    """Registered handlers that do not match it."""
    dependencies: bool = False
    """Whether each handler has dependencies: two parameters that share the value of one async generator."""
    telemetry: float | None = None
    """Which share of traces the SDK of OpenTelemetry records (0 to 1); None without a telemetry."""
    histograms: bool = False
    """Whether the times of handlers and entries are measured, as with metrics."""
    rate: int = 1_000
    """Events a second, where they are paced."""
    memory_mark: int = 0
    """Events after which the memory in use is noted first; 0 notes none."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a contender measured, by the name of the metric; or why it cannot do what was asked."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    handled: int = 0
    """How many times handlers were called."""
    checksum: int = 0
    """The sum of the numbers of the events they were called with."""
    unavailable: str = ""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Outcome:
        return cls(**json.loads(text))


def checksum(count: int, handlers: int) -> int:
    """The sum of the numbers of `count` events, each handled once by each handler."""
    return handlers * (count * FIRST + count * (count - 1) // 2)


def order(number: int, note: str = "") -> dict[str, object]:
    """The fields of one event, the same for every contender."""
    return {
        "order_id": f"O-{number}",
        "customer": f"C-{number % KEYS:03}",
        "amount": 19.99,
        "number": number,
        "note": note,
    }
