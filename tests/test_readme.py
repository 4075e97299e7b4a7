"""README's Python blocks run as printed, each in a process of its own, as a reader's would."""

import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.printed_scripts import RunPrinted
from tests.support import eventually, free_port

README = Path(__file__).parent.parent / "README.md"
DEPENDENCIES = README.parent / "docs" / "dependencies.md"

CALLS = {
    "Emitting": "send_invoices(redis)",
    "Dead letters": "replay_declined_payments(redis)",
    "Edit and replay": "fix(redis, '1-1')",
    "Many dead letters at once": "replay_the_declined(redis)",
    "Seeing what a group is doing": "look(redis)",
    "Following a request": "follow(redis, 'web-1')",
    "Correlation": "nightly_import(redis)",
    "The embedded server": "try_it()",
    "Health, pausing and warnings": "look(redis, EventRouter()), await maintenance(redis)",
}
"""What to await after a block that only defines something to call."""

LETTER = {
    "original_msg_id": "1-0",
    "original_stream": "events:all",
    "original_group": "billing",
    "handler": "charge",
    "event_type": "order.placed",
    "data": '{"order_id":"A-17","total":"12,50"}',
}

BEFORE = {
    "Edit and replay": [("XADD", "{events:all}:dlq", "1-1", *(part for pair in LETTER.items() for part in pair))],
    "Health, pausing and warnings": [("XGROUP", "CREATE", "tickets", "support", "0", "MKSTREAM")],
    "Seeing what a group is doing": [
        ("XGROUP", "CREATE", "events:all", "billing", "0", "MKSTREAM"),
        *(("XADD", "events:all", "*", "n", "1"),) * 150,
        ("XREADGROUP", "GROUP", "billing", "worker-1", "COUNT", "120", "STREAMS", "events:all", ">"),
    ],
}
"""What is in Redis when a block is run, as commands."""

RUN = """
import asyncio
from redis.asyncio import Redis

async def _run():
    async with Redis.from_url({url!r}) as redis:
        for command in {before!r}:
            await redis.execute_command(*command)
        await {call}

asyncio.run(_run())
"""


def blocks(page: Path = README) -> list[tuple[str, str]]:
    """Each Python block with the heading it stands under."""
    parts = re.split(r"^##?#? (.+)$", page.read_text(), flags=re.MULTILINE)[1:]
    return [
        (heading, block)
        for heading, text in zip(parts[::2], parts[1::2], strict=True)
        for block in re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    ]


FIRST, *OTHERS = blocks()


def test_the_blocks_to_call_are_there() -> None:
    assert FIRST[0] == "Twenty lines"
    assert len(FIRST[1].strip().splitlines()) <= 22
    assert set(CALLS) <= {heading for heading, _ in OTHERS}


@pytest.mark.parametrize(("heading", "block"), OTHERS, ids=[heading for heading, _ in OTHERS])
@pytest.mark.slow
def test_a_block_runs_as_printed(
    heading: str, block: str, redis_url: str, tmp_path: Path, run_printed: RunPrinted
) -> None:
    script = tmp_path / "reader.py"
    run = RUN.format(url=redis_url, before=BEFORE.get(heading, []), call=CALLS[heading]) if heading in CALLS else ""
    script.write_text(block + run)
    assert run_printed(script) == (0, "")


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


@pytest.mark.slow
def test_the_blocks_about_dependencies_run_as_printed(tmp_path: Path, run_printed: RunPrinted) -> None:
    page = blocks(DEPENDENCIES)
    assert len(page) == 5
    script = tmp_path / "reader.py"
    script.write_text("\n".join(f"exec({block!r}, {{'__name__': 'page'}})" for _, block in page))
    assert run_printed(script) == (0, "")


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
    (block,) = [block for heading, block in blocks(DEPENDENCIES) if heading == "A database session"]
    script = tmp_path / "reader.py"
    script.write_text(f"from rapids.exceptions import NonRetryableError\n{block}{SHARED_BY_BOTH.format(url=redis_url)}")
    code, errors = run_printed(script, RAPIDS_REDIS_URL=redis_url)
    assert code == 0, errors


WITH_DEPENDENCIES = """
import asyncio
from redis.asyncio import Redis
from rapids.exceptions import NonRetryableError

Base.metadata.create_all(engine)

@router.on(OrderPlaced)
async def fails(event: OrderPlaced, session: SessionDep) -> None:
    session.add(Invoice(order_id="rolled back"))
    session.flush()
    raise NonRetryableError("the bank said no")

@router.on(OrderBilled)
async def notes(event: OrderBilled) -> None:
    assert event.causation_id == placed.id
    assert event.correlation_id == "web-1"
    await router.stop()

placed = OrderPlaced(order_id="o-1", correlation_id="web-1")

async def main() -> None:
    async with Redis.from_url({url!r}) as redis:
        await EventEmitter(redis).emit(placed)
        await router.start(redis)

asyncio.run(main())
with Session(engine) as session:
    assert [invoice.order_id for invoice in session.query(Invoice)] == ["o-1"]
engine.dispose()
"""


@pytest.mark.slow
def test_a_session_of_a_handler_commits_or_rolls_back(redis_url: str, tmp_path: Path, run_printed: RunPrinted) -> None:
    (block,) = [block for heading, block in OTHERS if heading == "Dependencies"]
    script = tmp_path / "reader.py"
    script.write_text(block + WITH_DEPENDENCIES.format(url=redis_url))
    code, errors = run_printed(script)
    assert code == 0, errors


@pytest.mark.slow
def test_events_go_out_after_the_commit_of_a_session(redis_url: str, tmp_path: Path, run_printed: RunPrinted) -> None:
    (block,) = [block for heading, block in OTHERS if heading == "With a database session"]
    script = tmp_path / "reader.py"
    script.write_text(block + WITH_A_SESSION.format(url=redis_url))
    assert run_printed(script, RAPIDS_REDIS_URL=redis_url) == (0, "")


@pytest.mark.smoke
@pytest.mark.slow
async def test_the_twenty_lines_take_an_order_and_charge_it(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(FIRST[1])
    port = free_port()
    command = [sys.executable, "-u", "-m", "uvicorn", "main:app", "--port", str(port)]
    with (tmp_path / "output").open("w+") as output:
        server = subprocess.Popen(command, cwd=tmp_path, stdout=output, stderr=subprocess.STDOUT)
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                await eventually(lambda: _answers(client))
                placed = await client.post("/orders/A-1", params={"total": 12.5})
            assert placed.status_code == 202
            assert placed.headers["X-Correlation-ID"]
            await eventually(lambda: "charging 12.5 for A-1" in (tmp_path / "output").read_text())
        finally:
            server.terminate()
            assert server.wait(timeout=60) in (0, -15)


async def _answers(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/rapids/health/live")).status_code == 200
    except httpx.TransportError:
        return False
