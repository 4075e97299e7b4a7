"""docs/wire-format.md for real: its commands are answered as printed, and Rapids handles what they append."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
from redis.asyncio import Redis

import rapids.events
from rapids import BaseEvent, EventRouter
from rapids._wire.entry_format import EVENT_FIELDS
from tests.docs.pages import DOCS, blocks
from tests.printed import Printed
from tests.support import eventually

PAGE = DOCS / "wire-format.md"


@pytest.fixture
def order_placed(monkeypatch: pytest.MonkeyPatch) -> type[BaseEvent]:
    """The class that the page's events fit. Events of the example have the same type, and other fields."""
    monkeypatch.setattr(rapids.events, "_registry", {})

    class OrderPlaced(BaseEvent):
        order_id: str
        total: float

    return OrderPlaced


def commands() -> list[tuple[list[str], str]]:
    """The words of each `redis-cli` command, and what is printed as its answer."""
    text = "".join(block.text for block in blocks(PAGE, "console"))
    parts = [part.partition("\n") for part in re.split(r"^\$ redis-cli ", text, flags=re.MULTILINE)[1:]]
    return [(shlex.split(command), printed.split("$ ")[0].strip()) for command, _, printed in parts]


def shown(answer: Any, indent: str = "") -> str:
    """An answer as redis-cli prints it."""
    if isinstance(answer, list):
        width = len(str(len(answer)))
        lines = []
        for number, one in enumerate(answer, start=1):
            mark = f"{number:>{width}}) "
            inner = shown(one, indent + " " * len(mark))
            lines.append(f"{indent if lines else ''}{mark}{inner}")
        return "\n".join(lines)
    if isinstance(answer, int):
        return f"(integer) {answer}"
    text = answer.decode()
    return text if text == "OK" else '"{}"'.format(text.replace('"', '\\"'))


async def test_commands_are_answered_as_printed_and_rapids_handles_the_event(
    redis_url: str, order_placed: type[BaseEvent]
) -> None:
    handled: list[Any] = []
    router = EventRouter(stream="orders", group="billing", block_ms=100)

    @router.on(order_placed)
    async def charge(event: Any) -> None:
        handled.append(event)
        await router.stop()

    printed = Printed()
    async with Redis.from_url(redis_url, protocol=2) as redis:
        for words, answer in commands():
            given = await redis.connection_pool.get_connection()
            try:
                await given.send_command(*(printed.actual(word) for word in words))
                printed.check(answer, shown(await given.read_response()))
            finally:
                await redis.connection_pool.release(given)
        await router.start(redis)
    [event] = handled
    assert (event.order_id, event.total, event.correlation_id) == ("A-1", 12.5, "from-a-shell")
    assert event.causation_id is None


def test_the_table_has_every_field_in_the_order_of_the_format() -> None:
    table = PAGE.read_text().split("| field |")[1].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.M) == [name.decode() for name in EVENT_FIELDS]


async def test_an_event_without_optional_fields_is_read(redis: Redis, order_placed: type[BaseEvent]) -> None:
    seen: list[Any] = []
    router = EventRouter(redis, stream="orders", group="billing", block_ms=100)

    @router.on(order_placed)
    async def charge(event: Any) -> None:
        seen.append(event)
        await router.stop()

    fields = {
        "event_type": "order.placed",
        "data": '{"order_id":"A-3","total":1}',
        "id": "1",
        "timestamp": "2026-11-30T19:40:59Z",
    }
    await redis.xadd("orders", fields)
    await router.start()
    assert await eventually(lambda: seen[0].order_id) == "A-3"
