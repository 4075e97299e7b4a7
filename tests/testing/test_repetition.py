"""`--rapids-twice` and `--rapids-crash`: what they report of handlers that are not idempotent, in runs of pytest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.testing.pytest_run import run_pytest

pytestmark = pytest.mark.slow

SHOP = """
from uuid import NAMESPACE_OID, uuid5
from rapids import BaseEvent, EventEmitter, EventRouter, current_delivery

class CakeOrdered(BaseEvent):
    cake: str

class CakeBaked(BaseEvent):
    cake: str

baked, counted, seen = set(), [], []
router = EventRouter(stream="cakes", group="bakery", max_deliveries=1, block_ms=100)

@router.on(CakeOrdered)
async def good(event: CakeOrdered, emitter: EventEmitter) -> None:
    seen.append(current_delivery().deliveries)
    baked.add(event.cake)
    await emitter.emit(CakeBaked(id=str(uuid5(NAMESPACE_OID, event.id)), cake=event.cake))

@router.on(CakeOrdered)
async def emits_again(event: CakeOrdered, emitter: EventEmitter) -> None:
    if event.cake == "lemon":
        await emitter.emit(CakeBaked(cake="another"))

@router.on(CakeOrdered)
async def fails_again(event: CakeOrdered) -> None:
    if event.cake == "plum" and event.id in counted:
        raise KeyError("twice")
    counted.append(event.id)

@router.on(CakeOrdered)
async def fails_anyway(event: CakeOrdered) -> None:
    if event.cake == "burnt":
        raise ValueError("burnt")
"""

DELIVER = """
from rapids.testing import RecordingEmitter, deliver
from shop import *

async def ordered(cake, **options):
    return await deliver(router, CakeOrdered(cake=cake), **options)

async def test_good():
    outcomes = await ordered("apple", probe=lambda: sorted(baked))
    outcomes.done()
    outcomes.emitter.only(CakeBaked)

async def test_dead_ones_are_not_repeated():
    (await ordered("burnt")).dead("fails_anyway", ValueError)

async def test_emits_again():
    await ordered("lemon")

async def test_fails_again():
    await ordered("plum")

async def test_changes_the_state_again():
    async def probe():
        return len(counted)
    await ordered("apple", probe=probe)
"""

TRACKED = """
from fastapi import FastAPI
from fastapi.testclient import TestClient
from rapids.testing import tracked
from rapids_fastapi import EmitterDep, Rapids
from shop import *

async def test_good(rapids_url):
    seen.clear()
    async with tracked(router, redis=rapids_url, probe=lambda: sorted(baked)) as t:
        await t.emit(CakeOrdered(cake="apple"))
        await t.settled()
        t.only(CakeOrdered)
        t.only(CakeBaked)
        t.all_handled()
        await t.settled()
        assert len(t.events) == 2
    print("deliveries", seen)

async def test_bad(rapids_url):
    async with tracked(router, redis=rapids_url, probe=lambda: len(counted)) as t:
        await t.emit([CakeOrdered(cake="lemon"), CakeOrdered(cake="plum"), CakeOrdered(cake="burnt")])
        await t.settled()

app = FastAPI(lifespan=Rapids(routers=[router]).lifespan)

@app.post("/cakes/{cake}")
async def order(cake: str, emitter: EmitterDep) -> str:
    return await emitter.emit(CakeOrdered(cake=cake))

def test_plain(rapids_environment):
    with TestClient(app) as client, tracked(app) as t:
        client.post("/cakes/lemon")
        t.settled()
"""

CHAIN = """
from rapids import BaseEvent, EventEmitter, EventRouter
from rapids.testing import tracked

class LetterWritten(BaseEvent):
    to: str

class LetterPosted(BaseEvent):
    to: str

class LetterRead(BaseEvent):
    to: str

clerks = EventRouter(stream="post", group="clerks", block_ms=100)
couriers = EventRouter(stream="post", group="couriers", max_deliveries=1, block_ms=100)
posted = []

@clerks.on(LetterWritten)
async def write(event: LetterWritten, emitter: EventEmitter) -> None:
    await emitter.emit(LetterPosted(id="posted-" + event.id, to=event.to))

