"""A change of many letters: it runs in this process, with a progress bar, and Ctrl-C asks what to do."""

import asyncio
import signal
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Literal

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rapids import DeadLetterQueue
from rapids.cli.consent import actor, is_interactive
from rapids.cli.display import note, print_json, terminal
from rapids.cli.root import FAILED, INTERRUPTED
from rapids.cli.shown_letters import redactor
from rapids.clients import RedisClient
from rapids.dead_letters import Operation, OperationKind, Operations, Scope, Selector
from rapids.exceptions import OperationStateError
from rapids.redaction import MASK, HiddenValues

__all__ = ["Request", "attend", "report", "run"]

DONE = {"replay": "replayed", "discard": "discarded", "restore": "restored"}
SHOWN_ERRORS = 10
MAX_ERROR = 1_000
PAUSE = 0.1
"""Seconds between two queries of the progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked for."""

    kind: OperationKind
    dlq: str
    selector: Selector
    scope: Scope
    rate: float | None
    max_items: int | None
    reason: str
    url: str | None


class Interruption:
    """Ctrl-C while an operation runs: it is noted, and ends nothing."""

    def __init__(self) -> None:
        self._happened = asyncio.Event()

    def __enter__(self) -> "Interruption":
        self.again()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(NotImplementedError):  # on Windows, as below
            asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)

    def again(self) -> None:
        """Wait for the next one."""
        self._happened.clear()
        with suppress(NotImplementedError):  # on Windows, Ctrl-C ends the command, and the operation can go on
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._happened.set)

    async def wait(self) -> None:
        """Return when it has happened. From then on, Ctrl-C has its usual effect."""
        await self._happened.wait()
        self.__exit__()


async def run(redis: RedisClient, request: Request) -> Operation:
    """Start the operation, and attend to it."""
    operations = DeadLetterQueue(redis, request.dlq).operations
    begun = await operations.start(
        request.kind,
        request.selector,
        scope=request.scope,
        rate=request.rate,
        max_items=request.max_items,
        actor=actor(),
        reason=request.reason,
    )
    return await attend(operations, begun, request.reason)


async def attend(operations: Operations, begun: Operation, reason: str) -> Operation:
    """Run an operation until it has ended. After Ctrl-C, the operation as this process left it."""
    with Interruption() as interruption:
        while True:
            work = asyncio.create_task(operations.run_until_ended(begun.id))
            others = [
                asyncio.create_task(interruption.wait()),
                asyncio.create_task(_show_progress(operations.watch(begun.id, interval=PAUSE), begun)),
            ]
            try:
                await asyncio.wait((work, others[0]), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (work, *others):
                    task.cancel()
                await asyncio.wait((work, *others))
            if not work.cancelled():
                return work.result()
            # This process has left the operation: another one may run it while somebody thinks.
            match decision():
                case "cancel":
                    with suppress(OperationStateError):  # it has ended in the meantime
                        await operations.cancel(begun.id, actor=actor(), reason=reason)
                    return await operations.get(begun.id)
                case "detach":
                    return await operations.get(begun.id)
                case "continue":
                    interruption.again()


async def _show_progress(states: AsyncGenerator[Operation], begun: Operation) -> None:
    out = terminal(is_error=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=out, disable=not out.is_terminal, transient=True) as progress:
        task = progress.add_task(begun.kind, total=begun.total)
        async for state in states:
            processed = state.done + state.skipped + state.failed
            progress.update(task, completed=processed, total=max(state.total, processed))


def decision() -> Literal["cancel", "detach", "continue"]:
    """What is to become of the operation after Ctrl-C. Without an answer, it is left to other processes."""
    if not is_interactive():
        return "detach"
    note("The letters that were moved stay moved. Cancel the operation, detach and leave the rest to other processes")
    note("that run operations (the FastAPI plug-in does), or continue?")
    try:
        while True:
            answer = str(
                typer.prompt("c(ancel), d(etach) or continue (Enter)", default="", show_default=False, err=True)
            )
            match answer.strip().lower()[:1]:
                case "c":
                    return "cancel"
                case "d":
                    return "detach"
                case "":
                    return "continue"
                case _:
                    note("c, d or Enter")
    except (typer.Abort, KeyboardInterrupt, EOFError):
        return "detach"


def report(operation: Operation, dlq: str, *, as_json: bool, was_asked: bool = False) -> None:
    """Print what became of it, and exit with 1 if not all of it was done, or with 130 after Ctrl-C.

    `was_asked`: whether it was to be cancelled.
    """
    hiding, nothing = redactor(), HiddenValues(())
    errors = [
        {"letter_id": one.letter_id, "error": hiding.text(one.error, nothing, MAX_ERROR)} for one in operation.errors
    ]
    if as_json:
        selector = asdict(
            operation.selector, dict_factory=lambda items: {name: value for name, value in items if value is not None}
        )
        if operation.selector.filter is not None and operation.selector.filter.q and hiding.names:
            selector["filter"]["q"] = MASK  # another user may have typed it, and it may be what is hidden
        print_json({**asdict(operation), "dlq": dlq, "selector": selector, "errors": errors})
    skipped = f", {operation.skipped:,} had been moved or were gone" if operation.skipped else ""
    failed = f", {operation.failed:,} could not be" if operation.failed else ""
    note(f"{operation.state}: {operation.done:,} {DONE[operation.kind]}{skipped}{failed}")
    for one in errors[:SHOWN_ERRORS]:
        note(f"  {one['letter_id']}: {one['error']}")
    if not operation.is_ended:
        note(f"operation {operation.id} goes on as soon as a process runs it; or: rapids dlq continue {operation.id}")
    if operation.state in ("running", "paused", "cancelled") and not was_asked:
        raise typer.Exit(INTERRUPTED)
    if operation.state == "failed" or operation.failed or (operation.skipped and operation.selector.ids):
        raise typer.Exit(FAILED)
