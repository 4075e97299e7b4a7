"""Cancellations that reached a task of ours and are not meant to end it, or were meant to and went unseen."""

import asyncio
from contextlib import suppress

__all__ = ["forget_cancellations", "raise_if_cancelled", "shed_cancellations"]


def raise_if_cancelled() -> None:
    """Before Python 3.12 `asyncio.wait_for`, which redis-py sends with, may swallow a cancellation; its count stays."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def forget_cancellations() -> None:
    """Go on as if nobody had cancelled the current task."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()


async def shed_cancellations() -> None:
    """Take back the cancellations a handler left on its task, which is ours: else they would end what comes after it.

    A TaskGroup leaves one behind when a child of it fails, before Python 3.13; a `cancel()` of the current task may not
    even have been thrown yet.
    """
    task = asyncio.current_task()
    if task is None or not task.cancelling():
        return
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)
    while task.cancelling():
        task.uncancel()
