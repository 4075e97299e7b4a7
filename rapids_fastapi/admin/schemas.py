"""What goes over HTTP."""

from datetime import datetime
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from rapids_fastapi.admin.replay_schemas import REPLAY_EXAMPLE, ReplayOutcome

__all__ = [
    "SUMMARY_EXAMPLE",
    "WHOLE_EXAMPLE",
    "Attempt",
    "Change",
    "DeadLetter",
    "DeadLetterPage",
    "DeadLetterSummary",
    "Difference",
    "DiscardRequest",
    "ParseCheck",
    "ParseProblem",
    "Payload",
    "ReplayOutcome",
    "ReplayRequest",
    "ReplayResult",
    "RestoreRequest",
    "WholeLetter",
]

State = Literal["dead", "replayed", "discarded"]
Scope = Literal["handler", "group", "everyone"]

_PAYLOAD: dict[str, Any] = {
    "encoding": "json",
    "value": {"order_id": "A-17", "card_number": "[redacted]"},
    "size": 61,
    "truncated": False,
}
_DIFFERENCE: dict[str, Any] = {"pointer": "/total", "op": "replace", "before": "12,50", "after": 12.5, "cut": False}
_SUMMARY: dict[str, Any] = {
    "id": "1763932000000-0",
    "state": "dead",
    "event_type": "order.placed",
    "event_id": "0a4dcf0e-3f0f-4f2b-9a0b-0d6f6c1f6f5e",
    "handler": "take_payment",
    "group": "payments",
    "stream": "orders",
    "reason": "max_deliveries_exceeded",
    "error_type": "CardDeclined",
    "error": "the card was declined",
    "deliveries": 5,
    "failed_at": "2025-11-23T21:00:00Z",
    "correlation_id": "web-1",
    "fingerprint": "9f2c4b7d0a1e6f38",
    "replay_count": 0,
    "payload": _PAYLOAD,
}
SUMMARY_EXAMPLE = _SUMMARY
"""For schemas that have summaries in them."""


_CHANGE: dict[str, Any] = {
    "action": "replayed",
    "at": "2025-11-23T21:10:00Z",
    "actor": "ann",
    "reason": "the bank is back",
    "scope": "handler",
    "stream": "{orders}:rapids:replay:payments",
    "entry_id": "1763932200000-0",
    "operation": "",
    "data": {**_PAYLOAD, "value": {"order_id": "A-17", "total": 12.5}, "size": 33},
    "diff": [_DIFFERENCE],
}
_PARSE_PROBLEM: dict[str, Any] = {"pointer": "/total", "message": "Field required", "type": "missing"}
_PARSE_CHECK: dict[str, Any] = {
    "outcome": "invalid",
    "event_class": "shop.events.OrderPlaced",
    "problems": [_PARSE_PROBLEM],
    "problem_count": 1,
}


def _shown(example: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"example": example})


ATTEMPT: dict[str, Any] = {
    "delivery": 5,
    "attempt": 1,
    "recorded": True,
    "at": "2025-11-23T21:00:00Z",
    "consumer": "web-1-4711",
    "error_type": "CardDeclined",
    "error": "the card was declined",
}


class Payload(BaseModel):
    """An event's data or metadata, redacted."""

    model_config: ClassVar[ConfigDict] = _shown(_PAYLOAD)

    encoding: Literal["json", "text", "base64", "omitted"] = Field(
        description="What `value` is: the JSON value itself; text (what is no JSON, or the beginning of what is cut); "
        "base64 of what is not UTF-8 either; or null for what is too large to be shown here."
    )
    value: Any
    size: int = Field(description="Bytes as stored.")
    truncated: bool = Field(description="Whether `value` is not all of it.")


class DeadLetterSummary(BaseModel):
    """A dead letter as lists show it: long errors and payloads are cut."""

    model_config: ClassVar[ConfigDict] = ConfigDict(json_schema_extra={"example": _SUMMARY})

    id: str
    state: State
    event_type: str
    event_id: str
    handler: str = Field(description="The handler that failed; empty where the entry could not be read as an event.")
    group: str
    stream: str
    reason: str
    error_type: str
    error: str
    deliveries: int
    failed_at: datetime | None
    correlation_id: str
    fingerprint: str = Field(description="What it has in common with other letters of one cause.")
    replay_count: int
    payload: Payload


