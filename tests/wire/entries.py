"""Entries and events the tests of the wire share."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, ClassVar
from uuid import UUID

import orjson
import pytest
from hypothesis import strategies as st
from pydantic import ConfigDict, computed_field, model_validator

from rapids import BaseEvent, Event
from rapids._wire.encoding import encode
from rapids._wire.entry_format import StoredEvent, decode, event_type_in, pairs
from rapids.exceptions import DeserializationError

STAMP = "2026-11-23T20:54:46.528398+00:00"
MOMENT = datetime(2026, 11, 23, 20, 54, 46, 528398, tzinfo=UTC)
ID = "0b0f6a34-2c2b-4e0e-9d0e-3b1f5f1f9c11"


class WireOrderPlaced(BaseEvent):
    order_id: str
    total: float


class WireColor(Enum):
    RED = "red"


class WireStrict(BaseEvent):
    model_config = ConfigDict(strict=True)

    when: datetime
    key: UUID
    color: WireColor
    pair: tuple[int, str]
    tags: frozenset[str]


class WireComputed(BaseEvent):
    model_config = ConfigDict(extra="forbid")

    price: float

    @computed_field
    @property
    def gross(self) -> float:
        return self.price * 2


class WireUser(BaseEvent):
    schema_version: ClassVar[int] = 2

    user_id: str
    email: str
    created_at: datetime

    @model_validator(mode="before")
    @classmethod
    def _migrate(cls, data: dict[str, Any]) -> dict[str, Any]:
        version = data.pop("_schema_version", cls.schema_version)
        if version < 2:
            data["created_at"] = data.get("_timestamp")
        return data


class WireInvoice(BaseEvent):
    schema_version: ClassVar[int] = 3

    order_id: str
    total: Decimal
    currency: str

    @model_validator(mode="before")
    @classmethod
    def _migrate(cls, data: dict[str, Any]) -> dict[str, Any]:
        version = data.pop("_schema_version", cls.schema_version)
        if version < 2:
            data["total"] = str(data.get("total", 0))
        if version < 3:
            data["currency"] = "USD"
        return data


class WireForbidding(BaseEvent):
    """Forbids extra fields and takes only one of the two injected ones away, as the reference's migrations do."""

    model_config = ConfigDict(extra="forbid")
    schema_version: ClassVar[int] = 2

    name: str

    @model_validator(mode="before")
    @classmethod
    def _migrate(cls, data: dict[str, Any]) -> dict[str, Any]:
        if data.pop("_schema_version", cls.schema_version) < 2:
            data["name"] = data.pop("title")
        return data


def encoded(event: Event, correlation_id: str | None = None, causation_id: str | None = None) -> list[bytes]:
    return encode(event, correlation_id=correlation_id, causation_id=causation_id)


def decoded(fields: list[bytes]) -> Event:
    """The event, by the careful way and by the fast one: they agree on everything, errors included."""
    try:
        event = StoredEvent.read(fields).decode()
    except DeserializationError as error:
        if (event_type := event_type_in(fields)) is not None:
            with pytest.raises(DeserializationError, match=re.escape(str(error)) + r"\Z"):
                decode(event_type, fields)
        raise
    quickly = decode(event_type_in(fields) or "", fields)
    assert type(quickly) is type(event)
    assert repr(quickly) == repr(event)  # which compares NaN as well
    return event


def round_trip(event: Event) -> Event:
    return decoded(encoded(event, event.correlation_id, event.causation_id))


def data_of(event: Event) -> Any:
    return orjson.loads(dict(pairs(encoded(event)))[b"data"])


def entry(**changes: bytes | str | None) -> list[bytes]:
    """An entry as it should be, with some of its fields changed, or left out where None."""
    fields: dict[str, bytes | str | None] = {
        "event_type": "wire_order.placed",
        "schema_version": "1",
        "data": '{"order_id":"a","total":1.5}',
        "id": ID,
        "timestamp": STAMP,
        "correlation_id": "",
        "causation_id": "",
        "metadata": "{}",
    } | changes
    return [
        part if isinstance(part, bytes) else part.encode()
        for name, value in fields.items()
        if value is not None
        for part in (name, value)
    ]


texts = st.text(st.characters(codec="utf-8"), max_size=30)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(texts, children, max_size=3),
    max_leaves=10,
)
