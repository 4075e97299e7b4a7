"""Health of a router, as whoever is on call reads it."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["HealthReason", "RouterHealth"]

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