class DeadLetterPage(BaseModel):
    """Dead letters, newest first. A page may be short, even empty, and have a next one."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra={
            "example": {
                "dlq": "{orders}:dlq",
                "items": [_SUMMARY],
                "next_cursor": "bGV0dGVyczoxNzYzOTMyMDAwMDAwLTA",
                "total": 1,
                "total_exact": True,
                "scanned": 1,
            }
        }
    )

    dlq: str
    items: list[DeadLetterSummary]
    next_cursor: str | None = Field(description="For `cursor`, to get the next page; null on the last one.")
    total: int = Field(description="How many letters match; at the most so many, where it is not exact.")
    total_exact: bool = Field(description="Whether `total` is exact: so without `q`, `since` and `until`.")
    scanned: int = Field(description="How many letters were looked at for this page.")


class Difference(BaseModel):
    """One place where changed data differ from those of the letter."""

    model_config: ClassVar[ConfigDict] = _shown(_DIFFERENCE)

    pointer: str = Field(
        description="Where: a JSON Pointer (RFC 6901) into the changed data if something was added, else into the "
        "letter's. Within a hidden value, it is that value's."
    )
    op: Literal["add", "remove", "replace"]
    before: Any = Field(description="The letter's value; null if there was none.")
    after: Any = Field(description="The changed value; null if there is none any more.")
    cut: bool = Field(description="Whether a value is null because it has more than 4,096 bytes, or is no JSON.")


class Change(BaseModel):
    """Something done to a dead letter."""

    model_config: ClassVar[ConfigDict] = _shown(_CHANGE)

    action: str
    at: datetime
    actor: str
    reason: str
    scope: str = Field(description="For a replay: who gets the event.")
    stream: str = Field(description="For a replay: where it was appended.")
    entry_id: str
    operation: str = Field(description="The id of the operation that did it; empty for none.")
    data: Payload | None = Field(description="For a replay with other data: those, redacted; else null.")
    diff: list[Difference] = Field(
        description="Where those differ from the letter's, in at most 100 places; with more, the value around them is "
        "one. A hidden value that was changed shows as changed, and not what it is."
    )


class Attempt(BaseModel):
    """A handler's failed attempt. Texts are hostile input, and come as data only."""

    model_config: ClassVar[ConfigDict] = ConfigDict(from_attributes=True, json_schema_extra={"example": ATTEMPT})

    delivery: int = Field(description="The delivery of the entry on which it was made. Interrupted ones do not count.")
    attempt: int = Field(description="The quick attempt within this delivery, from 1; 0 if nothing was recorded.")
    recorded: bool = Field(
        description="False: nobody said what came of this delivery, since its process died, or stood still until "
        "another took the entry over. The handler may have run then or not."
    )
    at: datetime | None = Field(description="When it failed, by the clock of the process it ran in.")
    consumer: str
    error_type: str
    error: str = Field(description="At most 300 characters.")


class ParseProblem(BaseModel):
    """One thing that is wrong with an event."""

    model_config: ClassVar[ConfigDict] = _shown(_PARSE_PROBLEM)

    pointer: str = Field(
        description="Where: a JSON Pointer (RFC 6901) into the event, its own and the common fields together; empty "
        "for the event as a whole. Within a union, parts of it name the member that was tried."
    )
    message: str
    type: str = Field(description="What kind: Pydantic's name for it, or the name of the class of another error.")


