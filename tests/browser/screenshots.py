"""Screenshots of every page of the dashboard: `python -m tests.browser.screenshots [FOLDER]`."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Page

from rapids._storage import rates
from rapids._storage.keys import Source
from rapids.embedded import open_embedded
from tests.browser.chrome import chromium, log_in
from tests.browser.shop import STREAM, TOKEN, Shop
from tests.fastapi.helpers import until
from tests.fastapi.served_admin import serving

WIDTHS = {"wide": (1440, 900), "narrow": (390, 844)}
ORDERS = 200


def main(folder: Path) -> None:
    """Write the screenshots."""
    logging.disable()
    folder.mkdir(parents=True, exist_ok=True)
    only = sys.argv[2].split(",") if len(sys.argv) > 2 else None

    async def run() -> None:
        async with open_embedded("embedded:") as server:
            await asyncio.to_thread(_shoot, server.url, folder, only)

    asyncio.run(run())


def _shoot(url: str, folder: Path, only: list[str] | None) -> None:
    shop = Shop(url)
    with serving(shop.app) as address:
        shop.run(shop.sell(ORDERS))
        shop.run(shop.be_attacked())
        until(lambda: shop.run(shop.letters()) > ORDERS * 0.6, timeout=90)
        shop.run(_had_an_hour(shop))
        with chromium() as browser:
            problems: list[str] = []
            context = browser.new_context(viewport={"width": 1440, "height": 900}, device_scale_factor=1)
            page = context.new_page()
            page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error: problems.append(str(error)))
            _take(page, folder, "login", address, None)
            log_in(page, f"{address}/rapids/", TOKEN)
            for name, place in _places(page, address).items():
                if only is None or name in only:
                    _take(page, folder, name, address, place)
            print("\n".join(problems))


async def _had_an_hour(shop: Shop) -> None:
    """Rates of an hour, as workers would have kept them: more and less traffic, and failures since 22 minutes."""
    redis, record = shop.rapids.redis, struct.Struct(f">Id{len(rates.COUNTED)}I{rates.RANGES}I")
    groups = ("mail", "payments", "search", "shipping")
    await asyncio.sleep(15)  # until what the shop really did, all in one moment, is reported
    await redis.delete(*(Source(STREAM, group).rates for group in groups))
    now = rates.period_of(time.time() * 1000)
    ages = range(360, 0, -1)
    traffic = {age: round(60 + 20 * math.sin(age / 40) + 6 * math.sin(age * 1.7)) for age in ages}
    for group in groups:
        added = 0
        for age, events in traffic.items():
            added += events
            failed = events // 3 if group == "shipping" and age < 132 else int(group == "mail" and age % 41 == 3)
            counts = (events, events - failed, failed, 0, failed * 2 // 3)
            at = (now - age) % rates.RECORDS * record.size
            await redis.setrange(
                Source(STREAM, group).rates, at, record.pack(now - age, added, *counts, *[0] * rates.RANGES)
            )
    [[last, _]] = await redis.xrevrange(STREAM, count=1)
    added = sum(traffic.values()) + await redis.xlen(STREAM)
    await redis.execute_command("XSETID", STREAM, last, "ENTRIESADDED", added, "MAXDELETEDID", "0-1")
    for group in groups:
        await redis.xgroup_setid(STREAM, group, last, entries_read=added)


def _places(page: Page, address: str) -> dict[str, str | tuple[str, Callable[[Page], Any]]]:
    def get(path: str) -> Any:
        return page.request.get(f"{address}/rapids/api/{path}").json()

    def post(path: str, body: Any) -> Any:
        headers = {"Content-Type": "application/json"}
        return page.request.post(f"{address}/rapids/api/{path}", data=json.dumps(body), headers=headers).json()

    letters = get("dead-letters?handler=ship_order&limit=200")["items"]
    letter = get("dead-letters?handler=take_payment")["items"][0]["id"]
    cause = get("dead-letters/causes")["items"][0]["fingerprint"]
    post("dead-letters/" + letters[5]["id"] + "/replay", {"reason": "tried once by hand", "patch": {"amount": "1.00"}})
    started = post(
        "operations", {"kind": "replay", "selector": {"fingerprint": cause}, "rate": 5, "reason": "the courier is back"}
    )
    post("groups/pause", {"stream": "shop:orders", "group": "mail", "reason": "templates are being repaired"})
    entry = get("entries?stream=shop%3Aorders&limit=5")["items"][-1]["entry_id"]
    hostile = get("dead-letters?handler=index_order")["items"][0]["id"]

    def edit(page: Page) -> None:
        page.locator(".tree").first.wait_for()
        page.keyboard.press("e")
        area = page.locator("dialog textarea")
        area.fill(area.input_value().replace('"Ada Lovelace"', '"Ada King"'))
        page.wait_for_timeout(700)

    def mistake(page: Page) -> None:
        edit(page)
        area = page.locator("dialog textarea")
        area.fill(area.input_value().replace('"total": "', '"total": "about ').replace('"Ada King"', "17"))
        page.locator(".editor-note").nth(1).wait_for()

    def start(page: Page) -> None:
        page.locator("table.letters tbody tr").first.wait_for()
        page.keyboard.press("r")
        page.locator("dialog .preview").wait_for()

    def complete(page: Page) -> None:
        page.keyboard.press("/")
        page.keyboard.type("handler:")

    return {
        "overview": "#/overview",
        "letters": "#/letters",
        "cause": f"#/letters?fingerprint={cause}",
        "filter": ("#/letters", complete),
        "start": (f"#/letters?fingerprint={cause}", start),
        "nothing": "#/letters?handler=nobody",
        "letter": f"#/letters/{letter}",
        "replayed": f"#/letters/{letters[5]['id']}",
        "hostile": f"#/letters/{hostile}",
        "edit": (f"#/letters/{letter}", edit),
        "mistake": (f"#/letters/{letter}", mistake),
        "operations": "#/operations",
        "operation": f"#/operations/{started.get('id')}",
        "archive": "#/archive",
        "groups": "#/groups",
        "paused": "#/groups?stream=shop%3Aorders&group=mail",
        "group": "#/groups?stream=shop%3Aorders&group=search",
        "entries": "#/entries?stream=shop%3Aorders",
        "entry": f"#/entries/{entry}?stream=shop%3Aorders",
        "trace": f"#/trace?id={letters[0]['correlation_id']}",
        "catalog": "#/catalog",
        "audit": "#/audit?actor=ann",
        "help": ("#/letters", lambda page: page.keyboard.press("?")),
    }


def _take(
    page: Page, folder: Path, name: str, address: str, place: str | tuple[str, Callable[[Page], Any]] | None
) -> None:
    where, act = place if isinstance(place, tuple) else (place, None)
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme in schemes:
        for width, (x, y) in WIDTHS.items():
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": x, "height": y})
            page.goto("about:blank")
            page.goto(f"{address}/rapids/{where or ''}")
            page.wait_for_timeout(900)
            if act is not None:
                act(page)
                page.wait_for_timeout(300)
            page.screenshot(
                path=folder / f"{name}-{width}-{scheme}.png",
                full_page=act is None and name not in ("letters", "cause", "catalog"),
            )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "screenshots"))
