"""What goes over HTTP of a causation tree. Whatever an event says of itself is hostile text, and comes as data only."""

from datetime import datetime
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from rapids.inspection import DeliveryState, Limit
from rapids_fastapi.admin.payloads import clean
from rapids_fastapi.admin.replay_schemas import ReplayOutcome
from rapids_fastapi.admin.schemas import DeadLetter, Payload
from rapids_fastapi.admin.stream_schemas import HandlerAttempts, Name, ParkedFailure, Text

__all__ = [
    "LONGEST_ID",
    "CausationTree",
    "Delivery",
    "Event",
    "HandlerState",
    "LetterLink",
    "LinkedDeadLetter",
    "Links",
    "Pending",
    "ReplayUnderWay",
    "Window",
]

LONGEST_ID = 1_000

Id = Annotated[str, AfterValidator(partial(clean, longest=LONGEST_ID))]

_AT = "2025-11-23T21:00:00Z"
_PAYLOAD: dict[str, Any] = {"encoding": "json", "value": {"order_id": "A-17"}, "size": 19, "truncated": False}
_HANDLER: dict[str, Any] = {
    "handler": "take_payment",
    "state": "waiting",
    "failed_deliveries": 1,
    "due_at": "2025-11-23T21:00:20Z",
}
_PENDING: dict[str, Any] = {
    "consumer": "web-1-4711",
    "consumer_alive": True,
    "idle_ms": 1000,
    "deliveries": 1,
    "failures": [],
    "attempts": [],
}
_DELIVERY: dict[str, Any] = {
    "group": "payments",
    "state": "dead",
    "inferred": False,
    "handlers": [],
    "letters": ["1763931600000-0"],
}
_EVENT: dict[str, Any] = {
    "stream": "orders",
    "entry_id": "1763931500000-0",
    "appended_at": "2025-11-23T20:58:20Z",
    "event_id": "0a4dcf0e-3f0f-4f2b-9a0b-0d6f6c1f6f5e",
    "event_type": "order.placed",
    "timestamp": "2025-11-23T20:58:20+00:00",
    "causation_id": "",
    "schema_version": "1",
    "depth": 0,
    "children": [],
    "missing_parent": False,
    "in_cycle": False,
    "copies": 1,
    "data": _PAYLOAD,
    "metadata": {"encoding": "json", "value": {}, "size": 2, "truncated": False},
    "deliveries": [_DELIVERY],
}
_LETTER: dict[str, Any] = {
    "dlq": "{orders}:dlq",
    "id": "1763931600000-0",
    "href": "/rapids/api/dead-letters/1763931600000-0?dlq=%7Borders%7D%3Adlq",
    "state": "dead",
    "stream": "orders",
    "entry_id": "1763931500000-0",
    "group": "payments",
    "handler": "take_payment",
    "event_id": "0a4dcf0e-3f0f-4f2b-9a0b-0d6f6c1f6f5e",
    "event_type": "order.placed",
    "reason": "non_retryable",
    "error_type": "CardDeclined",
    "error": "the card was declined",
    "deliveries": 1,
    "failed_at": _AT,
    "replay_count": 0,
    "replays": [],
}
_REPLAY: dict[str, Any] = {
    "stream": "{orders}:rapids:replay:payments",
    "entry_id": "1763931700000-0",
    "appended_at": _AT,
    "group": "payments",
    "handler": "take_payment",
    "letter_id": "1763931600000-0",
    "count": 1,
    "event_id": "0a4dcf0e-3f0f-4f2b-9a0b-0d6f6c1f6f5e",
    "original_entry_id": "1763931500000-0",
    "delivery": {"group": "payments", "state": "undelivered", "inferred": False, "handlers": [], "letters": []},
}
_WINDOW: dict[str, Any] = {
    "stream": "orders",
    "kind": "events",
    "entries": 1204,
    "newest_id": "1763931600000-0",
    "newest_at": _AT,
    "oldest_id": "1763928000000-0",
    "oldest_at": "2025-11-23T20:00:00Z",
    "first_id": "1763928000000-0",
    "reaches_further": False,
    "exhausted": True,
}
_LINKS: dict[str, Any] = {
    "causation_tree": "/rapids/api/events?correlation_id=web-1",
    "letters": [],
    "windows": [{**_WINDOW, "stream": "{orders}:dlq", "kind": "letters"}],
    "complete": True,
}


def _shown(example: dict[str, Any]) -> ConfigDict:
    return ConfigDict(from_attributes=True, json_schema_extra={"example": example})


class HandlerState(BaseModel):
    """What is recorded of a handler of a pending event that failed before."""

    model_config: ClassVar[ConfigDict] = _shown(_HANDLER)

    handler: Name
    state: Literal["done", "dead", "gave_up", "waiting"] = Field(
        description="`done`: it finished, which is recorded and not inferred; `dead`: it has a dead letter; `gave_up`: "
        "it failed for good where there is no dead-letter stream; `waiting`: it is to run again."
    )
    failed_deliveries: int | None = Field(
        default=None, description="For one that waits: deliveries that count against max_deliveries."
    )
    due_at: datetime | None = Field(default=None, description="For one that waits: when it is to run again.")


class Pending(BaseModel):
    """Who has a pending event, since when, until when."""

    model_config: ClassVar[ConfigDict] = _shown(_PENDING)

    consumer: Name | None = Field(default=None, description="Who holds it; null unless it is held.")
    consumer_alive: bool
    idle_ms: int | None = Field(
        default=None, description="Since when it is held without a renewed lease, waits or is parked."
    )
    deliveries: int
    due_at: datetime | None = Field(default=None, description="When it is to be delivered again, if it waits.")
    failures: list[ParkedFailure] = Field(description="Why, if it is parked, redacted as the payload is.")
    attempts: list[HandlerAttempts] = Field(
        description="The failed attempts of the handlers that are to run again or gave up, redacted as the payload is."
    )


