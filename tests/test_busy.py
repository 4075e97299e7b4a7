"""The loops of `make test-busy` end with what started them."""

from __future__ import annotations

import asyncio

from tests.busy import LOOPS, busy
from tests.embedded.scripts import ScriptRunner, is_gone
from tests.support import eventually

OWNER = """
    import json, sys
    from tests.busy import busy

    with busy() as loops:
        print(json.dumps([loop.pid for loop in loops]), flush=True)
        sys.stdin.read()
"""


def test_busy_loops_run_as_long_as_the_block() -> None:
    with busy() as loops:
        assert [loop.poll() for loop in loops] == [None] * LOOPS
    assert all(loop.returncode for loop in loops)


async def test_kill_9_of_their_process_ends_the_loops(run_script: ScriptRunner) -> None:
    owner = run_script(OWNER)
    pids = await owner.hear()
    await asyncio.to_thread(owner.kill)
    await eventually(lambda: all(is_gone(pid) for pid in pids))
