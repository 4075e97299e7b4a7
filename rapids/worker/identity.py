"""The consumer's name: one that no other living process goes by."""

import asyncio
import logging
import os
import socket
from collections.abc import Mapping
from itertools import count
from uuid import uuid4

from rapids.storage import groups
from rapids.storage.connection import Commands
from rapids.storage.keys import Source
from rapids.worker.outages import Outages

__all__ = ["Identity"]

logger = logging.getLogger("rapids.worker")

TTL_MS = 6_000
"""How long a name stays taken after its process died."""


class Identity:
    """Holds a consumer name by a key with a TTL, renewed while the process lives."""

    def __init__(self, commands: Commands, source: Source) -> None:
        self._commands = commands
        self._source = source
        self._token = uuid4().hex
        self.name = ""

    async def acquire(self, wanted: str | None) -> str:
        """Take the wanted name, or `hostname-pid`, or the first of them with a number behind it that is free."""
        base = wanted or f"{socket.gethostname()}-{os.getpid()}"
        name = base
        for number in count(2):
            if await self._hold(name):
                break
            name = f"{base}-{number}"
        if wanted and name != wanted:
            logger.warning("consumer name %r is held by a live process; using %r", wanted, name)
        self.name = name
        return name

    async def run(self, outages: Outages, context: Mapping[str, object]) -> None:
        """Keep the name until cancelled."""
        held = True
        while True:
            await asyncio.sleep(TTL_MS / 3000)
            had, held = held, await outages.ride_out("keeping the consumer name", lambda: self._hold(self.name))
            if had and not held:
                logger.error("another process took this consumer's name while this one stood still", extra=context)

    async def release(self) -> None:
        """Let the name go at once."""
        await groups.release_name(self._commands, self._source, self.name, self._token)

    async def _hold(self, name: str) -> bool:
        return await groups.hold_name(self._commands, self._source, name, self._token, ttl_ms=TTL_MS)
