"""A reader who follows the reference: types its blocks into a session, filling in only what a block leaves out."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis.asyncio

from rapids import Delivery, Event, EventRouter
from rapids.delivery import CallNext
from tests.support import eventually

REFERENCE = Path(__file__).parents[2] / "shared" / "reference" / "rapids-streams-0.2.0-readme.md"


def python_blocks(path: Path = REFERENCE) -> dict[str, str]:
    """The reference's Python blocks by the heading they stand under. Without the reference there are none."""
    blocks: dict[str, str] = {}
    heading = ""
    for title, language, source in re.findall(
        r"(?ms)^#+ ([^\n]*)$|^```(\w*)\n(.*?)^```", path.read_text() if path.is_file() else ""
    ):
        if title:
            heading = title
        elif language == "python":
            assert heading not in blocks, f"two blocks under {heading!r}: tell them apart"
            blocks[heading] = source
    return blocks


def client_class(url: str, made: list[redis.asyncio.Redis]) -> type[redis.asyncio.Redis]:
    """A `Redis` whose clients reach the tests' server, whatever address they are given."""
    address = urlsplit(url)
    where: dict[str, Any] = (
        {"unix_socket_path": address.path}
        if address.scheme == "unix"
        else {"host": address.hostname, "port": address.port}
    )

    class Redis(redis.asyncio.Redis):
        def __init__(self, host: str = "localhost", port: int = 6379) -> None:
            super().__init__(**where)
            made.append(self)

    return Redis


class Reader:
    """One session: the blocks typed into it share their names."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"__name__": "reference"}
        self.blocks = python_blocks()

    def __getitem__(self, name: str) -> Any:
        return self.names[name]

    async def types(self, heading: str, *, before: str = "", after: str = "") -> None:
        """Run a block to its end, with what it leaves out before and after it."""
        source = f"{before}\n{self.blocks[heading]}\n{after}"
        code = compile(source, heading, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        result = eval(code, self.names)
        if inspect.isawaitable(result):
            await result

    @asynccontextmanager
    async def typing(self, heading: str) -> AsyncIterator[None]:
        """Run a block that consumes until its `router` is stopped, which happens at the end of the `async with`."""
        async with finishing(asyncio.create_task(self.types(heading))):
            await eventually(lambda: "router" in self.names and self["router"].running)
            yield
            await self["router"].stop()

    @asynccontextmanager
    async def consuming(self) -> AsyncIterator[list[tuple[str, str]]]:
        """Run the session's `router`; gives the (handler, event type) of what has been handled."""
        async with finishing(asyncio.create_task(self["router"].start())):
            await eventually(lambda: self["router"].running)
            yield self["router"].handled
            await self["router"].stop()


@asynccontextmanager
async def finishing(task: asyncio.Task[None]) -> AsyncIterator[None]:
    """A task that is to end by itself by the end of the `async with`, and ends in any case."""
    try:
        yield
        await asyncio.wait_for(task, 30)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class WatchedRouter(EventRouter):
    """A router that remembers what its handlers have finished."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options, middleware=[self._remember])
        self.handled: list[tuple[str, str]] = []
        self.events: list[Event] = []

    async def _remember(self, delivery: Delivery, call_next: CallNext) -> None:
        await call_next(delivery)
        self.handled.append((delivery.handler, delivery.event.routing_key))
        self.events.append(delivery.event)
