"""What goes over HTTP of dead letters by what they have in common, and of how their queue stands."""

from datetime import datetime
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from rapids_fastapi.admin.stream_schemas import Name, Text

__all__ = ["LetterGroup", "LetterGroupPage", "QueueStanding", "ReindexRequest"]

_GROUP: dict[str, Any] = {
    "fingerprint": "9f2c4b7d0a1e6f38",
    "group": "payments",
    "handler": "take_payment",
    "event_type": "order.placed",
    "reason": "max_deliveries_exceeded",
    "error_type": "CardDeclined",
    "position": "shop.payments:41 take_payment",
    "count": 4120,
    "first_at": "2025-11-23T20:00:00Z",
    "last_at": "2025-11-23T21:00:00Z",
}
_STANDING: dict[str, Any] = {
    "dlq": "{orders}:dlq",
    "length": 4377,
    "maxlen": 10000,
    "unindexed": 0,
    "cut": 12,
    "cut_at": "2025-11-22T03:14:00Z",
}


def _shown(example: dict[str, Any]) -> ConfigDict:
    return ConfigDict(from_attributes=True, json_schema_extra={"example": example})


class LetterGroup(BaseModel):
    """Dead letters of one cause. Names are cut where they are very long."""

    model_config: ClassVar[ConfigDict] = _shown(_GROUP)

    fingerprint: str = Field(
        description="For `fingerprint`, to list or to select these letters; `others` for those of causes that were too "
        "many to be told apart, whose names are empty here."
    )
    group: Name
    handler: Name
    event_type: Name
    reason: Name
    error_type: Name
    position: Text = Field(description="Where the error came from, in the code of the handler's application.")
    count: int
    first_at: datetime = Field(description="When the oldest of them was written.")
    last_at: datetime


class QueueStanding(BaseModel):
    """How a dead-letter queue stands."""

    model_config: ClassVar[ConfigDict] = _shown(_STANDING)

    dlq: Name
    length: int = Field(description="Letters in it.")
    maxlen: int | None = Field(description="Letters it is trimmed to.")
    unindexed: int = Field(description="Letters that no group counts yet: others wrote them. Each look counts some in.")
    cut: int = Field(description="Letters that were ever trimmed away before anybody replayed or discarded them.")
    cut_at: datetime | None = Field(description="When that was last.")


class LetterGroupPage(BaseModel):
    """Groups of dead letters, the largest first."""

    model_config: ClassVar[ConfigDict] = _shown(
        {
            "dlq": "{orders}:dlq",
            "items": [_GROUP],
            "next_cursor": "bGV0dGVyLWdyb3Vwczo0MTIwOjlmMmM0YjdkMGExZTZmMzg",
            "total": 3,
            "letters": 4377,
            "standing": _STANDING,
        }
    )

    dlq: Name
    items: list[LetterGroup]
    next_cursor: str | None = Field(description="For `cursor`, to get the next page; null on the last one.")
    total: int = Field(description="How many groups match, on all pages.")
    letters: int = Field(description="How many letters these have.")
    standing: QueueStanding


class ReindexRequest(BaseModel):
    """Nothing needs to be said, but for why, for the audit log."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"reason": "deleted letters by hand"}}
    )

    reason: str = Field(default="", max_length=1_000, description="Why; kept in the audit log.")
