"""Fixtures: a browser for all tests of the run, and for each test a shop with failures behind a path prefix."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page

from tests.browser.chrome import chromium
from tests.browser.shop import Shop, at_prefix
from tests.fastapi.helpers import until
from tests.fastapi.served_admin import serving

PREFIX = "/ops/shop"
ORDERS = 30
LETTERS = 24
"""How many dead letters the shop has at least when a test begins."""


class Served:
    """A shop that is served, and its address behind a proxy that removes a prefix."""

    def __init__(self, shop: Shop, address: str) -> None:
        self.shop = shop
        self.dashboard = f"{address}{PREFIX}/rapids/"


@pytest.fixture
def served(redis_url: str) -> Iterator[Served]:
    """A shop with dead letters of several causes."""
    shop = Shop(redis_url)
    logging.getLogger("rapids").setLevel(logging.CRITICAL)
    with serving(at_prefix(shop.app, PREFIX)) as address:  # type: ignore[arg-type]
        shop.run(shop.sell(ORDERS))
        shop.run(shop.be_attacked())
        until(lambda: shop.run(shop.letters()) >= LETTERS)
        yield Served(shop, address)
    logging.getLogger("rapids").setLevel(logging.NOTSET)


@pytest.fixture
def browser(served: Served) -> Iterator[Browser]:
    """Chromium. It is started after the servers, which run event loops in this thread, as Playwright does then."""
    with chromium() as browser:
        yield browser


class Seen:
    """What the browser complained about."""

    def __init__(self, page: Page) -> None:
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._hear)

    def _hear(self, message: ConsoleMessage) -> None:
        # The first request asks whether there is a session: its 401 is no fault, and browsers print it.
        is_asked = "Failed to load resource" in message.text and "401" in message.text
        if message.type in ("error", "warning") and not is_asked:
            self.complaints.append(_about(message))


def _about(message: ConsoleMessage) -> str:
    return f"{message.text} {message.location.get('url', '')}"


@pytest.fixture(params=[("light", 1440, 900), ("dark", 390, 844)], ids=["wide-light", "narrow-dark"])
def page(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    """A page of each colour scheme and width. Fails at the end if the browser complained, also about its policy."""
    scheme, width, height = request.param
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    seen = Seen(page)
    yield page
    context.close()
    assert seen.complaints == []
