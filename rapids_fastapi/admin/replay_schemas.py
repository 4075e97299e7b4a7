"""What goes over HTTP of what became of replays."""

from datetime import datetime
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["REPLAY_EXAMPLE", "ReplayOutcome"]

REPLAY_EXAMPLE: dict[str, Any] = {
    "at": "2025-11-23T21:10:00Z",
    "scope": "handler",
    "stream": "{orders}:rapids:replay:payments",
    "entry_id": "1763932200000-0",
    "outcome": "failed_again",
    "letters": ["1763932260000-0"],
    "inferred": False,
}


class ReplayOutcome(BaseModel):
    """What became of a replay."""

    model_config: ClassVar[ConfigDict] = ConfigDict(json_schema_extra={"example": REPLAY_EXAMPLE})

    at: datetime
    scope: str = Field(description="Who got the event.")
    stream: str = Field(description="Where it was appended.")
    entry_id: str
    outcome: Literal["undelivered", "pending", "failed_again", "handled", "sent", "unknown"] = Field(
        description="`undelivered`: the group has not read it yet; `pending`: its handlers are at work, or it waits or "
        "is parked; `failed_again`: `letters` say how; `handled`: it was settled and left no letter; `sent`: to "
        "everyone, whose deliveries are not told apart from others; `unknown`: the stream of the group's replays was "
        "deleted."
    )
    letters: list[str] = Field(description="The dead letters it became.")
    inferred: bool = Field(
        description="Whether that is concluded from its having been acknowledged: nobody says that it went well."
    )
