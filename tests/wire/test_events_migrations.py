"""Migrations, as the reference shows them, and classes that forbid what they do not know."""

from __future__ import annotations

import json
import traceback
from decimal import Decimal
from typing import Any, ClassVar

import pytest
from pydantic import (
    ConfigDict,
    model_validator,
)

from rapids import BaseEvent
from rapids.exceptions import DeserializationError
from tests.wire.entries import (
    MOMENT,
    WireForbidding,
    WireInvoice,
    WireOrderPlaced,
    WireUser,
    decoded,
    encoded,
    entry,
    round_trip,
)


def test_the_stored_version_and_time_are_there_for_a_migration() -> None:
    event = decoded(entry(event_type="wire.user", data='{"user_id":"1","email":"a@b.c"}'))
    assert isinstance(event, WireUser)
    assert event.created_at == event.timestamp == MOMENT


@pytest.mark.parametrize(
    ("version", "data", "total", "currency"),
    [
        ("1", '{"order_id":"a","total":0.1}', "0.1", "USD"),
        ("2", '{"order_id":"a","total":"0.10"}', "0.10", "USD"),
        ("3", '{"order_id":"a","total":"0.10","currency":"EUR"}', "0.10", "EUR"),
        ("", '{"order_id":"a","total":0.1}', "0.1", "USD"),
        (None, '{"order_id":"a","total":0.1}', "0.1", "USD"),
    ],
)
def test_migrations_chain(version: str | None, data: str, total: str, currency: str) -> None:
    event = decoded(entry(event_type="wire.invoice", schema_version=version, data=data))
    assert isinstance(event, WireInvoice)
    assert (str(event.total), event.currency) == (total, currency)


def test_a_migrated_class_is_written_with_its_version_and_read_back() -> None:
    event = WireInvoice(order_id="a", total=Decimal("0.10"), currency="EUR")
    assert encoded(event)[2:4] == [b"schema_version", b"3"]
    assert round_trip(event) == event


def test_fields_injected_for_migrations_are_accepted_by_a_forbidding_class() -> None:
    assert round_trip(WireForbidding(name="a")).model_dump()["name"] == "a"
    event = decoded(entry(event_type="wire.forbidding", schema_version="1", data='{"title":"b"}'))
    assert isinstance(event, WireForbidding)
    assert event.name == "b"


def test_a_forbidding_class_with_migrations_still_forbids_the_rest() -> None:
    with pytest.raises(DeserializationError, match="bonus: Extra inputs are not permitted") as raised:
        decoded(entry(event_type="wire.forbidding", data='{"title":"b","bonus":1}'))
    assert "_timestamp" not in raised.value.message


class WireForbiddingChecked(WireForbidding):
    event_type: ClassVar[str] = "wire.forbidding_checked"

    @model_validator(mode="after")
    def _check(self) -> WireForbiddingChecked:
        raise KeyError("not today")


def test_the_error_of_a_forbidding_class_is_shown_without_the_fields_that_were_injected() -> None:
    with pytest.raises(DeserializationError, match="not today") as raised:
        decoded(entry(event_type="wire.forbidding_checked", schema_version="2", data='{"name":"b"}'))
    assert "During handling" not in "".join(traceback.format_exception(raised.value))


class WireOpenMigrated(BaseEvent):
    model_config = ConfigDict(extra="allow")

    name: str

    @model_validator(mode="before")
    @classmethod
    def _migrate(cls, data: dict[str, Any]) -> dict[str, Any]:
        return data


def test_fields_injected_for_migrations_do_not_stay_in_an_event_with_extra_fields() -> None:
    event = WireOpenMigrated.model_validate({"name": "a", "nick": "b"})
    assert round_trip(event) == event


class WireFailing(BaseEvent):
    @model_validator(mode="before")
    @classmethod
    def _migrate(cls, data: dict[str, Any]) -> dict[str, Any]:
        match data.get("how"):
            case "key":
                return {"x": data["missing"]}
            case "hostile":
                raise HostileError
            case "hostile value":
                raise HostileValueError
            case "huge":
                raise KeyError("x" * 1_000_000)
            case "recursion":
                return cls._migrate(data)
            case _:
                return data


class HostileError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


class HostileValueError(HostileError, ValueError):
    """An error that Pydantic reports as a fault of the input."""


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("key", "KeyError: 'missing'"),
        ("hostile", "HostileError"),
        ("huge", "KeyError"),
        ("recursion", "RecursionError"),
    ],
)
def test_whatever_a_migration_raises_is_a_bad_entry(how: str, said: str) -> None:
    with pytest.raises(DeserializationError, match=said) as raised:
        decoded(entry(event_type="wire.failing", data=json.dumps({"how": how})))

    assert raised.value.event_type == "wire.failing"
    assert len(str(raised.value)) < 10_000


def test_an_unknown_type_name_is_shortened_in_the_error() -> None:
    with pytest.raises(DeserializationError, match=r"x{4000}") as raised:
        decoded(entry(event_type="wire.computed", data=json.dumps({"price": 1, "x" * 1_000_000: 2})))
    assert len(str(raised.value)) < 10_000


@pytest.mark.parametrize("version", ["x", "1.5", "9" * 5_000, b"\xff"])
def test_a_version_that_is_no_number_is_an_error_only_where_it_is_needed(version: str | bytes) -> None:
    assert isinstance(decoded(entry(schema_version=version)), WireOrderPlaced)
    with pytest.raises(DeserializationError):
        decoded(entry(event_type="wire.user", schema_version=version, data='{"user_id":"1","email":"a@b.c"}'))
