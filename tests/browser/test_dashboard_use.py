"""What somebody on call does with the dashboard: by mouse and by keyboard, behind a proxy, in both colour schemes."""

from __future__ import annotations

import re
import tarfile
import tempfile
from functools import cache
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.chrome import log_in
from tests.browser.conftest import Served
from tests.browser.shop import DLQ, HOSTILE, TOKEN
from tests.fastapi.helpers import until
from tests.house.vendored import npm_package

pytestmark = [pytest.mark.slow]

MANY = 5_000
AXE = "axe-core@4.14.1"
expect.set_options(timeout=60_000)


def test_repair_by_mouse(dashboard: Page, served: Served) -> None:
    """Find the cause, read the traceback, edit and replay one letter, replay all, undo a discard, trace, pause."""
    page, shop = dashboard, served.shop
    shop.run(shop.fail_again("ship_order", MANY))
    expect(page.get_by_role("img", name=re.compile("^Failures, each minute: in the last hour "))).to_be_visible()
    expect(page.locator(".chart canvas")).to_have_count(2)
    page.get_by_role("link", name=re.compile("^Dead letters")).click()
    page.get_by_role("link", name=re.compile("CourierTimeoutError")).first.click()
    expect(page.get_by_role("button", name=re.compile(r"^Replay all \d+"))).to_be_enabled()
    page.get_by_role("link", name="ship_order", exact=True).first.click()
    expect(page.get_by_role("heading", name=re.compile("CourierTimeoutError"))).to_be_visible()
    expect(page.get_by_text("_book", exact=True).first).to_be_visible()

    shop.courier_answers = True
    page.get_by_role("button", name="Edit and replay…").click()
    area = page.get_by_label(re.compile("^Data of"))
    text = area.input_value()
    area.fill(text.replace('"amount": "', '"amount": "-'))
    expect(page.locator(".editor-note")).to_contain_text("/amount")
    expect(page.get_by_role("button", name="Replay with these data")).to_be_disabled()
    area.fill(text.replace('"pay-', '"paid-'))
    expect(page.locator(".diff ins")).to_contain_text("paid-")
    page.get_by_role("button", name="Replay with these data").click()
    expect(page.get_by_text("handled").first).to_be_visible()

    page.go_back()
    shop.courier_answers = False
    page.get_by_role("button", name=re.compile(r"^Replay all \d+")).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Rate").select_option("10")
    dialog.get_by_label(re.compile("^Reason")).fill("the courier is back")
    dialog.get_by_role("button", name=re.compile(r"^Replay [\d,]+ letters$")).click()
    expect(page.get_by_role("heading", name=re.compile("^Replay of"))).to_be_visible()
    page.get_by_role("button", name="Pause").click()
    expect(page.locator(".state", has_text="paused")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("button", name=re.compile("^Cancel, leave")).click()
    expect(page.locator(".state", has_text="cancelled")).to_be_visible()

    page.goto(f"{served.dashboard}#/letters?handler=ship_order")
    shop.courier_answers = True
    page.get_by_role("button", name=re.compile(r"^Replay all 5,\d+")).click()
    dialog.get_by_label("Rate").select_option("1000")
    dialog.get_by_role("button", name=re.compile(r"^Replay 5,\d+ letters$")).click()
    bar = page.get_by_role("progressbar")
    seen = {until(lambda: bar.get_attribute("aria-valuenow"))}
    while not page.locator(".state", has_text="completed").count():
        seen.add(bar.get_attribute("aria-valuenow"))
    assert len(seen) > 3, f"the bar did not move: {seen}"
    assert shop.run(shop.letters()) < MANY

    before = shop.run(shop.letters())
    page.get_by_role("link", name=re.compile("^Dead letters")).click()
    page.get_by_role("link", name="send_receipt", exact=True).first.click()
    page.get_by_role("button", name="Discard").click()
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("Restored.")).to_be_visible()
    until(lambda: shop.run(shop.letters()) >= before)

    page.get_by_role("link", name=re.compile(r"^web-\d+")).first.click()
    expect(page.get_by_text("order.placed").first).to_be_visible()
    expect(page.locator(".trace-line rect.letter").first).to_be_visible()

    page.get_by_role("link", name="Groups", exact=True).click()
    page.get_by_role("link", name="search", exact=True).click()
    expect(page.locator(".finding", has_text="for another try of index_order")).to_be_visible()
    expect(page.locator("table.pending")).to_contain_text("index_order RetryAfter")
    page.get_by_role("button", name="Parked").click()
    expect(page.get_by_text("Nothing is pending here.")).to_be_visible()
    page.locator(".crumbs").get_by_role("link", name="Groups").click()
    page.get_by_role("link", name="mail", exact=True).click()
    page.get_by_role("button", name="Pause…").click()
    page.get_by_label("Reason").fill("templates are being repaired")
    page.get_by_role("button", name="Pause mail").click()
    expect(page.get_by_text("templates are being repaired")).to_be_visible()
    page.get_by_role("button", name="Resume…").click()
    page.get_by_role("button", name="Resume mail").click()
    expect(page.get_by_text("templates are being repaired")).to_be_hidden()