class ParseCheck(BaseModel):
    """Whether the event, as stored, would parse today, by the classes of this process."""

    model_config: ClassVar[ConfigDict] = _shown(_PARSE_CHECK)

    outcome: Literal["parses", "invalid", "unknown_type", "unreadable", "too_large"] = Field(
        description="`invalid`: its class refuses it; `unknown_type`: this process has no class for it; `unreadable`: "
        "it is no event, whatever the class; `too_large`: it has more than 1 MiB, and was not looked at."
    )
    event_class: str | None = Field(description="The class registered for its type; null where there is none.")
    problems: list[ParseProblem] = Field(description="The first 20.")
    problem_count: int = Field(description="How many there are in all.")


class WholeLetter(DeadLetterSummary):
    """A dead letter with all that was written of it."""

    dlq: str
    entry_id: str = Field(description="The id of the entry that failed, in its own stream.")
    timestamp: str
    causation_id: str
    schema_version: str
    metadata: Payload
    traceback: str
    position: str = Field(
        description="Where the error came from: module, line and function of the user's code; empty where that is not "
        "known."
    )
    attempts: list[Attempt] = Field(
        description="Every failed attempt, oldest first, the last one included; of more than 20 the first 5 and the "
        "last 15. Empty for letters of other versions."
    )
    attempts_left_out: int = Field(description="How many are left out between the fifth and the sixth.")
    consumer: str
    replay_of: str | None


WHOLE_EXAMPLE: dict[str, Any] = {
    **_SUMMARY,
    "dlq": "{orders}:dlq",
    "entry_id": "1763931000000-0",
    "timestamp": "2025-11-23T20:59:00+00:00",
    "causation_id": "",
    "schema_version": "1",
    "metadata": {"encoding": "json", "value": {}, "size": 2, "truncated": False},
    "traceback": "Traceback (most recent call last): ...",
    "position": "shop.payments:41 take_payment",
    "attempts": [{**ATTEMPT, "delivery": 1, "at": "2025-11-23T20:59:10Z"}, ATTEMPT],
    "attempts_left_out": 0,
    "consumer": "web-1-4711",
    "replay_of": "1763931900000-0",
    "replay_count": 1,
}
"""For schemas that have whole letters in them."""


class DeadLetter(WholeLetter):
    """A dead letter with all there is to know of it."""

    model_config: ClassVar[ConfigDict] = _shown(
        {**WHOLE_EXAMPLE, "history": [], "replays": [REPLAY_EXAMPLE], "parse_check": _PARSE_CHECK}
    )

    history: list[Change] = Field(description="What was done to it, oldest first.")
    replays: list[ReplayOutcome] = Field(description="What became of its replay, once it was replayed.")
    parse_check: ParseCheck = Field(description="Would it parse today? So a mended class is seen before replaying.")


class _Request(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    reason: str = Field(default="", max_length=1_000, description="Why; kept in the letter's history.")


class ReplayRequest(_Request):
    """How to replay."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "scope": "handler",
                "data": {"order_id": "A-17", "total": 12.5, "card_number": "[redacted]"},
                "reason": "the total was a text",
            }
        },
    )

    scope: Scope = Field(
        default="handler",
        description="Who gets the event again: the handler that failed, all matching handlers of its group, or every "
        "group that reads the stream.",
    )
    data: dict[str, Any] | None = Field(
        default=None,
        description="Send the event with these data instead of the stored ones (permission `edit`): all of its own "
        "fields, as its class has them now. `[redacted]`, where it was shown, keeps what is stored.",
    )


class DiscardRequest(_Request):
    """Why it is discarded."""

    model_config: ClassVar[ConfigDict] = _shown({"reason": "a test order"})


class RestoreRequest(_Request):
    """Why it is brought back."""

    model_config: ClassVar[ConfigDict] = _shown({"reason": "discarded by mistake"})


class ReplayResult(BaseModel):
    """Where the event went."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra={
            "example": {
                "letter_id": "1763932000000-0",
                "scope": "handler",
                "stream": "{orders}:rapids:replay:payments",
                "entry_id": "1763932100000-0",
                "diff": [_DIFFERENCE],
            }
        }
    )

    letter_id: str
    scope: Scope
    stream: str
    entry_id: str
    diff: list[Difference] = Field(description="Where the data differ from the stored ones, if others were sent.")
