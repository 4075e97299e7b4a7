"""Debian's chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, sync_playwright

__all__ = ["chromium", "log_in"]

PATIENCE_MS = 60_000


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser. Fails, and says what to install, where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        raise RuntimeError('the tests of the dashboard need a browser: run "apt-get install chromium" as root')
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def log_in(page: Page, address: str, token: str, name: str = "ann") -> None:
    """Open the dashboard, and log in by its form."""
    page.set_default_timeout(PATIENCE_MS)
    page.goto(address)
    page.get_by_label("Your name").fill(name)
    page.get_by_label("Token or password").fill(token)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="Overview").wait_for()