class Delivery(BaseModel):
    """What a group has made of an event."""

    model_config: ClassVar[ConfigDict] = _shown(_DELIVERY)

    group: Name
    state: DeliveryState = Field(
        description="`undelivered`; pending: `held`, `waiting` or `parked`; settled: `dead`, `replayed` or `discarded` "
        "by the state of its letters, or `handled`; `group_unknown`: the stream has no such group, letters name it."
    )
    inferred: bool = Field(
        description="Whether success is inferred from the acknowledgement: the group is past the event, it is not "
        "pending, and no letter was found. True for `handled`, which is also seen where the group began later."
    )
    pending: Pending | None = None
    handlers: list[HandlerState]
    letters: list[Id] = Field(description="The ids of its dead letters.")


class Event(BaseModel):
    """An event as one entry of a stream."""

    model_config: ClassVar[ConfigDict] = _shown(_EVENT)

    stream: Name
    entry_id: str
    appended_at: datetime | None
    event_id: Id
    event_type: Name
    timestamp: Name = Field(description="When it happened, as it says itself.")
    causation_id: Id
    schema_version: Name
    parent: int | None = Field(default=None, description="The place, in `events`, of the event that caused it.")
    depth: int = Field(description="How many causes lead to a root.")
    children: list[int] = Field(description="The places of those it caused.")
    missing_parent: bool = Field(description="Whether it names a cause that was not found.")
    in_cycle: bool = Field(description="Whether its causes lead back to itself; the first of a cycle is a root.")
    copies: int = Field(description="How many entries with this event's id were found.")
    data: Payload
    metadata: Payload
    deliveries: list[Delivery] = Field(description="One for each group of its stream.")


class LetterLink(BaseModel):
    """A dead letter of the same correlation id."""

    model_config: ClassVar[ConfigDict] = _shown(_LETTER)

    dlq: Name
    id: Id
    href: str = Field(description="Where all of it is.")
    state: Literal["dead", "replayed", "discarded"]
    stream: Name
    entry_id: Name
    group: Name
    handler: Name
    event_id: Id
    event_type: Name
    reason: Name
    error_type: Name
    error: Text
    deliveries: int
    failed_at: datetime | None
    replay_of: Id | None = Field(default=None, description="The letter whose replay failed here, if it was one.")
    replay_count: int
    replays: list[ReplayOutcome] = Field(description="What became of its replay; not told in a letter's `links`.")


class ReplayUnderWay(BaseModel):
    """A replay that is not settled yet."""

    model_config: ClassVar[ConfigDict] = _shown(_REPLAY)

    stream: Name
    entry_id: str
    appended_at: datetime | None
    group: Name
    handler: Name = Field(description="The only handler to run; empty for all of the group's.")
    letter_id: Id
    count: int = Field(description="The how manieth replay this is.")
    event_id: Id
    original_entry_id: Name
    delivery: Delivery


class Window(BaseModel):
    """What was looked at of a stream, from its newest entry on."""

    model_config: ClassVar[ConfigDict] = _shown(_WINDOW)

    stream: Name
    kind: Literal["events", "replays", "letters", "archive"]
    entries: int = Field(description="How many entries were looked at.")
    newest_id: str | None
    newest_at: datetime | None
    oldest_id: str | None
    oldest_at: datetime | None
    first_id: str | None = Field(description="The oldest entry that the stream has.")
    reaches_further: bool = Field(description="Whether the stream has older entries that were not looked at.")
    exhausted: bool = Field(description="Whether all that was asked for was looked at.")


class CausationTree(BaseModel):
    """Everything found with a correlation id, as of one moment."""

    model_config: ClassVar[ConfigDict] = _shown(
        {
            "at": _AT,
            "correlation_id": "web-1",
            "began_at": "2025-11-23T20:58:20Z",
            "roots": [0],
            "events": [_EVENT],
            "replays": [],
            "letters": [_LETTER],
            "windows": [_WINDOW],
            "complete": True,
            "limits": [],
            "next_cursor": "ZXZlbnRzOlcze30sIisiXQ",
        }
    )

    at: datetime
    correlation_id: Id
    began_at: datetime | None = Field(description="When the first event that was found was appended.")
    roots: list[int] = Field(description="The places of events without a cause that was found.")
    events: list[Event] = Field(description="In the order they were appended.")
    replays: list[ReplayUnderWay] = Field(description="Those that are not settled yet.")
    letters: list[LetterLink] = Field(description="Oldest first, those of events that were not found included.")
    windows: list[Window] = Field(description="What was looked at.")
    complete: bool = Field(description="Whether all that was asked for was looked at, and nothing was left out.")
    limits: list[Limit] = Field(description="What stopped it before that.")
    next_cursor: str | None = Field(
        description="For `cursor`, to go on with what is older, in a tree of its own; null where nothing is left."
    )


class Links(BaseModel):
    """What else has the correlation id of a dead letter."""

    model_config: ClassVar[ConfigDict] = _shown(_LINKS)

    causation_tree: str | None = Field(description="Where the causation tree is; null without a correlation id.")
    letters: list[LetterLink] = Field(description="Other letters, of all queues, as far as `windows` reach.")
    windows: list[Window]
    complete: bool = Field(description="Whether these are all there are.")


class LinkedDeadLetter(DeadLetter):
    """A dead letter with all there is to know of it, and what else has its correlation id."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra={
            "example": {**cast(dict[str, Any], DeadLetter.model_json_schema()["example"]), "links": _LINKS}
        }
    )

    links: Links
