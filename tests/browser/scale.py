"""The dashboard over many dead letters, event types and groups: `python -m tests.browser.scale [--letters 1000000]`.

It fills a server as workers fill it, visits each page in a browser, and says how long the requests of each take, after
how long the overview can be used, and how much memory the page has after an hour of updates. It ends with 1 if one of
them is over its budget. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import httpx
from playwright.sync_api import Browser, BrowserContext, Request

from rapids._core.attempt_log import Attempt, AttemptLog
from rapids._core.outcomes import Dead, Failure, Reason
from rapids._wire.encoding import encode
from rapids._wire.letter_format import Origin, write_letter
from rapids.clients import open_client
from rapids.dead_letters import DeadLetterQueue
from rapids.embedded import open_embedded
from tests.browser.chrome import chromium, log_in
from tests.browser.fleet import DLQ, STREAM, TOKEN, Fleet, Kind
from tests.fastapi.helpers import until
from tests.fastapi.served_admin import serving

REQUEST_MS = 150
USABLE_MS = 1_000
GROWTH = 1.1
"""How much more memory the page may have after an hour than after its first ten minutes."""

REPEATS = 9
VISITS = 5
LOOKS = 6
DEAD = Reason.MAX_DELIVERIES_EXCEEDED
CHUNK = 500
ERRORS = ("builtins.TimeoutError", "builtins.KeyError", "httpx.ReadTimeout")
TRACEBACK = (
    "Traceback (most recent call last):\n"
    + '  File "/srv/shop/handlers.py", line {line}, in {handler}\n    await call()\n' * 4
)


def letters(fleet: Fleet, count: int) -> Iterator[tuple[str, list[bytes]]]:
    """So many letters, the newest of now, each with its id, as a worker of the fleet writes them."""
    chance, began = random.Random(count), int(time.time() * 1000) - count - 1000
    weights = [1 / rank for rank in range(1, len(fleet.kinds) + 1)]
    for number, kind in enumerate(chance.choices(fleet.kinds, weights, k=count)):
        letter_id = f"{began + number}-0"
        yield (
            letter_id,
            [*_letter(kind, number, began + number, chance.choice(ERRORS)), b"letter_id", letter_id.encode()],
        )


def _letter(kind: Kind, number: int, at_ms: int, error: str) -> list[bytes]:
    at, text = datetime.fromtimestamp(at_ms / 1000, UTC), f"no answer for order {number}"
    event = kind.event(order_id=f"A-{number}", total=Decimal("48.90"))
    traceback = TRACEBACK.format(line=kind.number, handler=kind.handler)
    attempts = AttemptLog.of(*(Attempt(nth, 1, at, "shop-1", error, text) for nth in (1, 2, 3)))
    return write_letter(
        encode(event, correlation_id=f"web-{number // 10}", causation_id=None),
        Origin(f"{at_ms}-1", STREAM, kind.group, "shop-1", 3),
        Dead(kind.handler, DEAD, Failure(error, text, traceback, f"shop:{kind.number} call"), attempts),
        failed_at=at,
    )


async def fill(url: str, fleet: Fleet, count: int) -> None:
    """Write so many letters, and wait until the index has them."""
    rest = letters(fleet, count)
    async with open_client(url) as redis:
        while chunk := list(islice(rest, CHUNK)):
            async with redis.pipeline(transaction=False) as pipeline:
                for letter_id, fields in chunk:
                    pipeline.execute_command("XADD", DLQ, letter_id, *fields)
                await pipeline.execute()
        while (stats := await DeadLetterQueue(redis, DLQ).stats()).unindexed:
            pass
        print(f"{stats.length:,} dead letters of {len(fleet.kinds)} event types and {len(fleet.groups)} groups")


@dataclass(frozen=True, slots=True)
class Looked:
    """A figure, and the most that it may be."""

    what: str
    value: float
    budget: float | None
    unit: str = "ms"

    @property
    def is_over(self) -> bool:
        return self.budget is not None and self.value > self.budget

    def __str__(self) -> str:
        budget = "" if self.budget is None else f"   of {self.budget:,.0f}{'   TOO MUCH' if self.is_over else ''}"
        return f"  {self.what:66} {self.value:10,.1f} {self.unit}{budget}"


def requests_of(context: BrowserContext, address: str) -> dict[str, list[str]]:
    """What each page asks the API for until it is quiet."""
    page, found = context.new_page(), dict[str, list[str]]()

    def get(path: str) -> Any:
        return page.request.get(f"{address}/rapids/api/{path}").json()

    letter = get("dead-letters?limit=1")["items"][0]
    cause = get("dead-letters/causes?limit=1")["items"][0]
    places = {
        "overview": "overview",
        "letters": "letters",
        "letters of a cause": f"letters?fingerprint={cause['fingerprint']}",
        "letters of a handler": f"letters?handler={cause['handler']}",
        "letter": f"letters/{letter['id']}",
        "archive": "archive",
        "operations": "operations",
        "groups": "groups",
        "group": f"groups?stream={STREAM}&group={cause['group']}",
        "trace": f"trace?id={letter['correlation_id']}",
        "catalog": "catalog",
        "audit": "audit",
    }
    for name, place in places.items():
        asked: list[str] = []

        def hear(request: Request, asked: list[str] = asked) -> None:
            if "/rapids/api/" in request.url and request.resource_type != "eventsource":
                asked.append(request.url)

        page.goto("about:blank")
        page.on("request", hear)
        page.goto(f"{address}/rapids/#/{place}")
        page.locator("main h1").first.wait_for()
        page.locator(".loading").first.wait_for(state="hidden")
        page.wait_for_timeout(500)
        page.remove_listener("request", hear)
        found[name] = list(dict.fromkeys(asked))
    page.close()
    return found


def request_times(pages: dict[str, list[str]], cookie: str) -> Iterator[Looked]:
    """The slowest request of each page: the median of several. The overview is read at most once a second."""
    with httpx.Client(headers={"Cookie": cookie}, trust_env=False, timeout=60) as client:
        for name, urls in pages.items():
            slowest, where = 0.0, ""
            for url in urls:
                spent = []
                for _ in range(REPEATS):
                    time.sleep(1.05 if url.endswith("/overview") else 0)
                    began = time.perf_counter()
                    client.get(url).raise_for_status()
                    spent.append((time.perf_counter() - began) * 1000)
                if (median := statistics.median(spent)) > slowest:
                    slowest, where = median, urlsplit(url).path.rpartition("/api/")[2]
            yield Looked(f"{name}: {len(urls)} requests, the slowest is {where[:30]}", slowest, REQUEST_MS)


def usable(browser: Browser, state: Any, address: str) -> Iterator[Looked]:
    """From the address to the last group of the overview on the screen, with an empty cache and with a full one."""
    for cache, contexts in (("an empty cache", VISITS), ("a full cache", 1)):
        spent = list[float]()
        for _ in range(contexts):
            context = browser.new_context(storage_state=state, viewport={"width": 1440, "height": 900})
            page = context.new_page()
            for _ in range(1 if contexts > 1 else VISITS):
                page.goto("about:blank")
                time.sleep(1.05)  # until the overview is read again
                began = time.perf_counter()
                page.goto(f"{address}/rapids/#/overview", wait_until="commit")
                page.locator(".overview-groups tbody tr").last.wait_for()
                spent.append((time.perf_counter() - began) * 1000)
            context.close()
        yield Looked(f"overview usable, {cache}", statistics.median(spent), USABLE_MS)


def memory(context: BrowserContext, address: str, place: str, minutes: int) -> Iterator[Looked]:
    """The heap after each sixth of the time. The page's clock runs ahead, and each of its requests is real."""
    page = context.new_page()
    page.clock.install()
    page.goto(f"{address}/rapids/#/{place}")
    page.locator("main table tbody tr").first.wait_for()
    session = context.new_cdp_session(page)
    open_requests, answers = set[Request](), 0

    def ask(request: Request) -> None:
        if request.resource_type != "eventsource":
            open_requests.add(request)

    def answer(request: Request) -> None:
        nonlocal answers
        answers += request in open_requests
        open_requests.discard(request)

    def heap() -> float:
        for _ in range(2):
            session.send("HeapProfiler.collectGarbage")
        return session.send("Runtime.getHeapUsage")["usedSize"] / 1e6

    page.on("request", ask)
    page.on("requestfinished", answer)
    page.on("requestfailed", answer)
    heaps = [heap()]
    for step in range(1, minutes * 20 + 1):
        page.clock.run_for(3_000)
        while open_requests:
            page.wait_for_timeout(5)
        if step % (minutes * 20 // LOOKS) == 0:
            heaps.append(heap())
    nodes = session.send("Memory.getDOMCounters")["nodes"]
    page.close()
    shown = ", ".join(f"{one:.1f}" for one in heaps)
    yield Looked(f"{place}, {minutes} minutes, {answers:,} answers: heap {shown}", heaps[-1], heaps[1] * GROWTH, "MB")
    yield Looked(f"{place}: nodes of the document", nodes, None, "")


def main(arguments: list[str] | None = None) -> int:
    """Fill, measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.browser.scale")
    parser.add_argument("--letters", type=int, default=1_000_000)
    parser.add_argument("--event-types", type=int, default=200)
    parser.add_argument("--groups", type=int, default=50)
    parser.add_argument("--minutes", type=int, default=60, help="of updates, on the page's clock (%(default)s)")
    chosen = parser.parse_args(arguments)
    logging.disable(logging.ERROR)

    async def run() -> int:
        async with open_embedded("embedded:") as server:
            fleet = Fleet(server.url, chosen.event_types, chosen.groups)
            began = time.perf_counter()
            await fill(server.url, fleet, chosen.letters)
            print(f"filled in {time.perf_counter() - began:.0f} s")
            return await asyncio.to_thread(_measure, fleet, chosen.minutes)

    return asyncio.run(run())


def _measure(fleet: Fleet, minutes: int) -> int:
    figures: list[Looked] = []

    def keep(looked: Iterator[Looked]) -> None:
        for one in looked:
            print(one, flush=True)
            figures.append(one)

    with serving(fleet.app) as address:
        until(lambda: fleet.run(fleet.is_reading()), timeout=120)
        fleet.run(fleet.had_an_hour())
        with chromium() as browser:
            context = browser.new_context(viewport={"width": 1440, "height": 900})
            log_in(context.new_page(), f"{address}/rapids/", TOKEN)
            [cookie] = context.cookies()
            keep(request_times(requests_of(context, address), f"{cookie['name']}={cookie['value']}"))
            keep(usable(browser, context.storage_state(), address))
            with fleet.trading():
                for place in ("overview", "letters"):
                    keep(memory(context, address, place, minutes))
    return int(any(one.is_over for one in figures))


if __name__ == "__main__":
    sys.exit(main())
