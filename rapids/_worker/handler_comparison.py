"""The comparison of handlers: whether the living consumers of a group have the same ones, and a warning if not."""

import asyncio
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any, cast

import orjson

from rapids._core.handlers import Handlers
from rapids._storage import groups
from rapids._worker.context import WorkerContext

__all__ = ["HandlerComparison"]

logger = logging.getLogger("rapids.worker")

INTERVAL = 30.0
"""Seconds between two comparisons. A consumer that joins compares at once."""

TTL_MS = 90_000
"""For how many milliseconds it is known which handlers a consumer has."""

SHOWN = 10
"""How many handlers of each side a warning names."""


class HandlerComparison:
    """Compares this consumer's handlers with those of every other living consumer, at the start and from time to time.

    An entry that one consumer has no handler for is acknowledged by it, so the handler that another consumer has for
    it never runs.
    """

    def __init__(self, context: WorkerContext, handlers: Handlers) -> None:
        self._context = context
        self._handlers = handlers
        self._process = f"{socket.gethostname()}-{os.getpid()}"
        self._reported: dict[str, bytes] = {}
        """Of each living consumer with other handlers, those that the last warning was about."""

    async def run(self) -> None:
        """Compare until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL)
            await self._context.outages.retry("comparing handlers", self.compare)

    async def compare(self) -> None:
        """Tell the others what handlers this consumer has, and warn of those that have others. Raises `RedisError`."""
        own = self._handlers.described()
        document = orjson.dumps({"process": self._process, "handlers": own}, option=orjson.OPT_SORT_KEYS)
        source, name = self._context.sources[0], self._context.name
        others = await groups.handlers_of_others(self._context.commands, source, name, document, ttl_ms=TTL_MS)
        self._reported = {consumer: handlers for consumer, handlers in self._reported.items() if consumer in others}
        for consumer, found in others.items():
            if self._reported.get(consumer) != found:
                self._compare_with(consumer, own, found)

    async def withdraw(self) -> None:
        """This consumer stops. Raises `RedisError`."""
        await groups.forget_handlers(self._context.commands, self._context.sources[0], self._context.name)

    def _compare_with(self, consumer: str, own: Mapping[str, Sequence[str]], found: bytes) -> None:
        process, theirs = _read(found)
        only_here, only_there = _missing(own, theirs), _missing(theirs, own)
        if not (only_here or only_there):
            self._reported.pop(consumer, None)
            return
        self._reported[consumer] = found
        where = " (in the same process)" if process == self._process else ""
        logger.warning(
            "two consumers of group %r have different handlers: %s are only at %r, and %s only at %r%s. Each of them "
            "acknowledges what it has no handler for, so the other's handler never runs for that. This is expected "
            "during a rolling deployment; otherwise give them the same handlers, or groups of their own",
            self._context.settings.group,
            _shown(only_here),
            self._context.name,
            _shown(only_there),
            consumer,
            where,
            extra={
                **self._context.log,
                "other_consumer": consumer,
                "only_here": only_here,
                "only_there": only_there,
            },
        )


def _missing(handlers: Mapping[str, Sequence[str]], others: Mapping[str, Sequence[str]]) -> list[str]:
    """The handlers, with what they are for, that the others do not have for all of it."""
    missing: list[str] = []
    for name, targets in handlers.items():
        left = sorted(set(targets).difference(others.get(name, ())))
        if left or name not in others:
            missing.append(f"{name} ({', '.join(left)})")
    return missing


def _shown(handlers: Sequence[str]) -> str:
    if not handlers:
        return "none"
    more = f" and {len(handlers) - SHOWN} more" if len(handlers) > SHOWN else ""
    return ", ".join(handlers[:SHOWN]) + more


def _read(document: bytes) -> tuple[str, Mapping[str, Sequence[str]]]:
    """The process and the handlers in what a consumer wrote, which may be anything."""
    try:
        found: Any = orjson.loads(document)
        handlers = {str(name): [str(target) for target in targets] for name, targets in found["handlers"].items()}
        return str(cast(object, found["process"])), handlers
    except (ValueError, TypeError, KeyError, AttributeError):
        return "", {}
