"""A change of many letters: it runs in this process, with a progress bar, and Ctrl-C asks what to do."""

import asyncio
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Literal

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rapids import DeadLetterQueue
from rapids.cli.consent import actor, is_interactive
from rapids.cli.display import note, print_json, safe, terminal
from rapids.cli.root import FAILED, INTERRUPTED
from rapids.cli.shown_letters import redactor, shown_of
from rapids.clients import RedisClient
from rapids.dead_letters import (
    Canary,
    CanaryStep,
    DeadLetter,
    FailedReplay,
    Operation,
    OperationKind,
    Scope,
    Selector,
)
from rapids.exceptions import OperationStateError
from rapids.redaction import MASK, HiddenValues

__all__ = ["Left", "Request", "attend", "report", "run"]

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
    canary: Canary | None
    reason: str
    url: str | None


@dataclass(frozen=True, slots=True)
class Left:
    """An operation as this process left it, and what failed again in its canary."""

    operation: Operation
    failed: tuple[FailedReplay, ...] = ()


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


async def run(redis: RedisClient, request: Request) -> Left:
    """Start the operation, and attend to it."""
    queue = DeadLetterQueue(redis, request.dlq)
    begun = await queue.operations.start(
        request.kind,
        request.selector,
        scope=request.scope,
        rate=request.rate,
        max_items=request.max_items,
        canary=request.canary,
        actor=actor(),
        reason=request.reason,
    )
    return await attend(queue, begun, request.reason)


async def attend(queue: DeadLetterQueue, begun: Operation, reason: str) -> Left:
    """Run an operation until it has ended, or its canary has stopped it, or this process leaves it after Ctrl-C."""
    steps = StepLines(begun)
    operation = await _run(queue, begun, reason, steps)
    steps.show(operation, is_left=True)
    return Left(operation, await queue.failed_again(operation))


class StepLines:
    """The lines about the steps of a canary: each step when it has ended, and what the current one waits for."""

    def __init__(self, begun: Operation) -> None:
        self._shown = begun.canary.steps[-1].step - 1 if begun.canary else 0
        self._why = ""

    def show(self, operation: Operation, say: Callable[[str], None] = note, *, is_left: bool = False) -> None:
        """Print what is new. `is_left`: the current step, too, unless nothing of it was sent."""
        if operation.canary is None:
            return
        for step in operation.canary.steps if is_left else operation.canary.steps[:-1]:
            if step.step > self._shown and step.sent:
                self._shown = step.step
                say(step_line(step))
        if not operation.canary.stopped and operation.canary.why not in ("", self._why):
            self._why = operation.canary.why
            say(f"  {self._why}")


def step_line(step: CanaryStep) -> str:
    """A step, and the outcomes of its replays."""
    counts = ((step.handled, "handled"), (step.failed_again, "failed again"), (step.waiting, "without an outcome yet"))
    outcomes = ", ".join(f"{count:,} {what}" for count, what in counts if count)
    return f"step {step.step}: {step.sent:,} of {step.size:,} replayed: {outcomes}"


async def _run(queue: DeadLetterQueue, begun: Operation, reason: str, steps: StepLines) -> Operation:
    operations = queue.operations
    with Interruption() as interruption:
        while True:
            work = asyncio.create_task(operations.run_until_ended(begun.id))
            others = [
                asyncio.create_task(interruption.wait()),
                asyncio.create_task(_show_progress(operations.watch(begun.id, interval=PAUSE), begun, steps)),
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


async def _show_progress(states: AsyncGenerator[Operation], begun: Operation, steps: StepLines) -> None:
    out = terminal(is_error=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=out, disable=not out.is_terminal, transient=True) as progress:
        task = progress.add_task(begun.kind, total=begun.total)
        async for state in states:
            processed = state.done + state.skipped + state.failed
            progress.update(task, completed=processed, total=max(state.total, processed))
            steps.show(state, lambda text: out.print(safe(text), soft_wrap=True))  # above the bar


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


def report(left: Left, dlq: str, *, as_json: bool, was_asked: bool = False) -> None:
    """Print what became of it, and exit with 1 if not all of it was done, or with 130 after Ctrl-C.

    `was_asked`: whether it was to be cancelled.
    """
    operation, hiding, nothing = left.operation, redactor(), HiddenValues(())
    errors = [
        {"letter_id": one.letter_id, "error": hiding.text(one.error, nothing, MAX_ERROR)} for one in operation.errors
    ]
    failures = [_failure(one, dlq) for one in left.failed]
    if as_json:
        selector = asdict(
            operation.selector, dict_factory=lambda items: {name: value for name, value in items if value is not None}
        )
        if operation.selector.filter is not None and operation.selector.filter.q and hiding.names:
            selector["filter"]["q"] = MASK  # another user may have typed it, and it may be what is hidden
        canary = operation.canary and {**asdict(operation.canary), "failures": failures}
        print_json({**asdict(operation), "dlq": dlq, "selector": selector, "errors": errors, "canary": canary})
    skipped = f", {operation.skipped:,} had been moved or were gone" if operation.skipped else ""
    failed = f", {operation.failed:,} could not be" if operation.failed else ""
    note(f"{operation.state}: {operation.done:,} {DONE[operation.kind]}{skipped}{failed}")
    for one in errors[:SHOWN_ERRORS]:
        note(f"  {one['letter_id']}: {one['error']}")
    is_stopped = operation.canary is not None and operation.canary.stopped is not None
    if operation.canary is not None and is_stopped:
        note(f"the canary has stopped it: {operation.canary.why}")
        for one in failures:
            before, now = (
                f"{one[f'{when}error_type'].rpartition('.')[2]}: {one[f'{when}error']}" for when in ("", "new_")
            )
            now = f"{now} ({one['new_letter_id']})" if one["new_letter_id"] else one["outcome"]
            note(f"  {one['letter_id']}  before: {before}")
            note(f"  {' ' * len(one['letter_id'])}  now:    {now}")
    if operation.is_stopped:
        note(f"another step: rapids dlq continue {operation.id}; or with --no-canary, or --cancel")
    elif not operation.is_ended:
        note(f"operation {operation.id} goes on as soon as a process runs it; or: rapids dlq continue {operation.id}")
    if operation.state in ("running", "paused", "cancelled") and not (was_asked or operation.is_stopped):
        raise typer.Exit(INTERRUPTED)
    if is_stopped or operation.state == "failed" or operation.failed or (operation.skipped and operation.selector.ids):
        raise typer.Exit(FAILED)


def _failure(failed: FailedReplay, dlq: str) -> dict[str, str]:
    """A failure, with each error redacted by the payload of its own letter."""

    def error(letter: DeadLetter | None) -> tuple[str, str]:
        if letter is None:
            return "", ""
        shown = shown_of(letter, dlq, redactor())
        return shown.error_type, shown.error[:MAX_ERROR]

    (error_type, before), (new_error_type, now) = error(failed.letter), error(failed.new_letter)
    return {
        "letter_id": failed.failure.letter_id,
        "outcome": failed.failure.outcome,
        "error_type": error_type,
        "error": before,
        "new_letter_id": failed.failure.new_letter_id,
        "new_error_type": new_error_type,
        "new_error": now,
    }
