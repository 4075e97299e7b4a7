"""The page beside a service that restarts, and in a browser that sleeps: it says that it is stale, and recovers."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, Request, expect

from tests.browser.conftest import Complaints, Served
from tests.fastapi.helpers import until

pytestmark = [pytest.mark.slow]

expect.set_options(timeout=60_000)
EIGHT_HOURS = "08:00:00"


def letters_shown(page: Page, number: int) -> None:
    """The number beside the page's name, and the one in the button."""
    expect(page.locator(".nav-count")).to_have_text(f"{number}")
    expect(page.get_by_role("button", name=f"Replay all {number}")).to_be_visible()


def hide(page: Page, is_hidden: bool) -> None:
    """What a browser does when its tab is left or seen again. Without a screen, no tab is hidden."""
    page.evaluate(
        "isHidden => { Object.defineProperty(document, 'hidden', {configurable: true, get: () => isHidden});"
        "document.dispatchEvent(new Event('visibilitychange')); }",
        is_hidden,
    )


def test_a_restart_of_the_service(dashboard: Page, served: Served, complaints: Complaints) -> None:
    """The page says since when it is stale, keeps what it shows, and is true again by itself, in the same session."""
    page, shop = dashboard, served.shop
    page.get_by_role("link", name=re.compile("^Dead letters")).click()
    until(lambda: shop.run(shop.has_settled()))
    before = shop.run(shop.letters())
    letters_shown(page, before)
    complaints.may_be_away = True
    served.stop()
    expect(page.get_by_role("status").filter(has_text=re.compile(r"Not up to date for \d+ s"))).to_be_visible()
    letters_shown(page, before)
    served.start()
    shop.run(shop.fail_again("ship_order", 7))
    letters_shown(page, before + 7)
    expect(page.get_by_text("Not up to date")).to_be_hidden()


def test_a_night_in_a_hidden_tab(page: Page, dashboard: Page, served: Served) -> None:
    """It asks nothing then, and at once when it is seen again."""
    shop, asked = served.shop, list[str]()
    page.clock.install()
    page.reload()
    page.get_by_role("link", name=re.compile("^Dead letters")).click()
    until(lambda: shop.run(shop.has_settled()))
    before = shop.run(shop.letters())
    letters_shown(page, before)
    hide(page, True)

    def hear(request: Request) -> None:
        asked.append(request.url)

    page.on("request", hear)
    page.clock.fast_forward(EIGHT_HOURS)
    page.clock.run_for(60_000)
    assert asked == []
    shop.run(shop.fail_again("ship_order", 7))
    hide(page, False)
    letters_shown(page, before + 7)
    expect(page.get_by_text("Not up to date")).to_be_hidden()