def test_repair_by_keyboard(dashboard: Page, served: Served) -> None:
    page, shop = dashboard, served.shop
    shop.courier_answers = True
    page.keyboard.press("l")
    expect(page.get_by_role("heading", name="Dead letters", exact=True)).to_be_visible()
    page.locator("table.letters").wait_for()
    page.keyboard.press("/")
    page.keyboard.type("handler:ship")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("handler=ship_order"))
    expect(page.get_by_role("link", name="ship_order", exact=True).first).to_be_visible()
    expect(page.locator("table.letters .name", has_text="send_receipt")).to_have_count(0)
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=re.compile("CourierTimeoutError"))).to_be_visible()
    page.keyboard.press("r")
    expect(page.locator(".state", has_text="handled")).to_be_visible()
    page.keyboard.press("u")
    expect(page.get_by_role("button", name=re.compile(r"^Replay all \d+"))).to_be_enabled()
    page.keyboard.press("r")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("Show the keys")
    page.keyboard.press("Escape")
    page.keyboard.press("a")
    expect(page.get_by_text("letter replayed").first).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type("actor:ann action:letter_d")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"#/audit\?actor=ann&action=letter_discarded$"))
    expect(page.get_by_text("No change matches")).to_be_visible()
    page.reload()
    expect(page.get_by_role("button", name="Remove action")).to_be_visible()
    page.get_by_role("button", name="Remove action").click()
    expect(page.get_by_text("letter replayed").first).to_be_visible()


def test_a_canary_stops_by_itself(dashboard: Page, served: Served) -> None:
    """Nothing was repaired, so that the first letter fails again. Then a discarded letter returns from the archive."""
    page, shop = dashboard, served.shop
    page.goto(f"{served.dashboard}#/letters?handler=ship_order")
    page.get_by_role("button", name=re.compile(r"^Replay all \d+")).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label(re.compile("^Canary")).check()
    dialog.get_by_role("button", name=re.compile(r"^Replay \d+ letters$")).click()
    expect(page.get_by_text("It has stopped:")).to_be_visible()
    expect(page.locator(".state", has_text="paused")).to_be_visible()
    expect(page.get_by_role("heading", name=re.compile("^What failed again"))).to_be_visible()
    page.get_by_role("button", name=re.compile("^Cancel, leave")).click()
    expect(page.locator(".state", has_text="cancelled")).to_be_visible()

    before = shop.run(shop.letters())
    page.goto(f"{served.dashboard}#/letters?handler=take_payment")
    page.get_by_role("link", name="take_payment", exact=True).first.click()
    page.get_by_role("button", name="Discard").click()
    expect(page.locator(".state", has_text="discarded")).to_be_visible()
    page.goto(f"{served.dashboard}#/archive?state=discarded")
    page.get_by_role("button", name="Restore").click()
    expect(page.get_by_text("Restored: it is a dead letter again.")).to_be_visible()
    until(lambda: shop.run(shop.letters()) >= before)


