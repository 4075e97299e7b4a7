"""`rapids dlq replay --canary`: its steps are shown, it stops with both errors, and continues as a person decides."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rapids import DeadLetterQueue, NonRetryableError
from tests.cli.helpers import Command
from tests.dead_letters.helpers import write_through_script
from tests.servers.client import connected
from tests.worker.helpers import DLQ, STREAM, DvOrder, make_router

SECRET = "hunter2-secret"


@contextmanager
def refused_by_a_router(url: str) -> Iterator[None]:
    """A router in a thread of its own, whose handler fails for good, and quotes what is hidden."""
    started, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        async with connected(url) as redis:
            router = make_router(redis)

            @router.on(DvOrder, name="pay")
            async def pay(event: DvOrder) -> None:
                raise NonRetryableError(f"no \x1b[1mcard for {SECRET}")

            serving = asyncio.create_task(router.start())
            await router.wait_started()
            started.set()
            await asyncio.to_thread(stop.wait)
            await router.stop()
            await serving

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert started.wait(60)
        yield
    finally:
        stop.set()
        thread.join()


async def seed(redis: Any) -> list[str]:
    hidden = {b"metadata": b'{"password": "%s"}' % SECRET.encode()}
    return await write_through_script(redis, 8, handler="pay", error=f"declined {SECRET}", fields=hidden)


def test_a_canary_stops_shows_both_errors_and_continues_as_a_person_decides(rapids: Command) -> None:
    ids = rapids.redis(seed)
    chosen = ("-s", STREAM, "--handler", "pay", "--canary", "0.5")
    dry = rapids("dlq", "replay", *chosen, "--dry-run")
    assert "canary: steps of 1, 5, 2 letters; it stops if more than a share of 0.5 of a step fails again" in dry.stderr
    [preview] = rapids.json("dlq", "replay", *chosen, "--dry-run")
    assert preview["steps"] == [1, 5, 2]

    with refused_by_a_router(rapids.url):
        stopped = rapids("dlq", "replay", *chosen, "--yes", code=1).stderr
        [operation] = rapids.redis(lambda redis: DeadLetterQueue(redis, DLQ).operations.list()).items
        again = rapids.json("dlq", "continue", operation.id, "-s", STREAM, "--yes", code=1)
    assert "step 1: 1 of 1 replayed: 1 failed again" in stopped
    assert "the canary has stopped it: 1 of 1 replays of step 1 failed again: a share of 1, and 0.5 is" in stopped
    assert f"  {ids[0]}  before: ValueError: declined [redacted]" in stopped
    assert r"  now:    NonRetryableError: no \x1b[1mcard for [redacted] (" in stopped
    assert f"another step: rapids dlq continue {operation.id}; or with --no-canary, or --cancel" in stopped

    [left] = again
    assert (left["state"], left["done"], left["canary"]["stopped"]) == ("paused", 2, "failed_again")
    assert [step["size"] for step in left["canary"]["steps"]] == [1, 1]
    [failure] = left["canary"]["failures"]
    assert (failure["letter_id"], failure["error"], failure["outcome"]) == (
        ids[1],
        "declined [redacted]",
        "failed_again",
    )
    assert failure["new_error"] == "no \x1b[1mcard for [redacted]"

    ended = rapids("dlq", "continue", operation.id, "-s", STREAM, "--yes", "--no-canary")
    assert "its canary: 1 of 1 replays of step 2 failed again" in ended.stderr
    assert "completed: 8 replayed" in ended.stderr


def test_options_of_a_canary_that_make_no_sense_are_refused(rapids: Command) -> None:
    letters = ("dlq", "replay", "--all", "-s", STREAM)
    for options, message in (
        (("--canary", "2"), "--canary: share must be a number from 0 to 1, not 2.0"),
        (("--canary", "nan"), "--canary: share must be a number from 0 to 1, not nan"),
        (("--canary", "0.1", "--canary-wait", "0"), "wait must be a finite number of seconds above 0, not 0.0"),
        (("--canary-wait", "5"), "--canary-wait needs --canary"),
        (("--canary", "0.1", "--scope", "everyone"), "canary must be None, or kind 'replay' and scope 'handler' or"),
    ):
        assert message in " ".join(rapids(*letters, *options, code=2).stderr.replace("│", "").split())
    both = rapids("dlq", "continue", "x", "-s", STREAM, "--cancel", "--no-canary", code=2)
    assert "give one of them" in both.stderr
