"""Events over HTTP: the causation tree of a correlation id. Texts of events are untrusted input."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Literal
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from rapids import DeadLetter
from rapids.dead_letters import ReplayOutcome
from rapids.inspection import CausationTree as CoreCausationTree
from rapids.inspection import (
    DeliveryState,
    HandlerAttempts,
    Inspector,
    Limit,
    ParkedFailure,
    ScannedWindow,
    TracedDelivery,
    TracedHandler,
    TracedLetter,
)
from rapids.redaction import HiddenValues, Redactor
from rapids_fastapi.admin import examples
from rapids_fastapi.admin.access import CREDENTIALS, AdminRoute, RunningDep, needs
from rapids_fastapi.admin.models import Answer
from rapids_fastapi.admin.pages import NEXT_LINK, CursorQuery, link_next_page, path_of
from rapids_fastapi.admin.payload import (
    MAX_IN_LIST,
    MAX_SEARCHED,
    Payload,
    cleaned,
    filled,
    redacted_entry,
    show,
    show_event,
)
from rapids_fastapi.admin.problems import Problem, answers
from rapids_fastapi.admin.query import Moment
from rapids_fastapi.state import Running

__all__ = ["Links", "links_of", "router"]

MAX_ID = 1_000

MAX_PAYLOADS = 1024 * 1024
"""Bytes of payloads that are searched for one answer. Others are not shown, nor are errors about them."""

_PROBLEMS = (
    "admin-closed",
    "unauthenticated",
    "auth-unavailable",
    "forbidden",
    "invalid",
    "redis-unavailable",
    "not-running",
)
router: APIRouter = APIRouter(prefix="/api/events", route_class=AdminRoute, dependencies=CREDENTIALS)


class Pending(Answer):
    """The state of a pending event."""

    consumer: str | None = None
    """The consumer that holds it; null unless it is held."""
    consumer_alive: bool
    idle_ms: int | None = None
    """Milliseconds for which it is held without a renewed lease, waits, or is parked."""
    deliveries: int
    due_at: datetime | None = None
    """When it will be delivered again, if it waits."""
    failures: tuple[ParkedFailure, ...]
    """Why it is parked; redacted like the payload."""
    attempts: tuple[HandlerAttempts, ...]
    """The failed attempts of handlers that will run again or gave up; redacted like the payload."""


class Delivery(Answer):
    """The state of an event in a group."""

    group: str
    state: DeliveryState
    """`undelivered`: the group has not read it yet. Pending: `held`, `waiting` or `parked`. Settled: `handled`, or
    `dead`, `replayed` or `discarded` by the state of its letters. `group_unknown`: letters name a group that the stream
    does not have."""
    inferred: bool
    """Whether success is concluded from the acknowledgement: the group has read beyond the event, it is not pending,
    and no letter was found. True for `handled`, which is also shown if the group began after the event."""
    pending: Pending | None = None
    handlers: tuple[TracedHandler, ...]
    letters: tuple[str, ...]
    """The ids of its dead letters."""


class Event(Answer):
    """An event as one entry of a stream."""

    stream: str
    entry_id: str
    appended_at: datetime | None
    event_id: str
    event_type: str
    timestamp: str
    """When it happened, by its own field."""
    causation_id: str
    schema_version: str
    parent: int | None = None
    """The index in `events` of the event that caused it."""
    depth: int
    """How many steps it is from its root; 0 for a root."""
    children: tuple[int, ...]
    """The indexes of the events that it caused."""
    missing_parent: bool
    """Whether it names a cause that was not found."""
    in_cycle: bool
    """Whether its causes lead back to itself. The first event of a cycle is a root."""
    copies: int
    """How many entries with this event's id were found."""
    data: Payload
    metadata: Payload
    deliveries: list[Delivery]
    """One for each group of its stream."""


class LetterLink(Answer):
    """A dead letter of the same correlation id."""

    dlq: str
    id: str
    href: str
    """The address of the letter with all details."""
    state: Literal["dead", "replayed", "discarded"]
    stream: str
    entry_id: str
    group: str
    handler: str
    event_id: str
    event_type: str
    reason: str
    error_type: str
    error: str
    deliveries: int
    failed_at: datetime | None
    replay_of: str | None = None
    """The letter whose replay failed here, if the entry was a replay."""
    replay_count: int
    replays: tuple[ReplayOutcome, ...]
    """The outcomes of its replay; empty in the `links` of a letter."""


class ReplayUnderWay(Answer):
    """A replay that is not settled yet."""

    stream: str
    entry_id: str
    appended_at: datetime | None
    group: str
    handler: str
    """The only handler to run; empty for all of the group's."""
    letter_id: str
    count: int
    """How often the letter was replayed, including this time."""
    event_id: str
    original_entry_id: str
    delivery: Delivery


class CausationTree(Answer):
    """Everything that was found with a correlation id, at one moment."""

    at: datetime
    correlation_id: str
    began_at: datetime | None
    """When the first of the found events was appended."""
    roots: tuple[int, ...]
    """The indexes of the events whose cause was not found, or that have none."""
    events: list[Event]
    """In the order in which they were appended."""
    replays: list[ReplayUnderWay]
    """The replays that are not settled yet."""
    letters: list[LetterLink]
    """Oldest first. Their events may be missing in `events`."""
    windows: tuple[ScannedWindow, ...]
    """The parts of streams that were read."""
    complete: bool
    """Whether everything that was requested was read."""
    limits: tuple[Limit, ...]
    """What ended the search earlier."""
    next_cursor: str | None
    """For `cursor`, to get older events as another tree; null if there are none."""


