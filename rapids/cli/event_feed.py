"""The commands `tail` and `trace`: the events of a stream as they come, and everything with one correlation id."""

import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.text import Text
from rich.tree import Tree

from rapids.cli.catalog_commands import App, load
from rapids.cli.display import Json, ago, lasted, note, print_json, printed, safe, terminal
from rapids.cli.root import Url, app, execute
from rapids.cli.shown_letters import ShownPayload, redactor, shown_event
from rapids.cli.stream_choice import StreamName, chosen_stream
from rapids.clients import RedisClient
from rapids.inspection import (
    CausationTree,
    Inspector,
    PendingEntry,
    StreamEntry,
    TracedDelivery,
    TracedEvent,
    TracedLetter,
)
from rapids.redaction import HiddenValues, Redactor
from rapids.router import EventRouter

__all__ = ["ShownEntry", "redacted_pending", "tail", "trace"]

MAX_ERROR = 8_000
WIDE = 110
"""Columns of a terminal that has room for correlation ids beside the data of events."""

MAX_LINE = 2_000
"""Characters of a payload in a line for people."""

DEEPEST = 12
"""Causes from which on the tree grows no deeper: what is caused there is next to its cause, and names it."""

ROOM = 40
"""Columns of a terminal that lines of the tree have at least."""

STYLES = {"dead": "red", "parked": "red", "waiting": "yellow", "held": "yellow", "handled": "green"}


@dataclass(frozen=True, slots=True)
class ShownEntry:
    """An entry of a stream, with hidden values masked."""

    stream: str
    entry_id: str
    appended_at: datetime | None
    event_id: str
    event_type: str
    timestamp: str
    correlation_id: str
    causation_id: str
    schema_version: str
    payload: ShownPayload
    metadata: ShownPayload


