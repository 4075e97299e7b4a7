"""The commands `schema snapshot` and `schema check`: whether today's event classes read what is stored."""

import inspect
import os
import sys
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer
from rich.text import Text

from rapids.cli.catalog_commands import found_in
from rapids.cli.display import Column, Json, note, print_json, print_table, printed
from rapids.cli.root import FAILED, app, execute, fail
from rapids.cli.shown_letters import redactor
from rapids.cli.targets import Found
from rapids.contracts import (
    EventChange,
    Requirement,
    Snapshot,
    SnapshotError,
    StoredCheck,
    StoredProblem,
    check_stored,
    compare,
)
from rapids.dead_letters import default_dlq
from rapids.events import get_event_class
from rapids.redaction import escaped

__all__ = ["schema_app"]

schema_app: typer.Typer = typer.Typer(
    name="schema",
    help="Keep a snapshot of event schemas, and check changes against it.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(schema_app)

Targets: TypeAlias = Annotated[
    list[str],
    typer.Argument(metavar="MODULE:NAME...", help="Routers, or applications, whose modules have the event classes."),
]


@schema_app.command()
def snapshot(
    targets: Targets,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; without it, standard output.")
    ] = None,
) -> None:
    """Print what each event class writes and reads, as JSON. Commit it: events.json."""
    found_in(targets)
    made = Snapshot.of()
    if not made.events:
        fail(f"there is no event class in {', '.join(targets)}")
    if output is None:
        sys.stdout.write(made.dumps())
    else:
        try:
            output.write_text(made.dumps(), encoding="utf-8")
        except OSError as error:
            fail(f"{output} cannot be written: {error.strerror or error}")
        note(f"{len(made.events):,} event types in {output}")


@schema_app.command()
def check(
    targets: Targets,
    file: Annotated[Path, typer.Option("--snapshot", help="The committed snapshot.")] = Path("events.json"),
    required: Annotated[
        Requirement,
        typer.Option("--require", help="What must hold. backward: today's classes read what is stored."),
    ] = "backward",
    as_format: Annotated[
        Literal["text", "github"], typer.Option("--format", help="github: annotations of a workflow.")
    ] = "text",
    url: Annotated[
        str | None, typer.Option("--url", help="Also parse what is stored in this Redis. Changes nothing.")
    ] = None,
    newest: Annotated[int, typer.Option(min=1, help="With --url: so many entries of each event type.")] = 1_000,
    seconds: Annotated[float, typer.Option(min=1, help="With --url: for so long at most.")] = 60.0,
    as_json: Json = False,
) -> None:
    """Compare the event classes with the snapshot, and classify each difference.

    full: old and new read each other. backward: new classes read old events. forward: old classes read new events.

    With --url, the newest entries of each type, everything pending and all open dead letters of the routers' streams
    are parsed, too. Without a snapshot, only they are.

    Exits with 1 if a change is less than required or something stored would not parse, with 2 if nothing was checked.
    """
    found = found_in(targets)
    stored = None if url is None else _stored(found, url, newest, seconds)
    changes = () if stored is not None and not file.exists() else compare(_read(file), Snapshot.of())
    failed = [one for one in changes if not one.fits(required)]
    is_ok = not failed and (stored is None or not stored.failed)
    if as_json:
        print_json({"require": required, "ok": is_ok, "events": changes, "stored": stored})
    elif as_format == "github":
        for one in changes:
            _annotate(one, required, file)
        for problem in stored.problems if stored is not None else ():
            _annotate_stored(problem, file)
    else:
        _print_changes(changes, required)
        if stored is not None and stored.problems:
            _print_stored(stored)
    note(_summary(changes, failed, required, file) if file.exists() else f"there is no {file}")
    if stored is not None:
        note(str(stored))
    if not is_ok:
        raise typer.Exit(FAILED)


def _read(file: Path) -> Snapshot:
    try:
        return Snapshot.loads(file.read_text(encoding="utf-8"))
    except SnapshotError as error:
        fail(f"{file}: {error}")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}: make it with rapids schema snapshot")


