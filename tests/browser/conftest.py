"""Fixtures: a browser for all tests of the run, and for each test a shop with failures behind a path prefix."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page

from tests.browser.chrome import chromium, log_in
from tests.browser.shop import TOKEN, Shop, at_prefix
from tests.fastapi.helpers import until
from tests.fastapi.served_admin import serving

PREFIX = "/ops/shop"
ORDERS = 30
LETTERS = 24
"""How many dead letters the shop has at least when a test begins."""


class Served:
    """A shop that is served behind a proxy that removes a prefix."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self._running = ExitStack()
        self._port = 0
        self.start()

    @property
    def dashboard(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._port}{PREFIX}/rapids/"

    def start(self) -> None:
        """Start it, or start it again at the same address."""
        app: Any = at_prefix(self.shop.app, PREFIX)
        self._port = urlsplit(self._running.enter_context(serving(app, self._port))).port or 0

    def stop(self) -> None:
        """Stop it."""
        self._running.close()


@pytest.fixture
def served(redis_url: str) -> Iterator[Served]:
    """A shop with dead letters of several causes."""
    logging.getLogger("rapids").setLevel(logging.CRITICAL)
    served = Served(Shop(redis_url))
    shop = served.shop
    try:
        shop.run(shop.sell(ORDERS))
        shop.run(shop.be_attacked())
        until(lambda: shop.run(shop.letters()) >= LETTERS)
        yield served
    finally:
        served.stop()
        logging.getLogger("rapids").setLevel(logging.NOTSET)


@pytest.fixture
def browser(served: Served) -> Iterator[Browser]:
    """Chromium. It is started after the servers, which run event loops in this thread, as Playwright does then."""
    with chromium() as browser:
        yield browser


class Complaints:
    """What the browser complained about."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.may_be_away = False
        """Whether the service may be away: a browser prints each request without an answer."""

    def listen(self, page: Page) -> None:
        """To what this page's browser prints."""
        page.on("pageerror", lambda error: self.heard.append(str(error)))
        page.on("console", self._hear)

    def _hear(self, message: ConsoleMessage) -> None:
        # The first request asks whether there is a session: its 401 is no fault, and browsers print it.
        is_asked = "Failed to load resource" in message.text and "401" in message.text
        is_away = self.may_be_away and "net::ERR_" in message.text
        if message.type in ("error", "warning") and not is_asked and not is_away:
            self.heard.append(_about(message))


def _about(message: ConsoleMessage) -> str:
    return f"{message.text} {message.location.get('url', '')}"


@pytest.fixture
def complaints() -> Complaints:
    """What the browser of `page` complains about."""
    return Complaints()


@pytest.fixture(params=[("light", 1440, 900), ("dark", 390, 844)], ids=["wide-light", "narrow-dark"])
def page(request: pytest.FixtureRequest, browser: Browser, complaints: Complaints) -> Iterator[Page]:
    """A page of each colour scheme and width. Fails at the end if the browser complained, also about its policy."""
    scheme, width, height = request.param
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    complaints.listen(page)
    yield page
    context.close()
    assert complaints.heard == []


@pytest.fixture
def dashboard(page: Page, served: Served) -> Page:
    """The dashboard, after a login by its form."""
    log_in(page, served.dashboard, TOKEN)
    return page
