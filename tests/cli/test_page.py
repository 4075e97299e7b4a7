"""docs/cli.md and docs/workers.md for real: commands print what they show."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from rapids.cli.summary import RunningRouter, show_running
from tests.docs.pages import DOCS, blocks
from tests.docs.reader import constant
from tests.printed import Printed

PAGE = DOCS / "cli.md"

EVENTS = """
from typing import ClassVar
from rapids import BaseEvent

class OrderPlaced(BaseEvent):
    schema_version: ClassVar[int] = 2
    order_id: str
    total: float = 12.5

class PaymentProcessed(BaseEvent):
    order_id: str
"""

WORKERS = """
from rapids import EventEmitter, EventRouter
from rapids.exceptions import NonRetryableError, RetryAfter
from shop.events import OrderPlaced, PaymentProcessed

fulfilment = EventRouter(group="fulfilment", dlq_stream="{events:all}:dlq", max_deliveries=1)
search_index = EventRouter(group="search-index", max_deliveries=1)
routers = [fulfilment, search_index]

@fulfilment.on(OrderPlaced)
async def take_payment(event: OrderPlaced, emitter: EventEmitter) -> None:
    if event.order_id.startswith("declined"):
        raise NonRetryableError("card declined: insufficient funds")
    if event.order_id.startswith("later"):
        raise RetryAfter(2_200)
    await emitter.emit(PaymentProcessed(order_id=event.order_id))

@fulfilment.on(PaymentProcessed)
async def ship(event: PaymentProcessed) -> None:
    raise ValueError("the courier is busy")

@search_index.on(OrderPlaced)
async def index(event: OrderPlaced) -> None:
    if event.order_id in ("declined-1", "declined-2", "declined-3", "declined-4", "declined-5"):
        raise RuntimeError("the index is being rebuilt")
"""

EVENING = """
import asyncio, json, logging, sys
from redis.asyncio import Redis
from rapids import EventEmitter, GenericEvent, correlation_scope
from rapids.cli import command
from rapids.inspection import Inspector
from shop.events import OrderPlaced
from shop.workers import fulfilment, routers, search_index
from typer.testing import CliRunner

logging.disable()

async def settled(redis, group, **left):
    while True:
        seen = await Inspector(redis).group("events:all", group)
        if (seen.lag, seen.held) == (0, 0) and all(getattr(seen, name) == one for name, one in left.items()):
            return
        await asyncio.sleep(0.02)

async def evening(url):
    async with Redis.from_url(url) as redis:
        emitter = EventEmitter(redis)
        async with asyncio.TaskGroup() as tasks:
            for router in routers:
                tasks.create_task(router.start(redis))
            async with correlation_scope("req-1"):
                await emitter.emit(OrderPlaced(order_id="A-1"))
                await settled(redis, "fulfilment")
                await emitter.emit(OrderPlaced(order_id="later-1"))
            await emitter.emit([OrderPlaced(order_id=f"declined-{n}") for n in range(1, 18)])
            await emitter.emit([OrderPlaced(order_id=f"A-{n}") for n in range(2, 17)])
            await settled(redis, "fulfilment", waiting=1)
            await fulfilment.stop()
            for one in await redis.xinfo_consumers("events:all", "fulfilment"):
                if one["pending"] == 0:  # it is removed after an hour
                    await redis.xgroup_delconsumer("events:all", "fulfilment", one["name"])
            await emitter.emit([GenericEvent(raw_type="parcel.returned") for _ in range(30)])
            await settled(redis, "search-index", parked=5)
            await search_index.stop()
        await EventEmitter(redis, stream="invoices").emit([GenericEvent(raw_type="invoice.sent") for _ in range(20)])

url, commands = sys.argv[1], json.loads(sys.argv[2])
asyncio.run(evening(url))
for words in commands:
    ran = CliRunner().invoke(command(), words, env={"RAPIDS_REDIS_URL": url, "COLUMNS": "200"})
    print(json.dumps([ran.exit_code, ran.stdout + ran.stderr]))
"""


def commands() -> list[tuple[list[str], str]]:
    """Each `rapids` command that the page shows with an answer, and the answer; completion has tests of its own."""
    text = "".join(block.text for block in blocks(PAGE, "console"))
    parts = [part.partition("\n") for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]]
    return [
        (shlex.split(line)[1:], printed) for line, _, printed in parts if printed and re.match("rapids [a-z]", line)
    ]


@pytest.mark.slow
def test_commands_print_what_the_page_shows(redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "events.py").write_text(EVENTS)
    (tmp_path / "shop" / "workers.py").write_text(WORKERS)
    asked = json.dumps([words for words, _ in commands()])
    run = subprocess.run(
        [sys.executable, "-c", EVENING, redis_url, asked], cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert run.returncode == 0, run.stderr
    answers = [json.loads(line) for line in run.stdout.splitlines()]
    assert [words[0] for words, _ in commands()] == ["groups", "dlq", "trace", "events", "doctor"]
    printed = Printed()
    for (words, shown), (code, output) in zip(commands(), answers, strict=True):
        assert code == (1 if words == ["doctor"] else 0), output
        printed.check(of_any_server(constant(shown)), of_any_server(constant(output)))


def test_a_start_is_announced_as_the_page_about_workers_shows(capsys: pytest.CaptureFixture[str]) -> None:
    [block] = [block.text for block in blocks(DOCS / "workers.md", "console") if "dead letters:" in block.text]
    router = RunningRouter("orders", "billing", "{orders}:dlq", {"charge": ["order.placed"], "audit": ["order.*"]})
    show_running("text", "redis://localhost:6379/0", [router], processes=4)
    shown = "".join(line for line in block.splitlines(keepends=True) if not line.startswith(("$ ", "20")))
    assert capsys.readouterr().err.strip() == shown.strip()


def of_any_server(text: str) -> str:
    """The text without what differs from server to server: its version, and what doctor says of its settings."""
    return re.sub(r"^server .*", "server", text, flags=re.MULTILINE)
