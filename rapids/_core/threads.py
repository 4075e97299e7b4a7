"""Threads of our own, for what must not wait until handlers leave a thread of the default executor free."""

from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from threading import Thread
from typing import TypeVar

__all__ = ["in_own_thread"]

Result = TypeVar("Result")


def in_own_thread(function: Callable[[], Result]) -> "Future[Result]":
    """The result of a function that runs in a thread of its own, with the caller's context variables.

    It cannot be cancelled. The thread is a daemon: no process waits for it at its end.
    """
    result: Future[Result] = Future()
    result.set_running_or_notify_cancel()
    context = copy_context()

    def run() -> None:
        try:
            result.set_result(context.run(function))
        except BaseException as error:  # its caller gets it, as from an executor
            result.set_exception(error)

    Thread(target=run, name="rapids", daemon=True).start()
    return result