def _stored(found: Found, url: str, newest: int, seconds: float) -> StoredCheck:
    """What of the routers' streams and dead-letter streams today's classes would not parse."""
    if not found.routers:
        fail("--url needs a router, whose stream is read: name one, or the Rapids of the application")
    streams = [router.stream for router in found.routers]
    dlqs = [router.dlq_stream or default_dlq(router.stream) for router in found.routers]
    hides = redactor()
    return execute(
        url, lambda redis: check_stored(redis, streams, dlqs=dlqs, newest=newest, seconds=seconds, redactor=hides)
    )


def _print_stored(stored: StoredCheck) -> None:
    columns = [
        Column("STORED IN"),
        Column("WHAT"),
        Column("EVENT TYPE"),
        Column("WOULD NOT PARSE", is_number=True),
        Column("FIELD"),
        Column("WHY", is_below=True),
        Column("SUCH AS"),
    ]
    rows = [
        (
            one.stream,
            f"{one.place}{f' of {one.group}' if one.group else ''}",
            one.event_type,
            one.count,
            one.pointer,
            f"{one.message}{' (a letter says so)' if one.is_known and one.place != 'letters' else ''}",
            one.example,
        )
        for one in stored.problems
    ]
    print_table(columns, rows)


def _annotate_stored(one: StoredProblem, file: Path) -> None:
    path, line = _place(one.event_type) or (str(file), 1)
    text = f"{one.count:,} {one.place} of {one.stream} would not parse, such as {one.example}: {one.message}"
    title = f"{one.event_type} {one.pointer}".strip()
    where = f"file={_property(path)},line={line},title={_property(escaped(title))}"
    sys.stdout.write(f"::{'notice' if one.is_known else 'error'} {where}::{_data(escaped(text))}\n")


def _print_changes(changes: tuple[EventChange, ...], required: Requirement) -> None:
    rows: list[tuple[str, str, str, Text, str]] = []
    for one in changes:
        style = "green" if one.fits(required) else "red"
        if one.error or one.note or not one.differences:
            rows.append((one.event_type, "", one.error or one.note, printed(one.compatibility, style), ""))
        for at in one.differences:
            # A migration decides for the whole event: then what each field alone would mean is no fault.
            colour = style if one.error or one.note else "green" if at.compatibility in ("full", required) else "red"
            rows.append((one.event_type, at.pointer, at.change, printed(at.compatibility, colour), at.reason))
    if rows:
        names = ("EVENT TYPE", "FIELD", "CHANGE", "COMPATIBLE", "WHY NOT MORE")
        columns = [Column(name, is_below=name == names[-1]) for name in names]
        print_table(columns, rows)


def _summary(changes: tuple[EventChange, ...], failed: list[EventChange], required: Requirement, file: Path) -> str:
    if not changes:
        return f"no change since {file}"
    types = "1 event type" if len(changes) == 1 else f"{len(changes):,} event types"
    if failed:
        return f"{types} changed since {file}, {len(failed):,} not as required: {required}"
    return f"{types} changed since {file}, all as required ({required}): write the snapshot again"


def _annotate(one: EventChange, required: Requirement, file: Path) -> None:
    """Workflow commands: https://docs.github.com/actions/reference/workflow-commands-for-github-actions"""
    kind = "notice" if one.fits(required) else "error"
    path, line = _place(one.event_type) or (str(file), 1)
    texts = [
        (f"{one.event_type} {at.pointer}".strip(), at.compatibility, at.change, at.reason) for at in one.differences
    ]
    if one.error or one.note or not texts:
        texts.insert(0, (one.event_type, one.compatibility, one.error or one.note, ""))
    for title, level, change, reason in texts:
        text = f"{change} (compatible: {level}{f'; {reason}' if reason else ''})"
        where = f"file={_property(path)},line={line},title={_property(title)}"
        sys.stdout.write(f"::{kind} {where}::{_data(text)}\n")


def _place(event_type: str) -> tuple[str, int] | None:
    """The file and the line of a class, as seen from the working directory."""
    cls = get_event_class(event_type)
    if cls is None:
        return None
    try:
        path, line = inspect.getsourcefile(cls), inspect.getsourcelines(cls)[1]
    except (OSError, TypeError):
        return None
    return None if path is None else (os.path.relpath(path), line)


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
