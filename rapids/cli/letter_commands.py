"""The commands `dlq causes`, `list` and `show`: what failed, and why."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, TypeAlias

import typer
from rich.text import Text

from rapids import DeadLetter, DeadLetterQueue, LetterFilter
from rapids.cli.catalog_commands import App, load
from rapids.cli.display import (
    Column,
    Json,
    Limit,
    ago,
    note,
    print_json,
    print_pairs,
    print_table,
    printed,
    safe,
    terminal,
)
from rapids.cli.letter_options import EventStream, QueueName, choosing, dlq_app, letters_of
from rapids.cli.root import Url, execute
from rapids.cli.shown_letters import ShownLetterDetail, ShownPayload, detail_of, redactor, shown_of
from rapids.cli.stream_choice import chosen_queue
from rapids.clients import RedisClient
from rapids.dead_letters import Causes
from rapids.inspection import Inspector

__all__ = ["LetterId", "print_letters"]

LetterId: TypeAlias = Annotated[str, typer.Argument(metavar="ID", help="The id of the letter.")]

MAX_LISTED_ERROR = 300

WIDE = 130
"""Columns of a terminal that has room for positions in the code, too."""


@dlq_app.command()
@choosing("fingerprint", "text", "since", "until")
def causes(
    wanted: LetterFilter,
    dlq: QueueName = None,
    stream: EventStream = None,
    limit: Limit = 50,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Count dead letters by cause: begin here.

    The letters of a cause have the same group, handler, event type, reason, error type and place in the code. Other
    commands take its fingerprint.
    """
    name = chosen_queue(url, dlq, stream)

    async def look(redis: RedisClient) -> tuple[Causes, list[str]]:
        found = await DeadLetterQueue(redis, name).causes(wanted, limit=min(limit, 500))
        return found, [] if found.items else list((await Inspector(redis).find_streams()).dlqs)

    found, others = execute(url, look)
    if as_json:
        for one in found.items:
            print_json({"dlq": name, **asdict(one)})
        return
    now, is_wide = datetime.now(UTC), terminal().width >= WIDE
    columns = [
        Column("FINGERPRINT"),
        Column("LETTERS", is_number=True),
        Column("LAST", is_number=True),
        Column("GROUP", is_below=True),
        Column("HANDLER", is_below=True),
        Column("EVENT TYPE", is_below=True),
        Column("ERROR", is_cut=True),
        *([Column("WHERE", is_cut=True)] if is_wide else []),
    ]
    rows = [
        (
            one.fingerprint or "(others)",
            one.count,
            ago(one.last_at, now),
            one.group,
            one.handler,
            one.event_type,
            one.error_type.rpartition(".")[2] or one.reason,
            *([one.position] if is_wide else []),
        )
        for one in found.items
    ]
    if rows:
        print_table(columns, rows)
    _summary(name, found.letters, others)
    if found.stats.unindexed:
        note(f"{found.stats.unindexed:,} letters are not counted yet: ask again")
    if found.stats.cut:
        note(
            f"{found.stats.cut:,} letters were trimmed before anybody handled them, last {ago(found.stats.cut_at, now)}"
        )
    if found.cursor is not None:
        note(f"there are {found.total:,} causes: --limit {limit * 2}")


def _summary(name: str, count: int, others: list[str]) -> None:
    note(f"{count:,} letter{'' if count == 1 else 's'} in {name}")
    if others := [other for other in others if other != name]:
        note(f"other dead-letter streams of this server: {', '.join(others[:10])} (--dlq)")


