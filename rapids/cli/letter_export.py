"""The command `dlq export`: dead letters as lines of JSON."""

import json
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, TextIO

import typer

from rapids import DeadLetterQueue, LetterFilter
from rapids.audit import AuditLog
from rapids.cli.consent import actor
from rapids.cli.display import note, to_json
from rapids.cli.letter_options import EventStream, QueueName, choosing, dlq_app, letters_of
from rapids.cli.root import Url, execute, fail
from rapids.cli.shown_letters import redactor, shown_of
from rapids.cli.stream_choice import chosen_queue
from rapids.clients import RedisClient
from rapids.redaction import MASK

__all__ = ["export"]


@dlq_app.command()
@choosing()
def export(
    wanted: LetterFilter,
    dlq: QueueName = None,
    stream: EventStream = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file that does not exist yet; without it, standard output.")
    ] = None,
    max_items: Annotated[int | None, typer.Option(min=1, help="Letters at most.")] = None,
    url: Url = None,
) -> None:
    """Write dead letters as lines of JSON, the newest first.

    Hidden values are masked. The audit log has who exported what, and how many letters.
    """
    name = chosen_queue(url, dlq, stream)
    try:
        opened = nullcontext(sys.stdout) if output is None else output.open("x", encoding="utf-8")
        with opened as file:
            written, is_all = execute(url, lambda redis: _exported(redis, name, wanted, file, max_items))
    except OSError as error:
        if output is None:  # the reader of standard output went away
            raise
        fail(f"{output} cannot be written: {error.strerror or error}")
    note(f"{written:,} letters of {name} were exported{'' if is_all else '; there are more'}")


async def _exported(
    redis: RedisClient, name: str, wanted: LetterFilter, file: TextIO, max_items: int | None
) -> tuple[int, bool]:
    """How many letters were written, and whether these are all."""
    hiding, log = redactor(), AuditLog(redis, name)
    filters = {field: value for field, value in asdict(wanted).items() if value is not None}
    if wanted.q and hiding.names:  # somebody may search for a secret that is hidden here
        filters["q"] = MASK
    details = {"filter": json.dumps(filters, default=str)[:1_000], "max_items": str(max_items or "")}
    await log.add("export_started", actor=actor(), details=details)
    written, end = 0, "interrupted"
    try:
        async for letter, _ in letters_of(DeadLetterQueue(redis, name), wanted, max_items):
            if letter is None:
                end = "max_items"
                return written, False
            file.write(to_json(shown_of(letter, name, hiding)) + "\n")
            written += 1
        end = "complete"
        return written, True
    finally:
        await log.add("export_ended", actor=actor(), details={"letters": str(written), "end": end})
