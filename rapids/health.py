"""How a router is: its health, and how the trimming of its stream goes."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["HealthReason", "HeldBack", "RouterHealth", "Trimming"]

HealthReason: TypeAlias = Literal[
    # ready
    "caught_up",
    "working",
    "waiting",
    "starting",
    "paused",
    "standby",
    # not ready
    "not_running",
    "stopping",
    "task_ended",
    "loop_blocked",
    "redis_unavailable",
    "group_lost",
    "name_taken",
    "standby_stuck",
    "reader_stuck",
    "reclaimer_stuck",
    "handlers_stuck",
    "leases_lost",
    "no_progress",
]
"""Why a router is ready or not; `RouterHealth` says what each means."""


@dataclass(frozen=True, slots=True)
class RouterHealth:
    """Whether a router gets its work done, why that is thought, and the figures behind it.

    Ready, by `reason`:

    - `caught_up`: everything in the stream was delivered to the group, and this router reads.
    - `waiting`: the same, and entries wait for their next delivery.
    - `working`: there is more to read; this router holds leases that last, or settled something lately.
    - `starting`: there is more to read, and it has only just started, become active, or come out of a pause.
    - `paused`: somebody paused the group. `standby`: `exclusive=True`, and another consumer is the active one.

    Not ready:

    - `not_running`, `stopping`: not started, or stopped. `task_ended`: one of its tasks has ended; restart the process.
    - `loop_blocked`: something blocked the event loop, such as a handler that does not `await`.
    - `redis_unavailable`: Redis does not answer, or goes on refusing what the router asks for.
    - `group_lost`: the consumer group is gone, and not made again yet.
    - `name_taken`: another process took the consumer's name, and nothing is read under a new one yet.
    - `standby_stuck`, `reader_stuck`, `reclaimer_stuck`: this part of it has not come round for longer than it may.
    - `handlers_stuck`: entries are there to be handled, and no handler is begun.
    - `leases_lost`: others took all it held. `no_progress`: there is more to read, and nothing of it gets done.
    """

    ready: bool
    reason: HealthReason
    message: str
    """One line for whoever is on call."""
    stream: str
    group: str
    consumer: str | None = None
    """What this process goes by in the group; None where it does not run."""
    running: int = 0
    """Entries in their handlers now."""
    held: int = 0
    """Entries this process has taken and not settled yet, those in their handlers among them."""
    pending: int | None = None
    """Entries the whole group was given and has not settled; None where Redis did not answer."""
    waiting: int | None = None
    """Of those, the ones that wait for their next delivery."""
    last_delivered_id: str | None = None
    """Up to where the group was given the stream; None where Redis did not answer."""
    last_id: str | None = None
    """The last id the stream gave out."""
    seconds_since_progress: float | None = None
    """Since something was settled, or the router started, became active or came out of a pause."""


@dataclass(frozen=True, slots=True)
class HeldBack:
    """The group that is furthest behind, and the oldest entry of the stream that it has not settled."""

    group: str
    entry_id: str
    age: float
    """Seconds since that entry was appended, by its id and the server's clock."""
    consumer: str | None
    """Who has it (`rapids:waiting`: it waits to be delivered again, `rapids:parked`: it is not run again); None where
    the group has not read it yet."""


@dataclass(frozen=True, slots=True)
class Trimming:
    """How the trimming of a stream goes, as one router saw it last. Counts are entries."""

    removed: int
    """By this router, since it started."""
    left: int
    """In the stream."""
    held_back_by: HeldBack | None
    """None where every group has settled everything."""
