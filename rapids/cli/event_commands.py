"""The command `emit`: an event by hand."""

import json
import sys
from difflib import get_close_matches
from typing import Annotated, Any, cast

import typer
from pydantic import ValidationError
from redis.exceptions import RedisError

from rapids import Event, EventEmitter, GenericEvent, get_event_class
from rapids.audit import AuditLog
from rapids.cli.catalog_commands import App, load
from rapids.cli.consent import DryRun, Reason, Yes, actor, agree
from rapids.cli.display import Json, note, print_json, to_json
from rapids.cli.root import FAILED, Url, app, execute, fail
from rapids.cli.stream_choice import StreamName, chosen_stream
from rapids.clients import RedisClient
from rapids.events import event_classes

NEAR = 3
SHOWN_ERRORS = 5


@app.command()
def emit(
    event_type: Annotated[str, typer.Argument(metavar="TYPE", help="The event type, such as order.placed.")],
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="The event's own fields as a JSON object; - reads standard input.")
    ] = "{}",
    named: StreamName = None,
    targets: App = None,
    correlation_id: Annotated[str | None, typer.Option(help="The correlation id of the event.")] = None,
    reason: Reason = "",
    yes: Yes = False,
    dry_run: DryRun = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Append an event to a stream.

    With --app, its class validates it first. Without it, the data is appended as it is, and the handlers find out. The
    stream is not trimmed. The audit log of the stream has who emitted what.
    """
    routers = load(targets)
    event = _event(event_type, sys.stdin.read() if data == "-" else data, correlation_id, is_strict=bool(targets))
    stream = chosen_stream(url, named, own=[router.stream for router in routers])
    cls = type(event)
    how = "not validated: no --app" if cls is GenericEvent else f"valid by {cls.__module__}.{cls.__qualname__}"
    note(f"emit 1 event {event_type} to {stream} ({how})")
    if dry_run:
        if as_json:
            print_json({"event_type": event_type, "event_id": event.id, "stream": stream, "entry_id": None})
        return
    agree(f"emit {event_type} to {stream}?", yes=yes)

    async def append(redis: RedisClient) -> tuple[str, str]:
        entry_id = await EventEmitter(redis, stream, maxlen=None).emit(event)
        details = {"event_type": event_type[:512], "event_id": event.id[:200], "entry_id": entry_id}
        try:
            await AuditLog(redis, stream).add("event_emitted", actor=actor(), reason=reason, details=details)
        except RedisError as error:  # the event is stored all the same: who took it for lost would emit it twice
            return entry_id, str(error) or type(error).__name__
        return entry_id, ""

    entry_id, refused = execute(url, append)
    if as_json:
        print_json({"event_type": event_type, "event_id": event.id, "stream": stream, "entry_id": entry_id})
    else:
        note(f"stored as {entry_id}, event id {event.id}")
    if refused:
        fail(f"the event is stored, and the audit log does not have it: {refused}", FAILED)


def _event(event_type: str, data: str, correlation_id: str | None, *, is_strict: bool) -> Event:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        fail(f"DATA is not JSON: {error}")
    if not isinstance(fields, dict):
        fail("DATA must be a JSON object: the event's own fields")
    own = cast("dict[str, Any]", fields)
    common: dict[str, Any] = {} if correlation_id is None else {"correlation_id": correlation_id}
    if reserved := sorted({"id", "timestamp", "correlation_id", "causation_id", "metadata"} & own.keys()):
        fail(f"DATA has {', '.join(reserved)}: these are common fields, which emit sets (--correlation-id)")
    cls = get_event_class(event_type)
    if cls is None and is_strict:
        near = ", ".join(get_close_matches(event_type, [one.event_type for one in event_classes()], NEAR))
        fail(f"no class has the event type {event_type!r}{f'; near are {near}' if near else ''}")
    try:
        if cls is None:
            return GenericEvent(raw_type=event_type, data=own, **common)
        return cls.model_validate_json(to_json({**own, **common}))
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, one['loc'])) or event_type}: {one['msg']}" for one in error.errors()]
        more = f"; and {len(problems) - SHOWN_ERRORS} more" if len(problems) > SHOWN_ERRORS else ""
        fail(f"this is no valid {event_type}: {'; '.join(problems[:SHOWN_ERRORS])}{more}")
