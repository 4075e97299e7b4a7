"""The pytest plug-in, in runs of pytest as users have them: nothing happens unless it is used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.testing.pytest_run import run_pytest

UNRELATED = """
import sys

def test_nothing_of_rapids_is_imported(pytestconfig):
    assert pytestconfig.pluginmanager.has_plugin("rapids_pytest")
    assert not {"rapids", "redis", "pydantic", "fastapi"} & set(sys.modules)
"""

PLAIN = "[pytest]\nfilterwarnings = error\n"

FIXTURES = """
import os
from redis import Redis
from rapids import BaseEvent
from rapids.clients import open_client

class BellRung(BaseEvent):
    pass

SERVERS = set()

def the_server_is_empty(url):
    SERVERS.add(url)
    with Redis.from_url(url) as redis:
        assert redis.keys() == []
        redis.set("left by", "a test")

def test_the_first_test_has_an_empty_server(rapids_url):
    the_server_is_empty(rapids_url)
    assert "RAPIDS_REDIS_URL" not in os.environ

def test_so_has_the_next_one(rapids_environment):
    the_server_is_empty(rapids_environment)
    assert os.environ["RAPIDS_REDIS_URL"] == rapids_environment
    assert len(SERVERS) == 1

async def test_async_tests_use_it_too(rapids_url):
    async with open_client(rapids_url) as redis:
        assert await redis.ping()

async def test_the_emitter_is_new(rapids_emitter):
    rapids_emitter.nothing()
    await rapids_emitter.emit(BellRung())

async def test_for_each_test(rapids_emitter):
    rapids_emitter.nothing()
"""


@pytest.mark.slow
@pytest.mark.smoke
def test_a_project_without_rapids_notices_nothing(tmp_path: Path) -> None:
    plain = run_pytest(tmp_path, {"test_unrelated.py": UNRELATED}, "-p", "no:asyncio", ini=PLAIN)
    assert plain.outcomes == {"passed": 1}, plain.output


@pytest.mark.slow
def test_fixtures_give_each_test_an_empty_server_and_a_new_emitter(tmp_path: Path) -> None:
    ran = run_pytest(tmp_path, {"test_fixtures.py": FIXTURES})
    assert ran.outcomes == {"passed": 5}, ran.output


ANYIO = """
import pytest
from rapids import BaseEvent, EventRouter
from rapids.testing import deliver, tracked

pytestmark = pytest.mark.anyio

class BellRung(BaseEvent):
    pass

router = EventRouter(stream="bells", block_ms=100)

@router.on(BellRung)
async def hear(event: BellRung) -> None:
    pass

@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.fixture
async def t(rapids_url):
    async with tracked(router, redis=rapids_url) as t:
        yield t

async def test_one_event():
    (await deliver(router, BellRung())).done("hear")

async def test_with_a_fixture_that_tracks(t):
    await t.emit(BellRung())
    await t.settled()
    t.only(BellRung)

async def test_in_the_test_itself(rapids_environment):
    async with tracked(router) as t:
        await t.emit(BellRung())
        await t.settled()
        t.all_handled()
"""


@pytest.mark.slow
def test_the_plug_in_of_anyio_and_workers_of_xdist_run_such_tests(tmp_path: Path) -> None:
    options = ("-p", "no:asyncio", "-n", "2", "--rapids-twice")
    ran = run_pytest(tmp_path, {"test_anyio.py": ANYIO}, *options, ini=PLAIN)
    assert ran.outcomes == {"passed": 3}, ran.output


FAILURES = """
import pytest
from rapids import BaseEvent, EventEmitter, EventRouter
from rapids.testing import RecordingEmitter, deliver, tracked

class GateOpened(BaseEvent):
    pass

class GateSeen(BaseEvent):
    pass

router = EventRouter(stream="gates", group="guards", max_deliveries=1, block_ms=100)

@router.on(GateOpened)
async def look(event: GateOpened, emitter: EventEmitter) -> None:
    await emitter.emit(GateSeen())

async def test_recorded():
    RecordingEmitter().only(GateOpened)  # HERE

async def test_wrong():
    RecordingEmitter().nothing(GateOpened, colour="red")  # HERE

async def test_outcomes():
    (await deliver(router, GateOpened())).dead("look")  # HERE

async def test_delivered_twice():
    await deliver(router, GateOpened())  # HERE

def test_plain(rapids_url):
    with tracked(router, redis=rapids_url) as t:
        t.settled()
        t.all_handled()  # HERE

def test_plain_early(rapids_url):
    with tracked(router, redis=rapids_url) as t:
        t.emit(GateOpened())
        t.only(GateOpened)  # HERE

def test_plain_unsettled(rapids_url):
    with tracked(router, redis=rapids_url) as t:
        t.emit(GateOpened())
        t.settled()  # HERE

async def test_async_unsettled(rapids_url):
    async with tracked(router, redis=rapids_url) as t:
        await t.emit(GateOpened())
        await t.settled()  # HERE

def test_probe(rapids_url):
    def probe():
        raise AssertionError("of the probe")  # HERE
    with tracked(router, redis=rapids_url, probe=probe) as t:
        t.emit(GateOpened())
        t.settled()
"""


@pytest.mark.slow
def test_a_failed_assertion_shows_the_line_of_the_test_and_none_of_the_library(tmp_path: Path) -> None:
    ran = run_pytest(tmp_path, {"test_gates.py": FAILURES}, "--rapids-twice", "--tb=short", "--show-capture=no")
    assert ran.outcomes == {"failed": FAILURES.count("# HERE")}, ran.output
    own = [number for number, line in enumerate(FAILURES.splitlines(), start=1) if line.endswith("# HERE")]
    by_test = ran.output[: ran.output.index("test_probe __")]
    assert [int(number) for number in re.findall(r"^test_gates\.py:(\d+): in", by_test, re.MULTILINE)] == own[:-1]
    assert f"test_gates.py:{own[-1]}: in probe" in ran.output
    assert not re.search(r"rapids/testing/|anyio|concurrent", by_test), ran.output
