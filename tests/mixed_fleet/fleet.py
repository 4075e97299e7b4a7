"""Services as processes of their own: started, listened to, stopped and killed by tests."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from redis.asyncio import Redis

from rapids._storage.keys import Source
from rapids.embedded.supervisor import die_with_parent
from tests.mixed_fleet import environment
from tests.support import eventually
from tests.worker.helpers import consumers

STREAM = "fleet:events"
GROUP = "fleet"
DLQ = "fleet:dead"
SERVICE = Path(__file__).parent / "service.py"

IDLE_MS = 1_000
"""After so many milliseconds of silence each kind takes over what the other has, unless a test says otherwise."""

Kind = Literal["old", "new"]
Lines = list[dict[str, Any]]


class Service:
    """A process that emits and consumes, and what it has reported so far."""

    def __init__(self, kind: Kind, name: str, process: asyncio.subprocess.Process) -> None:
        self.kind, self.name, self.client_name = kind, name, name
        self.lines: Lines = []
        self.complaints = ""
        self._process = process
        self._listening = asyncio.gather(self._listen(), self._listen_to_complaints())

    def reports(self, what: str) -> Lines:
        return [line for line in self.lines if line["what"] == what]

    def began(self) -> list[int]:
        return [line["number"] for line in self.reports("began")]

    def done(self, handler: str | None = None) -> list[int]:
        """The numbers of the tasks a handler (or all of them) finished, in the order in which it did."""
        return [line["number"] for line in self.reports("done") if handler in (None, line["handler"])]

    async def emit(self, *events: tuple[str, dict[str, Any]], wait: bool = True, **options: Any) -> Lines:
        """The entry ids, and the events as they were made; nothing if it is not waited for."""
        before = len(self.reports("emitted"))
        command = {"events": events, "scope": None, "as_list": False, "caused_by": None, **options}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        await self._process.stdin.drain()
        if not wait:
            return []
        await eventually(lambda: len(self.reports("emitted")) > before or self.has_ended())
        return self.reports("emitted")[before:]

    async def tasks(self, *numbers: int, wait: bool = True, as_list: bool = False, **deeds: str) -> list[str]:
        """Emit tasks: their entry ids, if they are waited for.

        `deeds`: what a kind of service, or a handler of it, does with them; `_` stands for the dot, `star` for any.
        """
        wanted = {"*" if place == "star" else place.replace("_", "."): deed for place, deed in deeds.items()}
        events = [("FleetTask", {"number": n, "deeds": wanted}) for n in numbers]
        emitted = await self.emit(*events, wait=wait, as_list=as_list)
        return emitted[0]["entries"] if emitted else []

    async def stop(self) -> None:
        """As a roll-out stops it."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(self._process.wait(), 30) == 0, self.complaints
        await self._listening

    async def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._listening

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def has_ended(self) -> bool:
        """False; an AssertionError that shows what it said, if it ended by itself."""
        assert self._process.returncode is None, f"{self.name} ended: {self.complaints}"
        return False

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.lines.append(json.loads(line))

    async def _listen_to_complaints(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self.complaints += line.decode(errors="replace")


class Fleet:
    """Starts services over one stream, and asks Redis what they made of it."""

    def __init__(self, url: str, redis: Redis) -> None:
        self.redis = redis
        self.services: list[Service] = []
        self._url = url

    async def old(self, **options: Any) -> Service:
        """A service on rapids-streams 0.3.0."""
        return await self._start("old", **options)

    async def new(self, **options: Any) -> Service:
        """A service on Rapids."""
        backoffs = {"redelivery_backoff": 0.05, "shutdown_timeout": 5.0}
        return await self._start("new", **(backoffs | options))

    async def _start(
        self,
        kind: Kind,
        *,
        name: str | None = None,
        names_itself: bool = False,
        group: str = GROUP,
        stream: str = STREAM,
        handlers: dict[str, str] | None = None,
        on: dict[str, dict[str, Any]] | None = None,
        unknown: str | None = None,
        maxlen: int | None = 100_000,
        **router: Any,
    ) -> Service:
        name = name or f"{kind}-{len(self.services)}"
        short = {
            "consumer": None if names_itself else name,
            "block_ms": 100,
            "claim_interval": 1,
            "claim_min_idle_ms": IDLE_MS,
            "dlq_stream": DLQ,
            "default_backoff": 0.01,
        }
        config = {
            "kind": kind,
            "name": name,
            "url": self._url,
            "stream": stream,
            "group": group,
            "emitter": {"maxlen": maxlen},
            "router": short | router,
            "handlers": {"work": "FleetTask"} if handlers is None else handlers,
            "on": on or {},
            **({"unknown": unknown} if unknown else {}),
        }
        python = environment.PYTHON if kind == "old" else Path(sys.executable)
        assert python.exists(), f"there is no {python}: `make test-mixed-fleet` makes it"
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *(python, str(SERVICE), json.dumps(config)),
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            limit=2**24,
            preexec_fn=die_with_parent,
        )
        service = Service(kind, name, process)
        self.services.append(service)
        if names_itself:
            service.name = f"{socket.gethostname()}-{process.pid}"
        await eventually(lambda: self._has_joined(service, stream, group))
        return service

    async def _has_joined(self, service: Service, stream: str, group: str) -> bool:
        """Whether it reads: its connection does; on Redis 6.2 a group has no consumer that was given nothing."""
        service.has_ended()
        if service.kind == "new":
            return bool(await self.redis.exists(Source(stream, group).consumer(service.name)))
        clients = await self.redis.client_list()
        return any(client["name"] == service.client_name and client["cmd"] == "xreadgroup" for client in clients)

    # --- what came of it --------------------------------------------------------------------------------------------

    def done(self, handler: str | None = None) -> Counter[int]:
        """How often each task was finished, by any service."""
        return Counter(number for service in self.services for number in service.done(handler))

    def began(self) -> Counter[int]:
        return Counter(number for service in self.services for number in service.began())

    async def pending(self) -> dict[str, int]:
        """The consumers that have something pending, and how much."""
        return {name: count for name, count in (await consumers(self.redis, STREAM, GROUP)).items() if count}

    async def holder(self, entry_id: str) -> str | None:
        """The consumer for which an entry is pending."""
        rows = await self.redis.xpending_range(STREAM, GROUP, entry_id, entry_id, 1)
        return rows[0]["consumer"].decode() if rows else None

    async def deliveries(self, entry_id: str) -> int:
        rows = await self.redis.xpending_range(STREAM, GROUP, entry_id, entry_id, 1)
        return rows[0]["times_delivered"] if rows else 0

    async def letters(self) -> list[dict[bytes, bytes]]:
        return [fields for _, fields in await self.redis.xrange(DLQ)]

    async def kept_in_other_keys(self) -> set[str]:
        """The keys that hold something about entries."""
        keys = [key.decode() for key in await self.redis.keys("*")]
        return {key for key in keys if ":rapids:ledger:" in key or ":rapids:due:" in key or ":rapids:parked:" in key}


@asynccontextmanager
async def fleet_on(url: str, redis: Redis) -> AsyncIterator[Fleet]:
    fleet = Fleet(url, redis)
    try:
        yield fleet
    finally:
        for service in fleet.services:
            await service.kill()
