"""What an export of dead letters is made of."""

from pydantic import Field

from rapids_fastapi.admin.schemas import DeadLetterSummary, Payload

__all__ = ["ExportedLetter"]


class ExportedLetter(DeadLetterSummary):
    """A dead letter as exports have it: whole, but for what is hidden, what was done to it, and whether it parses."""

    dlq: str
    entry_id: str = Field(description="The id of the entry that failed, in its own stream.")
    timestamp: str
    causation_id: str
    schema_version: str
    metadata: Payload
    traceback: str
    consumer: str
    replay_of: str | None
