"""What goes over HTTP of streams and their groups.

Names of groups, consumers and handlers are hostile text, and come as data only.
"""

from datetime import datetime
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from rapids_fastapi.admin.payloads import clean
from rapids_fastapi.admin.redaction import MASK
from rapids_fastapi.admin.schemas import ATTEMPT, Attempt
from rapids_fastapi.admin.scope import LONGEST_NAME

__all__ = [
    "Consumer",
    "Group",
    "GroupDetail",
    "GroupPage",
    "HandlerAttempts",
    "ParkedFailure",
    "Pause",
    "PauseRequest",
    "PauseResult",
    "PendingEntry",
    "PendingPage",
    "ResumeRequest",
    "Stream",
    "Streams",
]

LONGEST_REASON = 1_000

Name = Annotated[str, AfterValidator(partial(clean, longest=LONGEST_NAME))]
Text = Annotated[str, AfterValidator(partial(clean, longest=LONGEST_REASON))]

_AT = "2025-11-23T21:00:00Z"
_STREAM: dict[str, Any] = {
    "at": _AT,
    "stream": "orders",
    "length": 1204,
    "first_id": "1763928000000-0",
    "first_at": "2025-11-23T20:00:00Z",
    "last_id": "1763931600000-0",
    "last_at": _AT,
    "entries_added": 90210,
    "groups": 2,
    "memory": 262144,
}
_PAUSE = {"actor": "ann", "reason": "the bank is down", "since": "2025-11-23T20:59:00Z"}
_GROUP: dict[str, Any] = {
    "at": _AT,
    "stream": "orders",
    "group": "payments",
    "last_delivered_id": "1763931590000-0",
    "last_delivered_at": "2025-11-23T20:59:50Z",
    "entries_read": 90205,
    "lag": 5,
    "lag_exact": True,
    "pending": 3,
    "held": 2,
    "waiting": 1,
    "parked": 0,
    "oldest_unsettled_id": "1763931500000-0",
    "oldest_unsettled_ms": 100000,
    "replays": 0,
    "consumers": 2,
    "consumers_alive": 1,
    "pause": _PAUSE,
}
_CONSUMER: dict[str, Any] = {
    "consumer": "web-1-4711",
    "alive": True,
    "alive_since": "2025-11-23T20:00:00Z",
    "seen_at": "2025-11-23T20:59:59Z",
    "idle_ms": 1000,
    "inactive_ms": 4000,
    "pending": 2,
}
_ATTEMPTS: dict[str, Any] = {
    "handler": "take_payment",
    "attempts": [{**ATTEMPT, "delivery": 2, "error": MASK}],
    "left_out": 0,
}
# Without what is null in it, since FastAPI leaves that out of examples.
_PENDING: dict[str, Any] = {
    "entry_id": "1763931500000-0",
    "appended_at": "2025-11-23T20:58:20Z",
    "state": "waiting",
    "consumer_alive": False,
    "idle_ms": 20000,
    "deliveries": 2,
    "due_at": "2025-11-23T21:00:20Z",
    "handlers": ["take_payment"],
    "failures": [],
    "attempts": [_ATTEMPTS],
}
_CURSOR = "cGVuZGluZzoxNzYzOTMxNTAwMDAwLTFfMTc2MzkzMTU5MDAwMC0w"


def _shown(example: dict[str, Any]) -> ConfigDict:
    return ConfigDict(from_attributes=True, json_schema_extra={"example": example})


class Stream(BaseModel):
    """A stream as of one moment."""

    model_config: ClassVar[ConfigDict] = _shown(_STREAM)

    at: datetime = Field(description="When this was so, by the server's clock.")
    stream: Name
    length: int = Field(description="Entries that are in it now.")
    first_id: str | None = Field(description="The oldest entry that is in it.")
    first_at: datetime | None = Field(description="When that was appended, as its id says.")
    last_id: str | None = Field(description="The newest entry that is in it.")
    last_at: datetime | None
    entries_added: int | None = Field(description="Entries ever appended; null before Redis 7.0.")
    groups: int
    memory: int | None = Field(description="Bytes, as the server estimates; null where it may not be asked.")


class Streams(BaseModel):
    """The streams of this application's emitter and routers."""

    model_config: ClassVar[ConfigDict] = _shown({"items": [_STREAM], "missing": ["invoices"]})

    items: list[Stream]
    missing: list[Name] = Field(description="Those that are not there yet: nothing was emitted, no router started.")


class Pause(BaseModel):
    """Who paused a group, why, and since when. Whoever did so by hand may have left out any of it."""

    model_config: ClassVar[ConfigDict] = _shown(_PAUSE)

    actor: Name
    reason: Text
    since: datetime


class Group(BaseModel):
    """A group as of one moment. Counts are entries, but for the consumers."""

    model_config: ClassVar[ConfigDict] = _shown(_GROUP)

    at: datetime = Field(description="When this was so, by the server's clock.")
    stream: Name
    group: Name
    last_delivered_id: str
    last_delivered_at: datetime | None
    entries_read: int | None
    lag: int = Field(description="Entries not yet delivered to the group.")
    lag_exact: bool = Field(description="Whether `lag` is exact, and not an estimate.")
    pending: int = Field(description="Delivered and not acknowledged: held, waiting and parked.")
    held: int = Field(description="What consumers have, dead ones included.")
    waiting: int = Field(description="What is to be delivered again when it is due.")
    parked: int = Field(description="What failed for good where there is no dead-letter stream.")
    oldest_unsettled_id: str | None
    oldest_unsettled_ms: int | None = Field(description="How long ago that entry was appended (milliseconds).")
    replays: int = Field(description="Replays of dead letters that are not settled yet.")
    consumers: int = Field(description="Consumers the group knows, dead ones included until they are removed.")
    consumers_alive: int
    pause: Pause | None = Field(default=None, description="The pause that holds; null while the group is not paused.")


