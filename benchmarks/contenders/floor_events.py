"""The floor's event and its way to the eight fields and back: the same format as ours."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar
from uuid import uuid4

import orjson
from pydantic import BaseModel, ConfigDict, Field


class OrderPlaced(BaseModel):
    model_config = ConfigDict(frozen=True)

    event_type: ClassVar[str] = "order.placed"
    schema_version: ClassVar[int] = 1

    id: str = Field(default_factory=lambda: str(uuid4()))
    timestamp: datetime = Field(default_factory=lambda: datetime.now(UTC))
    correlation_id: str | None = None
    causation_id: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    order_id: str
    customer: str
    amount: float
    number: int
    note: str = ""


CLASSES = {OrderPlaced.event_type.encode(): OrderPlaced}
COMMON = {"id", "timestamp", "correlation_id", "causation_id", "metadata"}


def encode(event: OrderPlaced) -> dict[str, Any]:
    return {
        "event_type": event.event_type,
        "schema_version": event.schema_version,
        "data": event.__pydantic_serializer__.to_json(event, exclude=COMMON),
        "id": event.id,
        "timestamp": event.timestamp.isoformat(),
        "correlation_id": event.correlation_id or "",
        "causation_id": event.causation_id or "",
        "metadata": orjson.dumps(event.metadata),
    }


def decode(fields: Mapping[bytes, bytes]) -> OrderPlaced:
    """Raises for anything malformed: the floor has no answer to that."""
    event_class = CLASSES[fields[b"event_type"]]
    if int(fields[b"schema_version"]) != event_class.schema_version:
        raise ValueError(f"version {fields[b'schema_version']!r}")
    values = orjson.loads(fields[b"data"])
    values["id"] = fields[b"id"]
    values["timestamp"] = fields[b"timestamp"]
    values["correlation_id"] = fields[b"correlation_id"] or None
    values["causation_id"] = fields[b"causation_id"] or None
    values["metadata"] = orjson.loads(fields[b"metadata"])
    return event_class.model_validate(values)
