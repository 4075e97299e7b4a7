"""The command `doctor`: what endangers a server and its streams, and what commands cost there."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.text import Text

from rapids.cli.display import Column, Json, note, print_json, print_table, printed, safe, terminal
from rapids.cli.root import FAILED, Url, app, execute
from rapids.clients import RedisClient
from rapids.inspection import Diagnosis, count_commands, diagnose

__all__ = ["Cost", "doctor"]

HOUR = 3_600
SHOWN_COMMANDS = 15


@dataclass(frozen=True, slots=True)
class Cost:
    """What was counted. `commands` are all that the server ran in this time, but for the two that counted them."""

    seconds: float
    commands: int
    events: int
    """Entries that were appended to any stream (XADD)."""
    commands_per_event: float | None
    """`commands / events`, with what ran at the same time for other reasons; None without events."""
    commands_per_hour: float
    """`commands / seconds * 3600`: an idle hour, if nothing was emitted and nobody else used the server."""
    by_command: Mapping[str, int]


@app.command()
def doctor(
    streams: Annotated[
        list[str] | None, typer.Option("--stream", "-s", help="A stream; by default all of the server. Repeatable.")
    ] = None,
    cost: Annotated[
        bool, typer.Option("--cost", help="Count commands instead: for an event, and for an idle hour.")
    ] = False,
    seconds: Annotated[float, typer.Option(min=0.1, max=3_600, help="How long --cost counts.")] = 10.0,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Check a server and its streams, and say what to do.

    Server settings, versions, persistence, memory, clocks, permissions; groups without living consumers, orphaned keys,
    streams that nobody reads, trims that lose entries. Nothing is changed. The code is 1 if there is a danger.
    """
    if cost:
        counted = execute(url, lambda redis: _counted(redis, seconds))
        print_json(counted) if as_json else _print_cost(counted)
        return
    diagnosis = execute(url, lambda redis: diagnose(redis, streams=streams))
    if as_json:
        print_json(diagnosis)
    else:
        _print_diagnosis(diagnosis)
    if diagnosis.is_dangerous:
        raise typer.Exit(FAILED)


def _print_diagnosis(diagnosis: Diagnosis) -> None:
    out = terminal()
    for finding in diagnosis.findings:
        style = "bold red" if finding.severity == "danger" else "yellow"
        out.print(Text.assemble((f"{finding.severity:8}", style), (safe(finding.subject), "bold"), f"  {finding.kind}"))
        out.print(printed(f"  {finding.message}"), soft_wrap=not out.is_terminal)
        if finding.advice:
            out.print(Text.assemble(("  -> ", "green"), safe(finding.advice)), soft_wrap=not out.is_terminal)
    dangers = sum(finding.severity == "danger" for finding in diagnosis.findings)
    warnings = len(diagnosis.findings) - dangers
    looked = f"server {', '.join(diagnosis.servers)}, {len(diagnosis.streams):,} streams, {diagnosis.groups:,} groups"
    note(
        f"{looked}: {dangers:,} danger{'' if dangers == 1 else 's'}, {warnings:,} warning{'' if warnings == 1 else 's'}"
    )
    if not diagnosis.complete:
        note("not all keys of the server were looked at: name the streams with --stream")


async def _counted(redis: RedisClient, seconds: float) -> Cost:
    before = await count_commands(redis)
    await asyncio.sleep(seconds)
    after = await count_commands(redis)
    ours = {"info": 1}
    counts = {name: count - before.get(name, 0) - ours.get(name, 0) for name, count in after.items()}
    used = {name: count for name, count in sorted(counts.items(), key=lambda item: -item[1]) if count > 0}
    commands, events = sum(used.values()), used.get("xadd", 0)
    per_event = commands / events if events else None
    return Cost(seconds, commands, events, per_event, commands / seconds * HOUR, used)


def _print_cost(cost: Cost) -> None:
    rows = [(name, count, f"{count / cost.seconds:,.1f}") for name, count in cost.by_command.items()]
    if rows:
        columns = [Column("COMMAND"), Column("CALLS", is_number=True), Column("A SECOND", is_number=True)]
        print_table(columns, rows[:SHOWN_COMMANDS])
    counted = f"{cost.commands:,} commands and {cost.events:,} events in {cost.seconds:g} s"
    out = terminal()
    out.print(f"{counted}, on the whole server; commands that scripts call count, too", soft_wrap=True)
    if cost.commands_per_event is not None:
        formula = f"{cost.commands:,} / {cost.events:,}"
        out.print(f"an event: {cost.commands_per_event:,.1f} commands (commands / events = {formula})", soft_wrap=True)
        out.print("an idle hour: count again while nothing is emitted", soft_wrap=True)
    else:
        formula = f"{cost.commands:,} / {cost.seconds:g} x 3,600"
        hour = f"{cost.commands_per_hour:,.0f} commands (commands / seconds x 3,600 = {formula})"
        out.print(f"an idle hour: {hour}", soft_wrap=True)
        out.print("an event: count again while events are emitted", soft_wrap=True)