class GroupPage(BaseModel):
    """Groups of a stream, by name. A page may be short and have a next one."""

    model_config: ClassVar[ConfigDict] = _shown(
        {"stream": "orders", "items": [_GROUP], "next_cursor": "Z3JvdXBzOkxuQmhlVzFsYm5Sew"}
    )

    stream: Name
    items: list[Group]
    next_cursor: str | None = Field(description="For `cursor`, to get the next page; null on the last one.")


class Consumer(BaseModel):
    """A consumer of a group."""

    model_config: ClassVar[ConfigDict] = _shown(_CONSUMER)

    consumer: Name
    alive: bool = Field(description="Whether a living process of Rapids holds the name.")
    alive_since: datetime | None
    seen_at: datetime = Field(description="When it last asked the group for something, or renewed a lease.")
    idle_ms: int = Field(description="How long ago that was (milliseconds).")
    inactive_ms: int | None = Field(description="How long ago it last got something; null if never, or unknown.")
    pending: int = Field(description="Entries it holds.")


class GroupDetail(BaseModel):
    """One group with a page of its consumers, by name."""

    model_config: ClassVar[ConfigDict] = _shown(
        {"group": _GROUP, "consumers": [_CONSUMER], "next_cursor": "Y29uc3VtZXJzOkxuZGxZaTB4"}
    )

    group: Group
    consumers: list[Consumer]
    next_cursor: str | None = Field(description="For `cursor`, to get more consumers; null where there are none.")


class ParkedFailure(BaseModel):
    """Why an entry is parked."""

    model_config: ClassVar[ConfigDict] = _shown(
        {"handler": "take_payment", "reason": "max_deliveries_exceeded", "error": "[redacted]"}
    )

    handler: Name
    reason: Name
    error: Text = Field(description="Hidden unless redaction is off: only the payload would say what to hide in it.")


class HandlerAttempts(BaseModel):
    """How a handler failed so far on an entry."""

    model_config: ClassVar[ConfigDict] = _shown(_ATTEMPTS)

    handler: Name
    attempts: list[Attempt] = Field(
        description="Oldest first; of more than 20 the first 5 and the last 15. Errors are hidden unless redaction is "
        "off: only the payload would say what to hide in them."
    )
    left_out: int = Field(description="How many are left out between the fifth and the sixth.")


class PendingEntry(BaseModel):
    """An entry that was delivered to a group and is not acknowledged."""

    model_config: ClassVar[ConfigDict] = _shown(_PENDING)

    entry_id: str
    appended_at: datetime | None
    state: Literal["held", "waiting", "parked"]
    consumer: Name | None = Field(default=None, description="Who holds it; null unless it is held.")
    consumer_alive: bool
    idle_ms: int | None = Field(description="Since when it is held without a renewed lease, waits or is parked.")
    deliveries: int
    due_at: datetime | None = Field(description="For a waiting entry: when it is to be delivered again.")
    handlers: list[Name] = Field(description="The handlers that are to run again for it, as far as is known.")
    failures: list[ParkedFailure] = Field(description="For a parked entry: why.")
    attempts: list[HandlerAttempts] = Field(
        description="The failed attempts of the handlers that are to run again, or gave up where there is no "
        "dead-letter stream."
    )


class PendingPage(BaseModel):
    """Pending entries, in the order of the stream; waiting ones alone, the next one due first."""

    model_config: ClassVar[ConfigDict] = _shown(
        {"at": _AT, "stream": "orders", "group": "payments", "items": [_PENDING], "next_cursor": _CURSOR}
    )

    at: datetime
    stream: Name
    group: Name
    items: list[PendingEntry]
    next_cursor: str | None = Field(description="For `cursor`, to get the next page; null on the last one.")


class _Request(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    stream: str = Field(min_length=1, max_length=LONGEST_NAME)
    group: str = Field(min_length=1, max_length=LONGEST_NAME)


class PauseRequest(_Request):
    """Which group to pause, and why."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra={"example": {"stream": "orders", "group": "payments", "reason": "the bank is down"}}
    )

    reason: str = Field(default="", max_length=LONGEST_REASON, description="Why; kept and shown until it is resumed.")


class ResumeRequest(_Request):
    """Which group goes on, and why."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra={"example": {"stream": "orders", "group": "payments", "reason": "the bank is back"}}
    )

    reason: str = Field(default="", max_length=LONGEST_REASON, description="Why; kept in the audit log.")


class PauseResult(BaseModel):
    """The pause that holds now, which may be an earlier one; or the one that ended."""

    model_config: ClassVar[ConfigDict] = _shown({"stream": "orders", "group": "payments", "pause": _PAUSE})

    stream: Name
    group: Name
    pause: Pause | None = Field(description="Null where there was none to end.")