def test_entries_are_found_by_time_and_id(dashboard: Page, served: Served) -> None:
    page = dashboard
    page.keyboard.press("g")
    page.get_by_role("link", name="Entries", exact=True).click()
    rows = page.locator("table.entries tbody tr")
    expect(rows).not_to_have_count(0)
    page.get_by_role("button", name="Oldest first").click()
    expect(page).to_have_url(re.compile("order=oldest"))
    expect(rows.first).to_contain_text("order.placed")
    first = rows.first.locator(".under").inner_text()
    page.keyboard.press("/")
    page.keyboard.type("since:1d")
    page.keyboard.press("Enter")
    expect(page.locator(".chip")).to_contain_text("since")
    expect(rows.first.locator(".under")).to_have_text(first)
    rows.first.get_by_role("link", name="order.placed").click()
    expect(page.locator(".tree").first).to_contain_text("customer")
    expect(page.locator(".facts")).to_contain_text(first)
    page.get_by_role("link", name="earlier entries").click()
    expect(rows).to_have_count(1)
    expect(rows.first.locator(".under")).to_have_text(first)


def test_hostile_texts_stay_texts_and_numbers_keep_their_digits(dashboard: Page, served: Served) -> None:
    page = dashboard
    page.goto(f"{served.dashboard}#/letters?handler=index_order")
    page.get_by_role("link", name="index_order", exact=True).first.click()
    expect(page.locator(".error-text")).to_have_text(HOSTILE)
    expect(page.locator(".tree").first).to_contain_text(HOSTILE)
    expect(page.locator(".tree").first).to_contain_text("9007199254830993")
    page.keyboard.press("e")
    area = page.get_by_label(re.compile("^Data of"))
    area.fill(area.input_value().replace("9007199254830993", "9007199254830995"))
    expect(page.locator(".diff del")).to_have_text("9007199254830993")
    expect(page.locator(".diff ins")).to_have_text("9007199254830995")
    expect(page.get_by_text("Its class accepts this.")).to_be_visible()
    assert page.title() != "taken"
    assert page.locator("main img, main script").count() == 0


def test_a_session_ends_everywhere(dashboard: Page, served: Served) -> None:
    page = dashboard
    [cookie] = page.context.cookies()
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    assert cookie["path"] == "/ops/shop/rapids/api"
    other = page.context.new_page()
    other.goto(served.dashboard)
    expect(other.get_by_role("heading", name="Overview")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("button", name="Log in")).to_be_visible()
    other.reload()
    expect(other.get_by_role("button", name="Log in")).to_be_visible()


def test_a_link_logs_in_once(page: Page, served: Served) -> None:
    """The address does not keep its code. A second use says what happened, and the form still works."""
    page.set_default_timeout(60_000)
    code = served.shop.run(served.shop.offer())
    page.goto(f"{served.dashboard}#login={code}")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    assert code not in page.url
    page.goto(f"{served.dashboard}#login={code}")  # the same page: only the fragment changes
    expect(page).to_have_url(f"{served.dashboard}#/")
    page.get_by_role("button", name="Log out").click()
    page.goto(f"{served.dashboard}#login={code}")
    expect(page.get_by_role("alert")).to_contain_text("This link was used already")
    log_in(page, served.dashboard, TOKEN)


@pytest.mark.smoke
def test_axe_finds_nothing_serious(dashboard: Page, served: Served) -> None:
    page = dashboard
    letter = page.request.get(f"{served.dashboard}api/dead-letters").json()["items"][0]["id"]
    found = {}
    places = [
        "overview",
        "letters",
        f"letters/{letter}",
        "operations",
        "groups",
        "entries",
        "trace?id=web-4",
        "catalog",
        "audit",
    ]
    for place in (*places, f"groups?stream=shop%3Aorders&group=mail&dlq={DLQ}"):
        page.goto(f"{served.dashboard}#/{place}")
        page.locator("main h1").first.wait_for()
        page.locator(".loading").first.wait_for(state="hidden")
        page.evaluate(axe())
        serious = page.evaluate(
            "axe.run().then(({violations}) => violations.filter(one => ['serious', 'critical'].includes(one.impact))"
            ".map(one => [one.id, one.nodes.slice(0, 3).map(node => node.html)]))"
        )
        if serious:
            found[place] = serious
    assert found == {}


@cache
def axe() -> str:
    """The source of axe, from the npm registry."""
    with tempfile.TemporaryDirectory() as folder, tarfile.open(npm_package(AXE, Path(folder))) as archive:
        source = archive.extractfile("package/axe.min.js")
        assert source is not None
        return source.read().decode()