@couriers.on(LetterPosted)
async def carry(event: LetterPosted, emitter: EventEmitter) -> None:
    if event.to == "nobody" or (event.to == "ada" and event.id in posted):
        raise ConnectionError("no such address")
    posted.append(event.id)
    if event.to == "bob":
        await emitter.emit(LetterRead(to=event.to))

async def sent(to, url, dead_letters=True):
    async with tracked([clerks, couriers], redis=url, dead_letters=dead_letters) as t:
        await t.emit(LetterWritten(to=to))
        await t.settled()
        return len(t.dead_letters), len(t.parked)

async def test_parked_before(rapids_url):
    assert await sent("nobody", rapids_url, dead_letters=False) == (0, 1)

async def test_parked_later(rapids_url):
    await sent("ada", rapids_url, dead_letters=False)

async def test_dead_before(rapids_url):
    assert await sent("nobody", rapids_url) == (1, 0)

async def test_dead_later(rapids_url):
    await sent("ada", rapids_url)

async def test_emits_again(rapids_url):
    await sent("bob", rapids_url)
"""

SAID = {
    "twice": "--rapids-twice: {} was delivered twice, and the second time was not without effect:",
    "crash": "--rapids-crash: {} was delivered again, as after a crash between the effects of its handlers and the "
    "acknowledgement, and the second time was not without effect:",
}


@pytest.mark.parametrize("how", ["twice", "crash"])
def test_handlers_that_are_not_idempotent_fail_the_tests_of_their_team(how: str, tmp_path: Path) -> None:
    files = {"shop.py": SHOP, "test_deliver.py": DELIVER, "test_tracked.py": TRACKED}
    ran = run_pytest(tmp_path, files, f"--rapids-{how}", "--tb=short", "-rP")
    assert ran.outcomes == {"failed": 5, "passed": 3}, ran.output
    said = [line.removeprefix("E   ").strip() for line in ran.output.splitlines() if line.startswith("E   ")]
    of_one = "AssertionError: " + SAID[how].format("'cake.ordered' (group 'bakery' on stream 'cakes')")
    of_all = "AssertionError: " + SAID[how].format("each event")
    assert said[:6] == [
        of_one,
        "emits_again: emitted once more, with another id: CakeBaked(cake='another')",
        of_one,
        "fails_again: raised KeyError: 'twice'",
        of_one,
        "fails_again: changed the state again: 8 became 9",
    ], ran.output
    handlers = "good (bakery) or emits_again (bakery) or fails_again (bakery) or fails_anyway (bakery)"
    assert said[6] == of_all
    assert (
        f"{handlers}, on CakeOrdered(cake='lemon'): emitted once more, with another id: CakeBaked(cake='another')"
        in said
    )
    assert "fails_again (bakery), on CakeOrdered(cake='plum'): raised KeyError: 'twice'" in said
    assert not any("burnt" in line for line in said)
    assert f"deliveries {[1, 2] if how == 'crash' else [1, 1]}" in ran.output


@pytest.mark.parametrize("how", ["twice", "crash"])
def test_in_a_chain_the_event_is_named_whose_handler_it_was(how: str, tmp_path: Path) -> None:
    ran = run_pytest(tmp_path, {"test_chain.py": CHAIN}, f"--rapids-{how}", "--tb=short")
    assert ran.outcomes == {"failed": 3, "passed": 2}, ran.output
    said = [line.removeprefix("E   ").strip() for line in ran.output.splitlines() if line.startswith("E   ")]
    first = "AssertionError: " + SAID[how].format("each event")
    failed = "carry (couriers), on LetterPosted(to='ada'): raised ConnectionError: no such address"
    again = "carry (couriers), on LetterPosted(to='bob'): emitted once more, with another id: LetterRead(to='bob')"
    assert said == [first, failed, first, failed, first, again], "of a parked entry, of a letter, of an event"


def test_both_options_at_once_are_refused(tmp_path: Path) -> None:
    both = run_pytest(tmp_path, {}, "--rapids-twice", "--rapids-crash")
    assert both.code == pytest.ExitCode.USAGE_ERROR
    assert "--rapids-twice and --rapids-crash cannot be combined" in both.output
