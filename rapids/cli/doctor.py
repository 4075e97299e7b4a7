"""The command `doctor`: what endangers a server and its streams, and what commands cost there."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.padding import Padding
from rich.text import Text

from rapids.cli.display import Column, Json, note, print_json, print_table, printed, safe, terminal
from rapids.cli.root import FAILED, Url, app, execute, fail
from rapids.inspection import CommandCounts, Diagnosis, count_commands, diagnose

__all__ = ["Cost", "doctor"]

HOUR = 3_600
SHOWN_COMMANDS = 15
SHOWN_OTHERS = 5
INDENT = (0, 0, 0, 2)


@dataclass(frozen=True, slots=True)
class Cost:
    """What was counted, on the whole server and for all its clients."""

    seconds: float
    commands: int
    """Those of the kinds that Rapids runs."""
    events: int
    """Entries that were appended to any stream (XADD)."""
    commands_per_event: float | None
    """`commands / events`, with what ran at the same time for other reasons; None without events."""
    commands_per_hour: float
    """`commands / seconds * 3600`: an idle hour, if nothing was emitted and nobody else used the server."""
    by_command: Mapping[str, int]
    others: Mapping[str, int]
    """Commands that Rapids never runs, and that are not in the other figures."""

    @classmethod
    def of(cls, counts: CommandCounts, seconds: float) -> "Cost":
        """The cost, from what was counted in so many seconds."""
        commands, events = sum(counts.rapids.values()), counts.rapids.get("xadd", 0)
        per_event = commands / events if events else None
        return cls(seconds, commands, events, per_event, commands / seconds * HOUR, counts.rapids, counts.others)


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
        if streams:
            fail("--stream is not for --cost, which counts what the whole server runs")
        cost_of_all = Cost.of(execute(url, lambda redis: count_commands(redis, seconds=seconds)), seconds)
        print_json(cost_of_all) if as_json else _print_cost(cost_of_all)
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
        out.print(
            Text.assemble((f"{finding.severity:8}", style), (safe(finding.subject), "bold"), f"  {finding.kind}"),
            soft_wrap=True,
        )
        out.print(Padding(printed(finding.message), INDENT, expand=False))
        if finding.advice:
            out.print(Padding(Text.assemble(("-> ", "green"), safe(finding.advice)), INDENT, expand=False))
    dangers = sum(finding.severity == "danger" for finding in diagnosis.findings)
    warnings = len(diagnosis.findings) - dangers
    looked = f"server {', '.join(diagnosis.servers)}, {len(diagnosis.streams):,} streams, {diagnosis.groups:,} groups"
    note(
        f"{looked}: {dangers:,} danger{'' if dangers == 1 else 's'}, {warnings:,} warning{'' if warnings == 1 else 's'}"
    )
    if not diagnosis.complete:
        note("not all keys of the server were looked at: name the streams with --stream")


def _print_cost(cost: Cost) -> None:
    rows = [(name, count, f"{count / cost.seconds:,.1f}") for name, count in cost.by_command.items()]
    if rows:
        columns = [Column("COMMAND"), Column("CALLS", is_number=True), Column("A SECOND", is_number=True)]
        print_table(columns, rows[:SHOWN_COMMANDS])
    out = terminal()
    counted = f"{cost.commands:,} commands and {cost.events:,} events (XADD) in {cost.seconds:g} s"
    out.print(f"{counted}, by all clients of the server and by their scripts", soft_wrap=True)
    if cost.commands_per_event is not None:
        formula = f"{cost.commands:,} / {cost.events:,}"
        out.print(f"an event: {cost.commands_per_event:,.1f} commands (commands / events = {formula})", soft_wrap=True)
        out.print("an idle hour: count again while nothing is emitted", soft_wrap=True)
    else:
        formula = f"{cost.commands:,} / {cost.seconds:g} x 3,600"
        hour = f"{cost.commands_per_hour:,.0f} commands (commands / seconds x 3,600 = {formula})"
        out.print(f"an idle hour: {hour}", soft_wrap=True)
        out.print("an event: count again while events are emitted", soft_wrap=True)
    if cost.others:
        named = ", ".join(f"{name} {count:,}" for name, count in list(cost.others.items())[:SHOWN_OTHERS])
        more = ", ..." if len(cost.others) > SHOWN_OTHERS else ""
        note(f"not counted, since Rapids never runs them: {named}{more}")
        note("who runs these may run commands that are counted, too: for exact figures, use a server of Rapids alone")
