"""The commands `dlq replay`, `discard` and `restore`, on one letter or on many."""

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, TypeAlias

import typer

from rapids import DeadLetterQueue, LetterFilter
from rapids.cli.bulk_change import Left, Request, attend, report, run
from rapids.cli.consent import DryRun, Reason, Yes, actor, agree
from rapids.cli.display import Json, note, print_json
from rapids.cli.letter_commands import print_letters
from rapids.cli.letter_options import EventStream, QueueName, choosing, dlq_app
from rapids.cli.root import Url, execute, fail
from rapids.cli.stream_choice import chosen_queue
from rapids.clients import RedisClient
from rapids.dead_letters import Canary, OperationKind, Selector

__all__ = ["Scope"]

SAMPLE = 5
"""Letters that are shown before the question."""


class Scope(StrEnum):
    """Which handlers a replay reaches."""

    HANDLER = "handler"
    GROUP = "group"
    EVERYONE = "everyone"


Ids: TypeAlias = Annotated[list[str] | None, typer.Argument(metavar="ID", help="The ids of letters.")]
All: TypeAlias = Annotated[bool, typer.Option("--all", help="All letters, without a filter.")]
Rate: TypeAlias = Annotated[float | None, typer.Option("--rate", help="Letters a second at most.")]
MaxItems: TypeAlias = Annotated[int | None, typer.Option("--max-items", min=1, help="Letters at most.")]


Share: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--canary",
        metavar="SHARE",
        help="Replay 1, 5, 25, 125, ... letters; stop if more than this share of a step fails again: 0, 0.1, ... 1.",
    ),
]
Wait: TypeAlias = Annotated[
    float | None,
    typer.Option("--canary-wait", metavar="SECONDS", help="How long a step waits for outcomes; by default an hour."),
]


def _canary(share: float | None, wait: float | None) -> Canary | None:
    if share is None and wait is not None:
        fail("--canary-wait needs --canary")
    try:
        return None if share is None else Canary(share=share) if wait is None else Canary(share=share, wait=wait)
    except ValueError as error:
        fail(f"--canary{'' if wait is None else ', --canary-wait'}: {error}")


def _selector(ids: list[str] | None, wanted: LetterFilter, *, is_all: bool) -> Selector:
    """The letters that are meant. Without any choice, the command ends: all letters are named by `--all`."""
    is_filter = wanted != LetterFilter()
    if sum((bool(ids), is_filter, is_all)) != 1:
        fail("say which letters: ids, or options that choose (--fingerprint, --handler, ...), or --all; one of these")
    try:
        return Selector(ids=tuple(ids)) if ids else Selector(filter=wanted)
    except ValueError as error:
        fail(str(error))


