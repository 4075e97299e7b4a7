"""Arrivals: when bytes last came on a connection, so that a time limit ends what stands still, not what is slow."""

import asyncio
import math
import time
from contextlib import suppress
from typing import Any

from redis.asyncio.connection import DefaultParser

__all__ = ["Arrivals"]

OFTEN = 0.1
"""After this share of the limit, arrivals extend it again: each small answer would otherwise pay for that."""


class Arrivals:
    """The arrivals on one connection. While bytes come, they extend the time limit of the running command."""

    def __init__(self, seconds: float) -> None:
        """`seconds`: how long nothing may arrive."""
        self._seconds = seconds
        self.limit: asyncio.Timeout | None = None
        """The time limit of the command that was sent last."""
        self.first_at: float | None = None
        """When the first bytes of the awaited answer came (`time.monotonic()`, seconds); None before that."""
        self.last_at = -math.inf
        """When any bytes last came (`time.monotonic()`, seconds)."""

    def note(self) -> None:
        """Note that bytes came."""
        self.last_at = time.monotonic()
        if self.first_at is None:
            self.first_at = self.last_at
        limit = self.limit
        if limit is None or (ends_at := limit.when()) is None:
            return
        later = asyncio.get_running_loop().time() + self._seconds
        if later - ends_at > OFTEN * self._seconds:
            with suppress(RuntimeError):  # it has ended, or is ending
                limit.reschedule(later)

    def parser_class(self, of_user: Any = None) -> Any:
        """The parser class of the connection: redis-py's or the user's, which also notes arrivals.

        A parser that does not read in parts, as those in pure Python, is returned as it is.
        """
        parser: Any = of_user or DefaultParser
        if not hasattr(parser, "read_from_socket"):
            return parser

        async def read_from_socket(self_: Any) -> Any:
            arrived = await parser.read_from_socket(self_)
            self.note()
            return arrived

        return type(parser.__name__, (parser,), {"read_from_socket": read_from_socket})
