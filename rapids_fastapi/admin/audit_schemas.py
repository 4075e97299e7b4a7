"""What goes over HTTP of the audit: who did what, when and why."""

from datetime import datetime
from functools import partial
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from rapids_fastapi.admin.payloads import clean
from rapids_fastapi.admin.stream_schemas import Name, Text

__all__ = ["AuditEntry", "AuditPage"]

Detail = Annotated[str, AfterValidator(partial(clean, longest=2_000))]

_ENTRY: dict[str, Any] = {
    "id": "1763932200000-0",
    "at": "2025-11-23T21:10:00Z",
    "stream": "{orders}:dlq",
    "actor": "ann",
    "action": "letter_replayed",
    "reason": "the bank is back",
    "operation": "",
    "target": "1763932000000-0",
    "details": {"scope": "handler"},
}


class AuditEntry(BaseModel):
    """Something somebody did. Letters that an operation moved have no entries of their own: the operation has."""

    model_config: ClassVar[ConfigDict] = ConfigDict(json_schema_extra={"example": _ENTRY})

    id: str = Field(description="Its own within the log of its stream.")
    at: datetime = Field(description="When, by the server's clock.")
    stream: Name = Field(description="The dead-letter queue or the stream whose log it is in.")
    actor: Name
    action: Name = Field(
        description="`letter_replayed`, `letter_discarded`, `letter_restored`, `letters_reindexed`, "
        "`group_paused`, `group_resumed`, or `operation_` and what was done with it or became of it."
    )
    reason: Text
    operation: Name = Field(description="The operation's id; empty for none.")
    target: Name = Field(description="The id of the letter or the operation, or the name of the group.")
    details: dict[Name, Detail] = Field(description="What else is told, by name, such as the `scope` of a replay.")


class AuditPage(BaseModel):
    """What was done to the application's dead letters, operations and groups, newest first."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra={
            "example": {"items": [_ENTRY], "next_cursor": "YXVkaXQ6MTc2MzkzMjIwMDAwMC0wIHtvcmRlcnN9OmRscQ"}
        }
    )

    items: list[AuditEntry]
    next_cursor: str | None = Field(description="For `cursor`, to get the next page; null on the last one.")
