"""Acknowledgements of entries that need no other settlement, collected and sent with the next read."""

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from rapids._storage.client.connections import Reply
from rapids._storage.keys import Source
from rapids._worker.context import WorkerContext
from rapids._worker.inflight import HeldEntry, Inflight, State

__all__ = ["Acks", "Batch"]

ACKNOWLEDGING = State.ACKNOWLEDGING

MAX_SENT = 1_000
"""Entries acknowledged by one command."""

Batch: TypeAlias = Mapping[Source, Sequence[bytes]]


class Acks:
    """Collects acknowledgements. The reader sends them with its next read; the settler does if no read follows soon.

    A lease is kept until the acknowledgement is confirmed. An unconfirmed one is sent again, which is harmless.
    """

    def __init__(self, context: WorkerContext, inflight: Inflight) -> None:
        self._context = context
        self._inflight = inflight
        self._waiting: dict[Source, list[bytes]] = {source: [] for source in context.sources}
        self._since: float | None = None
        self._under_way: list[Batch] = []
        self.settled_at = -math.inf
        """When Redis last confirmed a settlement, also one of the settler (`time.monotonic()`, seconds)."""
        self.wanted = asyncio.Event()
        """Set when the settler has something to send."""
        self.changed = asyncio.Event()
        """Set whenever acknowledgements were confirmed, or failed."""

    def put(self, held: HeldEntry) -> None:
        """Acknowledge an entry soon."""
        held.state = ACKNOWLEDGING
        self._waiting[held.entry.source].append(held.entry.entry_id)
        if self._since is None:
            self._since = time.monotonic()
            self.wanted.set()

    @property
    def age(self) -> float:
        """For how many seconds the oldest of them has been waiting."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    @property
    def is_idle(self) -> bool:
        """Whether none waits to be sent or confirmed."""
        return self._since is None and not self._under_way

    @property
    def are_waiting(self) -> bool:
        """Whether any waits to be sent."""
        return self._since is not None

    def take(self) -> Batch:
        """The acknowledgements to send now. The caller reports the result: `answered`, `failed` or `requeue`."""
        if self._since is None:
            return {}
        taken = {source: ids[:MAX_SENT] for source, ids in self._waiting.items() if ids}
        for source in taken:
            del self._waiting[source][:MAX_SENT]
        self._note_waiting()
        self._under_way.append(taken)
        return taken

    def answered(self, batch: Batch, replies: Sequence[Reply]) -> None:
        """Redis answered: drop the entries if it acknowledged them, otherwise send all again."""
        fault = next((reply for reply in replies if isinstance(reply, Exception)), None)
        if fault is not None:
            self.failed(batch, fault)
            return
        self._under_way.remove(batch)
        for source, ids in batch.items():
            self._context.counts.acked += self._inflight.drop_all(source, ids)
        self.settled_at = time.monotonic()
        if self._context.outages.failing:
            self._context.outages.worked("acknowledging")
        self.changed.set()

    def failed(self, batch: Batch, error: Exception) -> None:
        """Redis did not answer, or refused: they are sent again."""
        self._context.outages.failed("acknowledging", error)
        self.requeue(batch)

    def requeue(self, batch: Batch) -> None:
        """Send them again, since it is not known whether Redis received them."""
        self._under_way.remove(batch)
        for source, ids in batch.items():
            self._waiting[source].extend(ids)
        self._note_waiting()
        self.changed.set()

    def _note_waiting(self) -> None:
        if any(self._waiting.values()):
            self._since = time.monotonic()
            self.wanted.set()
        else:
            self._since = None