@dlq_app.command()
@choosing()
def replay(
    wanted: LetterFilter,
    ids: Ids = None,
    dlq: QueueName = None,
    stream: EventStream = None,
    is_all: All = False,
    scope: Annotated[
        Scope, typer.Option(help="The handler that failed, all handlers of its group, or all groups.")
    ] = Scope.HANDLER,
    rate: Rate = None,
    max_items: MaxItems = None,
    canary: Share = None,
    canary_wait: Wait = None,
    reason: Reason = "",
    yes: Yes = False,
    dry_run: DryRun = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Send dead letters back to the handler that failed.

    Letters that fail again are not taken again. An operation on many letters survives this command: other processes
    with Rapids continue it.
    """
    request = Request(
        kind="replay",
        dlq=chosen_queue(url, dlq, stream),
        selector=_selector(ids, wanted, is_all=is_all),
        scope=scope.value,
        rate=rate,
        max_items=max_items,
        canary=_canary(canary, canary_wait),
        reason=reason,
        url=url,
    )
    _change(request, yes=yes, dry_run=dry_run, as_json=as_json)


def _command_for(kind: OperationKind) -> Callable[..., None]:
    """The command that discards or restores letters, which have the same options."""

    @choosing()
    def change(
        wanted: LetterFilter,
        ids: Ids = None,
        dlq: QueueName = None,
        stream: EventStream = None,
        is_all: All = False,
        rate: Rate = None,
        max_items: MaxItems = None,
        reason: Reason = "",
        yes: Yes = False,
        dry_run: DryRun = False,
        url: Url = None,
        as_json: Json = False,
    ) -> None:
        request = Request(
            kind=kind,
            dlq=chosen_queue(url, dlq, stream),
            selector=_selector(ids, wanted, is_all=is_all),
            scope="handler",
            rate=rate,
            max_items=max_items,
            canary=None,
            reason=reason,
            url=url,
        )
        _change(request, yes=yes, dry_run=dry_run, as_json=as_json)

    return change


dlq_app.command("discard", help="Put dead letters aside. They can be restored for 14 days.")(_command_for("discard"))
dlq_app.command("restore", help="Bring discarded dead letters back.")(_command_for("restore"))


@dlq_app.command("continue")
def continue_operation(
    operation_id: Annotated[str, typer.Argument(metavar="OPERATION", help="The id of the operation.")],
    dlq: QueueName = None,
    stream: EventStream = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel it instead.")] = False,
    ends_canary: Annotated[
        bool, typer.Option("--no-canary", help="Without its canary: replay the rest at once, whatever fails again.")
    ] = False,
    reason: Reason = "",
    yes: Yes = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Continue an operation that was left or paused, or cancel it.

    While an operation has not ended, no other one of its kind can begin.
    """
    if cancel and ends_canary:
        fail("--cancel ends the operation, --no-canary continues it; give one of them")
    name = chosen_queue(url, dlq, stream)

    async def change(redis: RedisClient) -> Left:
        queue = DeadLetterQueue(redis, name)
        if cancel:
            return Left(await queue.operations.cancel(operation_id, actor=actor(), reason=reason))
        resume = queue.operations.resume
        resumed = await resume(operation_id, canary=not ends_canary, actor=actor(), reason=reason)
        return await attend(queue, resumed, reason)

    before = execute(url, lambda redis: DeadLetterQueue(redis, name).operations.get(operation_id))
    note(f"{before.kind} of {before.total:,} letters of {name}, {before.state}: {before.done:,} done")
    if before.canary and before.canary.why:
        note(f"its canary: {before.canary.why}")
    agree(f"{'cancel' if cancel else 'continue'} this operation?", yes=yes)
    ended = execute(url, change)
    report(ended, name, as_json=as_json, was_asked=cancel)


def _change(request: Request, *, yes: bool, dry_run: bool, as_json: bool) -> None:
    preview = execute(
        request.url,
        lambda redis: DeadLetterQueue(redis, request.dlq).operations.preview(
            request.kind,
            request.selector,
            scope=request.scope,
            max_items=request.max_items,
            canary=request.canary,
        ),
    )
    exact = "" if preview.total_exact else "about "
    count = f"{exact}{preview.total:,} letter{'' if preview.total == 1 else 's'} of {request.dlq}"
    scope = f", to {request.scope}" if request.kind == "replay" and request.scope != "handler" else ""
    note(f"{request.kind}: {count}{scope}")
    if request.canary and preview.steps:
        steps = ", ".join(f"{size:,}" for size in preview.steps)
        more = ", ..." if sum(preview.steps) < preview.total else ""
        allowed = f"it stops if more than a share of {request.canary.share:g} of a step fails again"
        note(f"canary: steps of {steps}{more} letters; {allowed}")
    sample = list(preview.sample[:SAMPLE])
    print_letters(sample, request.dlq, is_error=True)
    if preview.total > len(sample):
        note(f"shown are {len(sample)} of them")
    if request.selector.ids is not None and not sample:
        fail(f"none of these letters is {'discarded' if request.kind == 'restore' else 'dead'} in {request.dlq}")
    if preview.total == 0:
        note("nothing to change")
    elif not dry_run:
        agree(f"{request.kind} {count}?", yes=yes)
        ended = execute(request.url, lambda redis: run(redis, request))
        report(ended, request.dlq, as_json=as_json)
        return
    if as_json:
        selected = {"total": preview.total, "total_exact": preview.total_exact}
        steps = {"steps": preview.steps} if request.canary else {}
        print_json({"kind": request.kind, "dlq": request.dlq, **selected, **steps})
