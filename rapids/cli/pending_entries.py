"""The command `pending`: the entries that a group was given and has not settled."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

import typer
from rich.text import Text

from rapids.cli.display import Column, Json, Limit, lasted, note, print_json, print_table, printed
from rapids.cli.event_feed import redacted_pending
from rapids.cli.root import Url, app, execute, fail
from rapids.cli.shown_letters import redactor
from rapids.cli.stream_choice import GroupName, StreamName, chosen_stream
from rapids.clients import RedisClient
from rapids.inspection import Inspector, PendingEntry
from rapids.redaction import HiddenValues

__all__ = ["pending"]

PAGE = 500


class State(StrEnum):
    """A state of pending entries."""

    HELD = "held"
    WAITING = "waiting"
    PARKED = "parked"


@app.command()
def pending(
    group: GroupName,
    named: StreamName = None,
    state: Annotated[
        State | None, typer.Option(help="Only these: `waiting` ones are sorted by when they are due.")
    ] = None,
    consumer: Annotated[str | None, typer.Option(help="Only entries that this consumer holds.")] = None,
    replays: Annotated[bool, typer.Option("--replays", help="Replays of the group's dead letters instead.")] = False,
    limit: Limit = 50,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Show what a group was given and has not settled.

    Errors of parked and waiting entries are hidden, since their payload, which they may quote, is not read.
    """
    if consumer is not None and state not in (None, State.HELD):
        fail(f"--consumer is for entries that are held, not for {state} ones")
    stream = chosen_stream(url, named, group=group)

    async def look(redis: RedisClient) -> tuple[datetime, list[PendingEntry], bool]:
        inspector = Inspector(redis)
        found: list[PendingEntry] = []
        cursor: str | None = None
        while True:
            size = min(PAGE, limit)
            match state:
                case State.WAITING:
                    page = await inspector.waiting(stream, group, replays=replays, cursor=cursor, limit=size)
                case State.PARKED:
                    page = await inspector.parked(stream, group, replays=replays, cursor=cursor, limit=size)
                case _:
                    page = await inspector.pending(
                        stream, group, consumer=consumer, replays=replays, cursor=cursor, limit=size
                    )
            found += [one for one in page.items if state is None or one.state == state]
            cursor = page.cursor
            if cursor is None or len(found) >= limit:
                return page.at, found[:limit], cursor is not None or len(found) > limit

    now, entries, are_more = execute(url, look)
    hiding, hidden = redactor(), HiddenValues(None)  # what errors quote of the payload is not known
    redacted = [redacted_pending(one, hiding, hidden) for one in entries]
    if as_json:
        for one in redacted:
            print_json(one)
        return
    if not redacted:
        note(f"nothing is pending in group {group}" + (f" ({state})" if state else ""))
        return
    columns = [
        Column("ENTRY"),
        Column("AGE", is_number=True),
        Column("STATE"),
        Column("CONSUMER", is_below=True),
        Column("IDLE", is_number=True, is_below=True),
        Column("DELIVERIES", is_number=True, is_below=True),
        Column("NEXT"),
        Column("HANDLERS", is_below=True),
    ]
    print_table(
        columns,
        [
            (
                one.entry_id,
                "-" if one.appended_at is None else lasted((now - one.appended_at).total_seconds() * 1000),
                Text(one.state, {"parked": "red", "waiting": "yellow"}.get(one.state, "")),
                _consumer(one),
                lasted(one.idle_ms),
                one.deliveries,
                _next(one, now),
                ", ".join(one.handlers or [failure.handler for failure in one.failures]),
            )
            for one in redacted
        ],
    )
    if are_more:
        note(f"there are more: --limit {limit * 2}")


def _consumer(entry: PendingEntry) -> Text | None:
    if entry.consumer is None:
        return None
    return printed(entry.consumer) if entry.consumer_alive else printed(f"{entry.consumer} (gone)", "yellow")


def _next(entry: PendingEntry, now: datetime) -> str:
    if entry.due_at is None:
        return "never" if entry.state == "parked" else "-"
    wait = (entry.due_at - now).total_seconds() * 1000
    return f"in {lasted(wait)}" if wait > 0 else "due"