@dlq_app.command("list")
@choosing()
def list_letters(
    wanted: LetterFilter,
    dlq: QueueName = None,
    stream: EventStream = None,
    limit: Limit = 20,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List dead letters, the newest first."""
    name = chosen_queue(url, dlq, stream)

    async def look(redis: RedisClient) -> tuple[list[DeadLetter], int, list[str]]:
        found, total = list[DeadLetter](), 0
        async for letter, count in letters_of(DeadLetterQueue(redis, name), wanted, limit):
            total = count
            found += [] if letter is None else [letter]
        return found, total, [] if found else list((await Inspector(redis).find_streams()).dlqs)

    found, total, others = execute(url, look)
    if as_json:
        hiding = redactor()
        for one in found:
            print_json(shown_of(one, name, hiding))
        return
    print_letters(found, name)
    _summary(name, total, others)
    if total > len(found):
        note(f"shown are the {len(found)} newest; more: --limit {limit * 2}")


def print_letters(letters: list[DeadLetter], dlq: str, *, is_error: bool = False) -> None:
    """A table of letters, on standard output or error."""
    if not letters:
        return
    now, hiding = datetime.now(UTC), redactor()
    columns = [
        Column("ID"),
        Column("FAILED", is_number=True),
        Column("EVENT TYPE", is_below=True),
        Column("GROUP", is_below=True),
        Column("HANDLER", is_below=True),
        Column("ERROR", is_cut=True),
    ]
    rows = [
        (
            one.id,
            ago(one.failed_at, now),
            one.event_type,
            one.group,
            one.handler,
            ": ".join(filter(None, (one.error_type.rpartition(".")[2] or one.reason, one.error[:MAX_LISTED_ERROR]))),
        )
        for one in (shown_of(letter, dlq, hiding) for letter in letters)
    ]
    print_table(columns, rows, is_error=is_error)


@dlq_app.command()
def show(
    letter_id: LetterId,
    dlq: QueueName = None,
    stream: EventStream = None,
    targets: App = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Show one dead letter with everything that is known of it.

    With --app, also whether its event would parse with the classes of today. Replayed and discarded letters are shown
    as long as they are kept.
    """
    load(targets)
    name = chosen_queue(url, dlq, stream)
    letter = execute(url, lambda redis: DeadLetterQueue(redis, name).get(letter_id))
    one = detail_of(letter, name, redactor(), check=bool(targets))
    if as_json:
        print_json(one)
        return
    print_pairs(
        [
            ("id", one.id),
            ("state", Text(one.state, {"dead": "red"}.get(one.state, "green"))),
            ("queue", one.dlq),
            ("failed", one.failed_at),
            ("event", f"{one.event_type} {one.event_id}"),
            ("entry", f"{one.entry_id} of {one.stream}"),
            ("correlation", one.correlation_id),
            ("group", one.group),
            ("handler", one.handler),
            ("reason", one.reason),
            ("deliveries", one.deliveries),
            ("consumer", one.consumer),
            ("fingerprint", one.fingerprint),
            ("error", printed(f"{one.error_type}: {one.error}", "red")),
            ("where", one.position),
            *([("replay of", one.replay_of)] if one.replay_of else []),
            *([("would parse", _parse(one))] if one.parse_check else []),
        ]
    )
    _print_payload("payload", one.payload)
    _print_payload("metadata", one.metadata)
    out = terminal()
    if one.traceback:
        _heading("traceback")
        for line in one.traceback.rstrip().split("\n"):
            out.print(f"  {safe(line)}", soft_wrap=True)
    if one.attempts:
        _heading("attempts")
        rows = [
            (at.at, at.consumer, at.delivery, at.attempt, f"{at.error_type.rpartition('.')[2]}: {at.error}")
            for at in one.attempts
        ]
        print_table(
            [
                Column("AT"),
                Column("CONSUMER", is_below=True),
                Column("DELIVERY", is_number=True, is_below=True),
                Column("ATTEMPT", is_number=True, is_below=True),
                Column("ERROR", is_cut=True),
            ],
            rows,
        )
    if one.history:
        _heading("history")
        print_table(
            [
                Column("AT"),
                Column("ACTION"),
                Column("BY"),
                Column("REASON", is_below=True),
                Column("SCOPE", is_below=True),
            ],
            [(change.at, change.action, change.actor, change.reason, change.scope) for change in one.history],
        )
    for outcome in one.replays:
        inferred = " (inferred)" if outcome.is_inferred else ""
        letters = f": {', '.join(outcome.letters)}" if outcome.letters else ""
        out.print(Text("replay      ", "bold"), safe(f"{outcome.outcome}{inferred}{letters}"), soft_wrap=True)


def _parse(one: ShownLetterDetail) -> Text:
    check = one.parse_check
    if check is None or check.outcome == "parses":
        return Text("yes", "green")
    problems = "; ".join(f"{problem.pointer}: {problem.message}" for problem in check.problems[:5])
    return printed(f"no: {check.outcome}{f' ({problems})' if problems else ''}", "red")


def _heading(name: str) -> None:
    terminal().print(Text(f"\n{name}", "bold"))


def _print_payload(name: str, payload: ShownPayload) -> None:
    _heading(name)
    if payload.encoding == "json":
        text = json.dumps(payload.value, indent=2, ensure_ascii=False)
    else:
        why = "larger than 1 MiB" if payload.encoding == "omitted" else "it is not JSON, so what to hide is not known"
        text = f"not shown ({payload.size:,} bytes): {why}"
    for line in text.split("\n"):
        terminal().print(f"  {safe(line)}", soft_wrap=True)