class Links(Answer):
    """What else has the correlation id of a dead letter."""

    causation_tree: str | None
    """The address of the causation tree; null without a correlation id."""
    letters: list[LetterLink]
    """Other letters, from all queues, in the parts that `windows` shows."""
    windows: tuple[ScannedWindow, ...]
    complete: bool
    """Whether these are all of them."""


@router.get(
    "",
    summary="Trace a correlation id",
    response_model=CausationTree,
    openapi_extra=needs("read", limited="searches"),
    responses=answers(*_PROBLEMS, "too-busy", example=examples.CAUSATION_TREE, headers=NEXT_LINK),
)
async def trace_events(
    request: Request,
    parts: RunningDep,
    correlation_id: Annotated[
        str, Query(min_length=1, max_length=MAX_ID, description="What the events have in common.", examples=["web-1"])
    ],
    since: Annotated[
        Moment | None, Query(description="Appended then or later. ISO 8601.", examples=["2025-11-23T20:00:00Z"])
    ] = None,
    until: Annotated[
        Moment | None, Query(description="Appended before. ISO 8601.", examples=["2025-11-24T00:00:00Z"])
    ] = None,
    cursor: CursorQuery = None,
) -> Response:
    """The causation tree: the events with a correlation id, and the state of each in every group.

    Reads the newest 10,000 entries of all streams here, replay streams, dead-letter queues and archives, for
    2 seconds at most. `windows` shows which parts were read. `next_cursor` leads to older ones. Success is not
    recorded: that an event was handled is concluded from its acknowledgement.
    """
    try:
        tree = await Inspector(parts.redis).trace(
            correlation_id,
            streams=parts.directory.streams,
            dlqs=sorted(parts.queues),
            since=since,
            until=until,
            cursor=cursor or None,
        )
    except ValueError as error:
        raise Problem("invalid", str(error)) from error
    base = path_of(request).removesuffix("/events")
    shown = await run_in_threadpool(_written, tree, parts.redactor, base)
    response = Response(shown, media_type="application/json")
    link_next_page(request, response, tree.cursor)
    return response


async def links_of(parts: Running, letter: DeadLetter, dlq: str, base: str) -> Links:
    """The causation tree's address, and other letters with the same correlation id, among the newest of all queues."""
    wanted = letter.correlation_id or letter.event_id
    if not 0 < len(wanted) <= MAX_ID:
        return Links(causation_tree=None, letters=[], windows=(), complete=False)
    found = await Inspector(parts.redis).letters_of(wanted, dlqs=sorted(parts.queues))
    others = [one for one in found.letters if (one.dlq, one.id) != (dlq, letter.id)]
    return Links(
        causation_tree=f"{base}/events?{urlencode({'correlation_id': wanted})}",
        letters=await run_in_threadpool(_links, others, parts.redactor, base),
        windows=cleaned(found.windows),
        complete=found.complete,
    )


def _written(tree: CoreCausationTree, redactor: Redactor, base: str) -> str:
    """The tree as JSON. Each event is written by itself: one call that writes all of them would keep other threads,
    and so the event loop, from running for a long time."""
    shown = _tree(tree, redactor, base)
    events = ",".join(event.model_dump_json(by_alias=True) for event in shown.events)
    rest = shown.model_copy(update={"events": []}).model_dump_json(by_alias=True)
    # In a text of JSON, there would be a backslash before the quotes.
    return rest.replace('"events":[]', f'"events":[{events}]', 1)


def _tree(tree: CoreCausationTree, redactor: Redactor, base: str) -> CausationTree:
    """The tree; `base` is the path of the API."""
    events: list[Event] = []
    left = MAX_PAYLOADS
    for event in tree.events:
        sizes = event.data_size, event.metadata_size
        left -= len(event.data or b"") + len(event.metadata or b"")
        raw = (event.data, event.metadata) if left >= 0 else (None, None)
        data, metadata = show_event(*raw, redactor, MAX_IN_LIST, sizes=sizes)
        hidden = redactor.hidden(data.searched, metadata.searched)
        deliveries = [cleaned(_redacted(delivery, redactor, hidden)) for delivery in event.deliveries]
        events.append(filled(Event, event, data=data.payload, metadata=metadata.payload, deliveries=deliveries))
    unknown = redactor.hidden(None)
    replays = [replace(replay, delivery=_redacted(replay.delivery, redactor, unknown)) for replay in tree.replays]
    return filled(
        CausationTree,
        tree,
        events=events,
        replays=[filled(ReplayUnderWay, replay) for replay in replays],
        letters=_links(tree.letters, redactor, base),
        next_cursor=tree.cursor,
    )


def _links(letters: Sequence[TracedLetter], redactor: Redactor, base: str) -> list[LetterLink]:
    links: list[LetterLink] = []
    left = MAX_PAYLOADS
    for letter in letters:
        left -= len(letter.data or b"") + len(letter.metadata or b"")
        payloads = (letter.data, letter.metadata) if left >= 0 else (None,)
        hidden = redactor.hidden(*(show(raw, redactor, MAX_IN_LIST).searched for raw in payloads))
        href = f"{base}/dead-letters/{quote(letter.id, safe='')}?{urlencode({'dlq': letter.dlq})}"
        error = cleaned(redactor.text(letter.error, hidden, MAX_SEARCHED))
        links.append(filled(LetterLink, letter, href=href, error=error))
    return links


def _redacted(delivery: TracedDelivery, redactor: Redactor, hidden: HiddenValues) -> TracedDelivery:
    """The delivery with hidden values removed from errors."""
    if delivery.pending is None:
        return delivery
    return replace(delivery, pending=redacted_entry(delivery.pending, redactor, hidden))
