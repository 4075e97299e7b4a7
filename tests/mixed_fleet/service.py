"""A service of the fleet. One source for both: it runs on rapids-streams 0.3.0 and on Rapids as it stands.

Run with its configuration as JSON: `kind` ("old" or "new"), `name`, `url`, `stream`, `group`, `router` and `emitter`
(options), `handlers` (name to target), `on` (options of each handler). It takes commands as JSON lines, and reports in
JSON lines what its handlers begin and finish. SIGTERM stops it as a service stops its router.
"""

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any

from pydantic import BaseModel, model_validator
from redis.asyncio import Redis

from rapids import BaseEvent, Event, EventEmitter, EventRouter, correlation_scope
from rapids.backoff import constant


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


class Box(BaseModel):
    label: str
    weights: list[Decimal] = []


class FleetTask(BaseEvent):
    """What a handler is to do with it: by "kind.handler", "kind" or "*"."""

    number: int = 0
    deeds: dict[str, str] = {}


class FleetParcel(BaseEvent):
    """Fields of many kinds."""

    schema_version = 3

    weight: Decimal
    packed_at: datetime
    size: Size
    boxes: list[Box] = []
    tags: set[str] = set()
    note: str | None = None
    ratio: float = 0.5


class FleetMove(BaseEvent):
    """Its version 1 said `old_path`, or nothing."""

    schema_version = 2

    path: str
    deeds: dict[str, str] = {}

    @model_validator(mode="before")
    @classmethod
    def _migrate(cls, data: dict[str, Any]) -> dict[str, Any]:
        if data.get("_schema_version", cls.schema_version) < 2:
            data["path"] = data.get("old_path", "migrated")
        return data


CLASSES = {cls.__name__: cls for cls in (FleetTask, FleetParcel, FleetMove)}


class Refused(Exception):
    """Not among the retryable ones."""


def tell(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def do(deed: str) -> None:
    verb, _, argument = deed.partition(":")
    match verb:
        case "fail":
            raise ConnectionError("the bank is closed")
        case "refuse":
            raise Refused("not here")
        case "value":
            raise ValueError("not this one")
        case "sleep":
            await asyncio.sleep(float(argument))
        case "later":
            from rapids.exceptions import RetryAfter  # the old package has none

            raise RetryAfter(float(argument))


class Service:
    def __init__(self, config: dict[str, Any]) -> None:
        self.kind = config["kind"]
        self._classes = CLASSES | ({config["unknown"]: _unknown(config["unknown"])} if "unknown" in config else {})
        self._redis = Redis.from_url(config["url"], client_name=config["name"])
        self._emitter = EventEmitter(self._redis, stream=config["stream"], **config["emitter"])
        self._router = EventRouter(self._redis, stream=config["stream"], group=config["group"], **_options(config))
        for name, target in config["handlers"].items():
            self._router.on(CLASSES.get(target, target), **_retryable(config["on"].get(name, {})))(self._handler(name))

    def _handler(self, name: str) -> Callable[[Event], Awaitable[None]]:
        async def handle(event: Event) -> None:
            details = {"handler": name, "number": getattr(event, "number", None), "id": event.id}
            tell(what="began", type=type(event).__name__, event=json.loads(event.model_dump_json()), **details)
            deeds = getattr(event, "deeds", {})
            places = (f"{self.kind}.{name}", self.kind, name, "*")
            deed = next((deeds[place] for place in places if place in deeds), "done")
            if deed == "emit":
                await self._emitter.emit(FleetTask(number=event.number + 1))
            else:
                await do(deed)
            tell(what="done", **details)

        handle.__name__ = name
        return handle

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stopping.set)
        commands = asyncio.create_task(self._take_commands())
        consuming = asyncio.create_task(self._router.start())
        stop = asyncio.create_task(stopping.wait())
        await asyncio.wait([commands, consuming, stop], return_when=asyncio.FIRST_COMPLETED)
        await self._router.stop()
        await consuming
        commands.cancel()
        await self._redis.aclose()
        tell(what="stopped")

    async def _take_commands(self) -> None:
        reader = asyncio.StreamReader(limit=2**24)
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            await self._emit(**json.loads(line))

    async def _emit(
        self, events: list[list[Any]], scope: str | None, as_list: bool, caused_by: list[Any] | None
    ) -> None:
        made = [self._event(*event) for event in events]
        cause = self._event(*caused_by) if caused_by else None
        async with correlation_scope(scope) if scope else _nothing():
            if as_list:
                ids = await self._emitter.emit(made, caused_by=cause)
            else:
                ids = [await self._emitter.emit(event, caused_by=cause) for event in made]
        tell(what="emitted", entries=ids, events=[json.loads(event.model_dump_json()) for event in made])

    def _event(self, name: str, fields: dict[str, Any]) -> Event:
        return self._classes[name](**fields)


class _nothing:
    async def __aenter__(self) -> None: ...
    async def __aexit__(self, *_: object) -> None: ...


def _unknown(name: str) -> type[BaseEvent]:
    """A class that the other service does not have."""
    return type(name, (BaseEvent,), {"__annotations__": {"number": int, "anything": dict[str, Any]}})


def _options(config: dict[str, Any]) -> dict[str, Any]:
    """The router's options, as the source of a service has them."""
    options = dict(config["router"])
    for backoff in ("default_backoff", "redelivery_backoff"):
        if backoff in options:
            options[backoff] = constant(options[backoff])
    return options


def _retryable(options: dict[str, Any]) -> dict[str, Any]:
    return {"retryable_exceptions": (ConnectionError, TimeoutError), **_as_python(options)}


def _as_python(options: dict[str, Any]) -> dict[str, Any]:
    if "retryable_exceptions" in options:
        return {**options, "retryable_exceptions": tuple(options["retryable_exceptions"])}
    return options


if __name__ == "__main__":
    asyncio.run(Service(json.loads(sys.argv[1])).run())