@app.command()
def tail(
    named: StreamName = None,
    event_type: Annotated[
        str | None, typer.Option("--type", help="Only events of this type, or a pattern: 'order.*'.")
    ] = None,
    group: Annotated[str | None, typer.Option("--group", help="Begin with what this group has not read yet.")] = None,
    newest: Annotated[
        int, typer.Option("--lines", "-n", min=0, max=10_000, help="Begin with so many of the last entries.")
    ] = 10,
    follows: Annotated[bool, typer.Option("--follow/--no-follow", help="Wait for new entries, until Ctrl-C.")] = True,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Follow the events of a stream, without taking part in a group.

    Nothing is acknowledged, and no group is changed.
    """
    hiding = redactor()
    stream = chosen_stream(url, named, group=group)

    async def look(redis: RedisClient) -> None:
        inspector = Inspector(redis)
        after = None if group is None else (await inspector.group(stream, group)).last_delivered_id
        entries: AsyncGenerator[StreamEntry] = inspector.follow(
            stream, event_type=event_type, after=after, newest=newest, interval=0.25 if follows else None
        )
        async for entry in entries:
            payload, metadata, _ = shown_event(entry.data, entry.metadata, hiding)
            names = [name for name in ShownEntry.__dataclass_fields__ if name not in ("payload", "metadata")]
            same = {name: getattr(entry, name) for name in names}
            shown = ShownEntry(**same, payload=payload, metadata=metadata)
            if as_json:
                print_json(shown)
            else:
                _print_entry(shown)

    execute(url, look)


def _print_entry(entry: ShownEntry) -> None:
    out = terminal()
    at = "-" if entry.appended_at is None else f"{entry.appended_at.astimezone(UTC):%H:%M:%S}"
    payload = entry.payload
    if payload.encoding == "json":
        data = json.dumps(payload.value, ensure_ascii=False)[:MAX_LINE]
    else:
        data = f"({payload.encoding}, {payload.size:,} bytes)"
    line = Text.assemble(
        (at, "dim"),
        "  ",
        safe(entry.entry_id),
        "  ",
        (safe(entry.event_type or "(no type)"), "bold"),
        "  ",
        *(() if out.width < WIDE else ((safe(entry.correlation_id), "cyan"), "  ")),
        safe(data),
    )
    if out.is_terminal:
        line.truncate(out.width, overflow="ellipsis")
    out.print(line, soft_wrap=True)


@app.command()
def trace(
    correlation_id: Annotated[str, typer.Argument(metavar="ID", help="The correlation id.")],
    streams: Annotated[
        list[str] | None, typer.Option("--stream", "-s", help="Where to look; by default in all streams. Repeatable.")
    ] = None,
    dlqs: Annotated[
        list[str] | None, typer.Option("--dlq", help="Dead-letter streams; by default all of the server. Repeatable.")
    ] = None,
    window: Annotated[int, typer.Option(min=1, max=100_000, help="How many of the newest entries to read.")] = 10_000,
    targets: App = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Show everything with a correlation id, as a tree of causes.

    For each event and group: whether it is acknowledged, waits, is parked or dead. A group acknowledges what its
    handlers have finished, and also what it has no handler for. With --app, the command knows which of both it was.
    """
    routers = load(targets)

    async def look(redis: RedisClient) -> CausationTree:
        inspector = Inspector(redis)
        names, queues = streams, dlqs
        if names is None or queues is None:
            found = await inspector.find_streams()
            names, queues = (found.streams if names is None else names), (found.dlqs if queues is None else queues)
        return await inspector.trace(correlation_id, streams=names, dlqs=queues, window=window)

    tree = execute(url, look)
    hiding = redactor()
    events = [_shown_event(one, hiding) for one in tree.events]
    letters = [_shown_letter(one, hiding) for one in tree.letters]
    if as_json:
        rest = {field: getattr(tree, field) for field in ("at", "correlation_id", "began_at", "roots", "complete")}
        print_json(
            {
                **rest,
                "limits": tree.limits,
                "events": events,
                "letters": letters,
                # The errors of a replay are hidden, since the payload that they may quote is not read.
                "replays": [
                    asdict(replace(one, delivery=_redacted(one.delivery, hiding, HiddenValues(None))))
                    for one in tree.replays
                ],
                "windows": [asdict(one) for one in tree.windows],
            }
        )
    elif not tree.events and not tree.letters:
        note(f"nothing with the correlation id {correlation_id}")
    else:
        _print_tree(tree, events, letters, routers)
    if not tree.complete:
        reached = f" (limit of {', '.join(tree.limits)})" if tree.limits else ""
        note(f"not everything was read{reached}: --window {min(window * 10, 100_000)}, or name streams")


def _shown_event(event: TracedEvent, redactor: Redactor) -> dict[str, Any]:
    payload, metadata, hidden = shown_event(
        event.data, event.metadata, redactor, sizes=(event.data_size, event.metadata_size)
    )
    left_out = ("data", "data_size", "metadata", "metadata_size", "deliveries")
    fields = {name: getattr(event, name) for name in TracedEvent.__dataclass_fields__ if name not in left_out}
    deliveries = [asdict(_redacted(one, redactor, hidden)) for one in event.deliveries]
    return {**fields, "payload": asdict(payload), "metadata": asdict(metadata), "deliveries": deliveries}


def _redacted(delivery: TracedDelivery, redactor: Redactor, hidden: HiddenValues) -> TracedDelivery:
    if delivery.pending is None:
        return delivery
    return replace(delivery, pending=redacted_pending(delivery.pending, redactor, hidden))


def redacted_pending(entry: PendingEntry, redactor: Redactor, hidden: HiddenValues) -> PendingEntry:
    """A pending entry, with hidden values masked in its errors."""
    failures = [replace(one, error=redactor.text(one.error, hidden, MAX_ERROR)) for one in entry.failures]
    attempts = [
        replace(
            of, attempts=tuple(replace(one, error=redactor.text(one.error, hidden, MAX_ERROR)) for one in of.attempts)
        )
        for of in entry.attempts
    ]
    return replace(entry, failures=tuple(failures), attempts=tuple(attempts))


def _shown_letter(letter: TracedLetter, redactor: Redactor) -> dict[str, Any]:
    *_, hidden = shown_event(letter.data, letter.metadata, redactor)
    left_out = ("data", "metadata", "history", "error", "replays")
    fields = {name: getattr(letter, name) for name in TracedLetter.__dataclass_fields__ if name not in left_out}
    replays = [
        {"inferred" if name == "is_inferred" else name: value for name, value in asdict(one).items()}
        for one in letter.replays
    ]
    return {**fields, "error": redactor.text(letter.error, hidden, MAX_ERROR), "replays": replays}


def _print_tree(
    tree: CausationTree,
    events: Sequence[dict[str, Any]],
    letters: Sequence[dict[str, Any]],
    routers: Sequence[EventRouter],
) -> None:
    handlers = {(router.stream, router.group): router.handlers_for for router in routers}
    root = Tree(Text.assemble(("correlation id ", "dim"), (safe(tree.correlation_id), "cyan")), guide_style="dim")
    left, out = {letter["id"]: letter for letter in letters}, terminal()
    deepest = max(1, min(DEEPEST, (out.width - ROOM) // 4))

    branches = [(root, at, 0) for at in reversed(tree.roots)]
    while branches:  # not by recursion: a chain of causes may be long
        branch, at, depth = branches.pop()
        event = events[at]
        parent: int | None = event["parent"]
        cause: str = "" if parent is None or depth <= deepest else events[parent]["entry_id"]
        of_event = branch.add(_event_line(event, tree.at, cause))
        for delivery in event["deliveries"]:
            handlers_for = handlers.get((event["stream"], delivery["group"]))
            has_handler = None if handlers_for is None else bool(handlers_for(event["event_type"]))
            of_group = of_event.add(_delivery_line(delivery, tree.at, has_handler))
            for letter_id in delivery["letters"]:
                if (letter := left.pop(letter_id, None)) is not None:
                    of_group.add(_letter_line(letter))
        below = of_event if depth < deepest else branch  # a terminal has no room for what is still deeper
        branches += [(below, child, depth + 1) for child in reversed(event["children"])]
    for one in tree.replays:
        whose = f"to {safe(one.group)}{f' {safe(one.handler)}' if one.handler else ''}"
        root.add(f"replay of letter {safe(one.letter_id)} {whose}: {one.delivery.state}")
    for letter in left.values():
        root.add(_letter_line(letter))
    out.print(root, soft_wrap=not out.is_terminal)


def _event_line(event: dict[str, Any], now: datetime, cause: str) -> Text:
    """`cause`: the entry id of its cause, if the tree does not show it."""
    said = [
        *([f"caused by {cause}"] if cause else []),
        *(["its cause was not found"] if event["missing_parent"] else []),
        *(["in a cycle of causes"] if event["in_cycle"] else []),
        *([f"stored {event['copies']} times"] if event["copies"] > 1 else []),
    ]
    return Text.assemble(
        (safe(event["event_type"]), "bold"),
        f"  {safe(event['entry_id'])} of {safe(event['stream'])}",
        (f"  {ago(event['appended_at'], now)}", "dim"),
        (f"  {', '.join(said)}" if said else "", "yellow"),
    )


def _delivery_line(delivery: dict[str, Any], now: datetime, has_handler: bool | None) -> Text:
    """`has_handler`: whether the group has a handler for the event; None if that is not known."""
    pending = delivery["pending"]
    said = ""
    if pending is not None and pending["due_at"] is not None:
        said = f", due in {lasted((pending['due_at'] - now).total_seconds() * 1000)}"
    elif pending is not None and pending["consumer"]:
        said = f" by {pending['consumer']}{'' if pending['consumer_alive'] else ' (gone)'}"
    failures: list[dict[str, str]] = [] if pending is None else pending["failures"]
    state = delivery["state"]
    style = STYLES.get(state, "")
    if delivery["inferred"] and has_handler is not True:  # a group acknowledges also what it has no handler for
        state, style = ("acknowledged", style) if has_handler is None else ("no handler for it", "dim")
    because = "".join(f"; {failure['handler']}: {failure['error']}" for failure in failures)
    return Text.assemble(
        safe(delivery["group"]),
        ": ",
        (state, style),
        printed(f"{said}{because}"),
    )


def _letter_line(letter: dict[str, Any]) -> Text:
    kind = letter["error_type"].rpartition(".")[2] or letter["reason"]
    outcomes = [replay["outcome"] for replay in letter["replays"]]
    return Text.assemble(
        (f"letter {safe(letter['id'])} ", "red" if letter["state"] == "dead" else ""),
        f"{letter['state']}{f' ({outcomes[-1]})' if outcomes else ''}, {safe(letter['handler'] or 'no handler')}: ",
        printed(f"{kind}: {letter['error'][:300]}"),
    )
