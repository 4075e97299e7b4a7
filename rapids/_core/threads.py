"""Threads of our own, for what must not wait until handlers leave a thread of the default executor free."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from contextvars import copy_context
from threading import Thread
from typing import Any, TypeVar

__all__ = ["call_in_thread", "in_own_thread", "open_in_threads"]

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


async def call_in_thread(function: Callable[..., Result], /, *arguments: Any, **named: Any) -> Result:
    """Call the function in a thread of the default executor, with the caller's context variables.

    A thread cannot be interrupted: a cancellation waits until a call that has begun has ended, so that nothing that the
    function uses is taken away from it.
    """
    turn = {"free": True}  # who takes it decides: the thread that begins the call, or a cancellation before that

    def begin() -> Any:
        return function(*arguments, **named) if turn.pop("free", False) else None

    running = asyncio.get_running_loop().run_in_executor(None, copy_context().run, begin)
    return await _result_of(running, lambda: turn.pop("free", False))


async def _result_of(running: asyncio.Future[Result], withdraw: Callable[[], bool]) -> Result:
    """The result of a call in a thread. A cancellation waits for its end, unless `withdraw` prevents the call."""
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError as error:
            if withdraw():
                raise
            cancelled = error
    if cancelled is not None:
        running.exception()  # otherwise asyncio would log that nobody asked for it
        raise cancelled
    return running.result()


async def open_in_threads(
    make: Callable[..., AbstractContextManager[Result]], /, **arguments: Any
) -> AsyncGenerator[Result]:
    """The plain context manager that `make` returns, as an async generator. It is entered in a thread of the default
    executor, and left in a thread of its own: it must not wait for a thread that is only free when it has given back
    what it holds."""
    context, is_entered = make(**arguments), False

    def enter() -> Result:
        nonlocal is_entered
        value = context.__enter__()
        is_entered = True
        return value

    async def leave(error: BaseException | None) -> bool | None:
        of_error = (None, None, None) if error is None else (type(error), error, error.__traceback__)
        return await _result_of(asyncio.wrap_future(in_own_thread(lambda: context.__exit__(*of_error))), bool)

    try:
        value = await call_in_thread(enter)
    except asyncio.CancelledError as error:
        if is_entered:  # in spite of the cancellation, which came while the thread ran
            await leave(error)
        raise
    try:
        yield value
    except BaseException as error:
        if not await leave(error):
            raise
    else:
        await leave(None)
