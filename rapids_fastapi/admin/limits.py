"""Limits: how many searches, exports and live streams the admin runs at a time."""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

from rapids_fastapi.admin.problems import Problem

__all__ = ["AdminLimits", "InProgress", "Limited"]

Limited: TypeAlias = Literal["searches", "exports", "live"]

MOST = 1_000

_RETRY_AFTER: dict[Limited, int] = {"searches": 1, "exports": 10, "live": 5}
"""Seconds after which a refused request may find a place. A live stream ends after 15."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminLimits:
    """How many requests of a kind one process answers at a time: 1 to 1,000 of each. More are refused with 503.

    Raises `TypeError` or `ValueError` for any other number, naming the limit.
    """

    searches: int = 8
    """Lists and details of dead letters, causation trees, starts and dry runs of operations, the catalog and the
    AsyncAPI document. Each may take a thread of this process for long: to redact thousands of letters, for example."""
    exports: int = 2
    """Exports. Each takes a connection to Redis, and much of a thread, for as long as its client reads."""
    live: int = 50
    """Streams of server-sent events. Each progress of an operation asks Redis twice a second. What changes is read once
    a second for all who listen."""

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            given, allowed = getattr(self, name), f"a whole number from 1 to {MOST:,}"
            if isinstance(given, bool) or not isinstance(given, int):
                raise TypeError(f"{name} must be {allowed}, not {given!r}")
            if not 1 <= given <= MOST:
                raise ValueError(f"{name} must be {allowed}, not {given!r}")


class InProgress:
    """The requests of each kind that are answered now."""

    def __init__(self, limits: AdminLimits) -> None:
        self.limits = limits
        self.counts: Counter[Limited] = Counter()

    @contextmanager
    def place(self, kind: Limited) -> Generator[None]:
        """A place for a request during the block. Raises `Problem` if there is none."""
        most: int = getattr(self.limits, kind)
        if self.counts[kind] >= most:
            why = f"This process runs {most} {'live streams' if kind == 'live' else kind} already."
            raise Problem("too-busy", why, headers=[("Retry-After", str(_RETRY_AFTER[kind]))])
        self.counts[kind] += 1
        try:
            yield
        finally:
            self.counts[kind] -= 1
