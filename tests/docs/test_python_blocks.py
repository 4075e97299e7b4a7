"""Python blocks of the pages run as printed: one process for a page, as a reader's would be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, README, blocks, pages
from tests.printed_scripts import RunPrinted

TESTED_ELSEWHERE = {
    README: "tests/test_readme.py",
    DOCS / "contracts.md": "tests/contracts/test_contracts_guide.py",
    DOCS / "dead-letters.md": "tests/test_dead_letters_guide.py",
    DOCS / "deployment.md": "tests/test_deployment_guide.py",
    DOCS / "testing.md": "tests/testing/test_guide.py",
    DOCS / "workers.md": "tests/cli/test_targets.py",
    DOCS / "telemetry.md": "tests/telemetry/test_sdk.py",
    DOCS / "start.md": "tests/docs/test_followed_pages.py",
    DOCS / "tutorial.md": "tests/docs/test_followed_pages.py",
    DOCS / "observe.md": "tests/docs/test_followed_pages.py",
    DOCS / "wire-format.md": "tests/docs/test_wire_format.py",
}
"""Pages whose blocks belong together, with the tests that run them."""

CALLS = {
    ("events", "Emitting"): "send_invoices(redis)",
    ("events", "Correlation"): "nightly_import(redis)",
    ("letters", "Dead letters in Python"): "replay_declined_payments(redis)",
    ("letters", "Edit and replay"): "fix(redis, '1-1')",
    ("letters", "Many dead letters at once"): "replay_the_declined(redis)",
    ("inspection", "Seeing what a group is doing"): "look(redis)",
    ("inspection", "Following a request"): "follow(redis, 'web-1')",
    ("embedded", "The embedded server"): "try_it()",
    ("health", "Health, pausing and warnings"): "look(redis, EventRouter()), await maintenance(redis)",
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
    ("letters", "Edit and replay"): [
        ("XADD", "{events:all}:dlq", "1-1", *(part for pair in LETTER.items() for part in pair))
    ],
    ("health", "Health, pausing and warnings"): [("XGROUP", "CREATE", "tickets", "support", "0", "MKSTREAM")],
    ("inspection", "Seeing what a group is doing"): [
        ("XGROUP", "CREATE", "events:all", "billing", "0", "MKSTREAM"),
        *(("XADD", "events:all", "*", "n", "1"),) * 150,
        ("XREADGROUP", "GROUP", "billing", "worker-1", "COUNT", "120", "STREAMS", "events:all", ">"),
    ],
}
"""What is in Redis when a block is run, as commands."""

RUN = """
import asyncio as _asyncio
from redis.asyncio import Redis as _Redis

async def _run():
    async with _Redis.from_url({url!r}) as redis:
        for command in {before!r}:
            await redis.execute_command(*command)
        await {call}

_asyncio.run(_run())
"""

TESTED_HERE = [page for page in pages() if page not in TESTED_ELSEWHERE and blocks(page)]


@pytest.mark.parametrize("page", TESTED_HERE, ids=lambda page: page.stem)
@pytest.mark.slow
def test_blocks_of_a_page_run_as_printed(page: Path, redis_url: str, tmp_path: Path, run_printed: RunPrinted) -> None:
    script = []
    for block in blocks(page):
        key = (page.stem, block.heading)
        run = RUN.format(url=redis_url, before=BEFORE.get(key, []), call=CALLS[key]) if key in CALLS else ""
        # an error names the line of the page
        script.append(
            f"exec(compile({chr(10) * (block.line - 1) + block.text + run!r}, {str(page)!r}, 'exec'),"
            " {'__name__': 'page'})"
        )
    (tmp_path / "reader.py").write_text("\n".join(script))
    assert run_printed(tmp_path / "reader.py") == (0, "")


def test_every_block_that_is_called_or_prepared_is_there() -> None:
    there = {(page.stem, block.heading) for page in TESTED_HERE for block in blocks(page)}
    assert set(CALLS) <= there
    assert set(BEFORE) <= set(CALLS)


@pytest.mark.parametrize("page", [page for page in TESTED_ELSEWHERE if page.exists()], ids=lambda page: page.stem)
def test_a_page_with_tests_of_its_own_is_named_there(page: Path) -> None:
    assert re.search(rf"\b{page.stem}\b", Path(TESTED_ELSEWHERE[page]).read_text(encoding="utf-8"))
