"""README's code runs as printed, as a reader's would, and README stays a page."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, README, blocks
from tests.docs.reader import Reader
from tests.printed_scripts import RunPrinted

BY_HEADING = {block.heading: block.text for block in blocks(README)}


def test_readme_is_a_page() -> None:
    assert len(README.read_text().splitlines()) <= 220
    assert list(BY_HEADING) == ["Twenty lines", "A handler that emits, with a session", "Testing"]
    assert len(BY_HEADING["Twenty lines"].strip().splitlines()) <= 22


def test_the_table_of_failures_is_that_of_the_page() -> None:
    table = re.compile(r"^\| what happens \|.*?\n\n", re.M | re.S)
    [here], [there] = (table.findall(page.read_text()) for page in (README, DOCS / "failures.md"))
    assert here == there


@pytest.mark.smoke
@pytest.mark.slow
def test_the_twenty_lines_take_an_order_and_charge_it(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(BY_HEADING["Twenty lines"])
    with Reader(tmp_path) as reader:
        reader.follow(README, "Twenty lines")


@pytest.mark.slow
def test_the_test_of_the_example_passes(tmp_path: Path, run_printed: RunPrinted) -> None:
    assert run_printed(saved(BY_HEADING["Testing"], tmp_path)) == (0, "")


def saved(text: str, folder: Path) -> Path:
    (folder / "reader.py").write_text(text)
    return folder / "reader.py"


WITH_A_SESSION = """
from fastapi.testclient import TestClient
from redis import Redis
from sqlalchemy import event

Base.metadata.create_all(engine)
at_commit = []
redis = Redis.from_url({url!r}, decode_responses=True)
event.listen(engine, "commit", lambda connection: at_commit.append(redis.xlen("events:all")))

with TestClient(app, raise_server_exceptions=False) as client:
    assert client.post("/tickets?subject=printer").status_code == 202
    assert at_commit == [0]
    (entry,) = redis.xrange("events:all")
    assert '"ticket_id":1' in entry[1]["data"]

    @event.listens_for(Session, "before_commit")
    def fail(session):
        raise RuntimeError("the disk is full")

    assert client.post("/tickets?subject=printer").status_code == 500
    assert redis.xlen("events:all") == 1
redis.close()
engine.dispose()
"""


SHARED_BY_BOTH = """
import asyncio
from fastapi.testclient import TestClient
from rapids.testing import tracked
from redis import Redis
from sqlalchemy import event, select

async def create_tables() -> None:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await engine.dispose()

async def orders_in_the_database() -> list[tuple[str, str]]:
    async with sessions() as session:
        return [(order.id, order.state) for order in await session.scalars(select(Order))]

asyncio.run(create_tables())
redis = Redis.from_url({url!r})
at_commit = []

@event.listens_for(engine.sync_engine, "commit")
def note(connection):
    pending = [one["pending"] for one in redis.xinfo_groups("orders")] if redis.exists("orders") else []
    at_commit.append((redis.xlen("orders"), pending))

@router.on(OrderPaid)
async def fail(event: OrderPaid, session: SessionDep) -> None:
    session.add(Order(id="rolled back", state="failed"))
    await session.flush()
    raise NonRetryableError("no")

with TestClient(app) as client, tracked(app) as t:
    at_commit.clear()
    assert client.post("/orders/o-1").status_code == 202
    t.settled()
    assert t.only(OrderPaid).causation_id == t.only(OrderPlaced).id
    assert [letter.handler for letter in t.dead_letters] == ["fail"]
    assert client.portal.call(orders_in_the_database) == [("o-1", "paid")]

# The endpoint's commit came before its event was emitted, the handler's before the entry was acknowledged, and before
# its own event was emitted.
assert at_commit == [(0, [0]), (1, [1])], at_commit
redis.close()
"""


@pytest.mark.slow
def test_one_async_session_serves_endpoints_and_handlers(
    redis_url: str, tmp_path: Path, run_printed: RunPrinted
) -> None:
    [block] = [block.text for block in blocks(DOCS / "dependencies.md") if block.heading == "A database session"]
    text = f"from rapids.exceptions import NonRetryableError\n{block}{SHARED_BY_BOTH.format(url=redis_url)}"
    code, errors = run_printed(saved(text, tmp_path), RAPIDS_REDIS_URL=redis_url)
    assert code == 0, errors


WITH_DEPENDENCIES = """
import asyncio
from rapids.exceptions import NonRetryableError
from rapids.testing import tracked

Base.metadata.create_all(engine)

@router.on(OrderPlaced)
async def fails(event: OrderPlaced, session: SessionDep) -> None:
    session.add(Invoice(order_id="rolled back"))
    session.flush()
    raise NonRetryableError("the bank said no")

placed = OrderPlaced(order_id="o-1", correlation_id="web-1")

async def main() -> None:
    async with tracked(router, redis={url!r}) as t:
        await t.emit(placed)
        await t.settled()
    billed = t.only(OrderBilled)
    assert (billed.causation_id, billed.correlation_id) == (placed.id, "web-1")
    assert [letter.handler for letter in t.dead_letters] == ["fails"]

asyncio.run(main())
with Session(engine) as session:
    assert [invoice.order_id for invoice in session.query(Invoice)] == ["o-1"]
engine.dispose()
"""


@pytest.mark.slow
def test_a_session_of_a_handler_commits_or_rolls_back(redis_url: str, tmp_path: Path, run_printed: RunPrinted) -> None:
    block = BY_HEADING["A handler that emits, with a session"]
    code, errors = run_printed(saved(block + WITH_DEPENDENCIES.format(url=redis_url), tmp_path))
    assert code == 0, errors


@pytest.mark.slow
def test_events_go_out_after_the_commit_of_a_session(redis_url: str, tmp_path: Path, run_printed: RunPrinted) -> None:
    [block] = [block.text for block in blocks(DOCS / "fastapi.md") if block.heading == "With a database session"]
    script = saved(block + WITH_A_SESSION.format(url=redis_url), tmp_path)
    assert run_printed(script, RAPIDS_REDIS_URL=redis_url) == (0, "")
