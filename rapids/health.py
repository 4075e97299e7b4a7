"""The health of a router, how far its group is behind, and the state of its stream's trimming."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["ConsumerLag", "HealthReason", "HeldBack", "RouterHealth", "Trimming"]

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
"""Why a router is ready or not; `RouterHealth` says what each reason means."""


@dataclass(frozen=True, slots=True)
class RouterHealth:
    """Whether a router does its work, the reason for this judgement, and the figures that support it.

    Ready, by `reason`:

    - `caught_up`: everything in the stream was delivered to the group, and this router reads.
    - `waiting`: the same, and entries wait for their next delivery.
    - `working`: there is more to read, and this router holds leases that last, or has settled something recently.
    - `starting`: there is more to read, and this router has just started, become active, or been resumed.
    - `paused`: somebody paused the group. `standby`: `exclusive=True`, and another consumer is the active one.

    Not ready:

    - `not_running`, `stopping`: not started, or stopped. `task_ended`: one of its tasks has ended; restart the process.
    - `loop_blocked`: something blocked the event loop, such as a handler that does not `await`.
    - `redis_unavailable`: Redis does not answer, or keeps refusing the router's commands.
    - `group_lost`: the consumer group was lost, and is not recreated yet.
    - `name_taken`: another process took the consumer's name, and this router does not yet read under a new name.
    - `standby_stuck`, `reader_stuck`, `reclaimer_stuck`: this part of the router took no turn for longer than it may.
    - `handlers_stuck`: entries are ready to be handled, and no handler begins.
    - `leases_lost`: other consumers took all entries this router held. `no_progress`: there is more to read, and
      nothing is settled.
    """

    ready: bool
    reason: HealthReason
    message: str
    """One line for the person on call."""
    stream: str
    group: str
    consumer: str | None = None
    """The name of this process in the group; None if the router does not run."""
    running: int = 0
    """Entries whose handlers run now."""
    held: int = 0
    """Entries that this process has taken and not settled yet, including those whose handlers run."""
    pending: int | None = None
    """Entries that were delivered to the group and are not settled; None if Redis did not answer."""
    waiting: int | None = None
    """How many of the pending entries wait for their next delivery."""
    last_delivered_id: str | None = None
    """The id of the last entry that was delivered to the group; None if Redis did not answer."""
    last_id: str | None = None
    """The id of the last entry that was added to the stream."""
    seconds_since_progress: float | None = None
    """Seconds since an entry was settled, or since the router started, became active or was resumed."""


@dataclass(frozen=True, slots=True)
class HeldBack:
    """The group that has settled the least of the stream, and the oldest entry that it has not settled."""

    group: str
    entry_id: str
    age: float
    """Seconds since that entry was appended, by its id and the server's clock."""
    consumer: str | None
    """The consumer that holds it (`rapids:waiting`: it waits for its next delivery, `rapids:parked`: it is not run
    again; empty: nobody does, after an `XNACK`); None if the group has not read it yet."""


@dataclass(frozen=True, slots=True)
class Trimming:
    """The state of a stream's trimming, as one router last saw it. Counts are in entries."""

    removed: int
    """Entries that this router has removed since it started."""
    left: int
    """Entries that are left in the stream."""
    held_back_by: HeldBack | None
    """The group that prevents further trimming; None if every group has settled everything."""


@dataclass(frozen=True, slots=True)
class ConsumerLag:
    """How far a group is behind; counts are in entries."""

    stream_length: int
    pending_count: int
    """Entries that were delivered to the group and are not yet acknowledged."""
    consumers_count: int
    last_delivered_id: str
    lag: int | None
    """Entries not yet delivered to the group; None if the server does not know (before Redis 7.0, after some trims)."""
