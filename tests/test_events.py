"""Events: names on the wire, registration, what every event has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, ClassVar
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import rapids.events
from rapids import BaseEvent, Event, GenericEvent, get_event_class
from rapids.events import event_type_of, same_class
from rapids.exceptions import DuplicateEventTypeError, RapidsError


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes defined inside a test are forgotten after it."""
    monkeypatch.setattr(rapids.events, "_registry", dict(rapids.events._registry))


class EvUserCreated(BaseEvent):
    user_id: str
    email: str = ""


class EvDocument(BaseEvent):
    doc_id: str


class EvDocumentDeleted(EvDocument):
    deleted_by: str


@pytest.mark.parametrize(
    ("class_name", "event_type"),
    [
        ("UserCreated", "user.created"),
        ("OrderPlaced", "order.placed"),
        ("S3ObjectUploaded", "s3_object.uploaded"),
        ("Ping", "ping"),
        ("OrderItemAdded", "order_item.added"),
        ("HTTPServerError", "http_server.error"),
        ("V2Thing", "v2.thing"),
        ("OrderV2", "order.v2"),
        ("UserID", "user.id"),
        ("A", "a"),
        ("AB", "ab"),
        ("lower", "lower"),
        ("snake_case_name", "snake_case.name"),
        ("_Private", "private"),
        ("Order_Placed", "order.placed"),
    ],
)
def test_a_class_name_gives_the_event_type(class_name: str, event_type: str) -> None:
    assert event_type_of(class_name) == event_type


@given(st.from_regex(r"[A-Z][A-Za-z0-9]{0,30}", fullmatch=True))
def test_any_class_name_gives_at_most_two_segments_of_its_own_letters(class_name: str) -> None:
    name = event_type_of(class_name)

    assert name.count(".") <= 1
    assert name.replace(".", "").replace("_", "") == class_name.lower()
    assert "" not in name.replace(".", "_").split("_")


def test_the_name_is_on_the_class_and_on_its_instances() -> None:
    assert EvUserCreated.event_type == "ev_user.created"
    assert EvUserCreated(user_id="1").event_type == EvUserCreated(user_id="1").routing_key == "ev_user.created"


def test_a_class_registers_itself() -> None:
    assert get_event_class("ev_user.created") is EvUserCreated
    assert get_event_class("ev_nobody.declared") is None


def test_a_subclass_has_a_name_of_its_own_and_its_parents_fields() -> None:
    assert EvDocumentDeleted.event_type == "ev_document.deleted"
    assert EvDocument.event_type == "ev.document"
    assert EvDocumentDeleted(doc_id="d", deleted_by="eve").doc_id == "d"
    assert get_event_class("ev_document.deleted") is EvDocumentDeleted


def test_an_explicit_event_type_wins_and_is_not_inherited() -> None:
    class EvNamed(BaseEvent):
        event_type: ClassVar[str] = "billing/invoice:sent"

    class EvNamedChild(EvNamed):
        pass

    assert get_event_class("billing/invoice:sent") is EvNamed
    assert EvNamed().routing_key == "billing/invoice:sent"
    assert EvNamedChild.event_type == "ev_named.child"


def test_an_empty_event_type_is_left_to_the_name() -> None:
    class EvUnnamed(BaseEvent):
        event_type = ""

    class EvUnnamedChild(EvUnnamed):
        event_type: ClassVar[str] = ""

    assert (EvUnnamed.event_type, EvUnnamedChild.event_type) == ("ev.unnamed", "ev_unnamed.child")
    assert get_event_class("ev_unnamed.child") is EvUnnamedChild


@pytest.mark.parametrize("nonsense", ["x" * 513, None, 3, "lone.\ud800"])
def test_an_impossible_event_type_is_refused_by_name(nonsense: Any) -> None:
    with pytest.raises(
        TypeError, match=r"EvNonsense\.event_type must be a string of at most 512 characters that UTF-8 can hold, not"
    ):
        type("EvNonsense", (BaseEvent,), {"event_type": nonsense, "__annotations__": {"event_type": ClassVar[Any]}})


def test_an_abstract_class_is_not_registered_but_its_concrete_subclass_is() -> None:
    class EvAbstractBase(BaseEvent, ABC):
        @abstractmethod
        def total(self) -> float: ...

    class EvConcreteOrder(EvAbstractBase):
        def total(self) -> float:
            return 1.0

    assert get_event_class("ev_abstract.base") is None
    assert get_event_class("ev_concrete.order") is EvConcreteOrder


def test_skip_registration_holds_for_the_class_that_sets_it_only() -> None:
    class EvSkipped(BaseEvent):
        _skip_registration: ClassVar[bool] = True

    class EvSkippedChild(EvSkipped):
        pass

    assert get_event_class("ev.skipped") is None
    assert EvSkipped().event_type == "ev.skipped"
    assert get_event_class("ev_skipped.child") is EvSkippedChild


def test_the_common_bases_are_not_registered() -> None:
    for cls in (BaseEvent, Event, GenericEvent):
        assert cls not in rapids.events._registry.values()


def test_two_different_classes_with_one_event_type_are_an_error() -> None:
    with pytest.raises(DuplicateEventTypeError, match=r"^Duplicate event_type 'ev_user\.created': .*EvUserC") as raised:

        class EvUsurper(BaseEvent):
            event_type: ClassVar[str] = "ev_user.created"

    assert "EvUsurper" in str(raised.value)
    assert isinstance(raised.value, RapidsError)
    assert get_event_class("ev_user.created") is EvUserCreated


def test_a_class_redefined_under_its_module_and_name_replaces_its_registration() -> None:
    def define(default: int) -> type[BaseEvent]:
        class EvReloaded(BaseEvent):
            version: int = default

        return EvReloaded

    first, second = define(1), define(2)

    assert first is not second
    assert same_class(first, second)
    assert not same_class(first, EvUserCreated)
    assert get_event_class("ev.reloaded") is second


def test_an_event_has_an_id_a_time_and_no_correlation() -> None:
    before = datetime.now(UTC)
    event, other = EvUserCreated(user_id="1"), EvUserCreated(user_id="1")

    assert str(UUID(event.id)) == event.id
    assert event.id != other.id
    assert before <= event.timestamp <= datetime.now(UTC)
    assert event.timestamp.tzinfo is UTC
    assert (event.correlation_id, event.causation_id, event.metadata) == (None, None, {})
    event.metadata["mine"] = 1
    assert other.metadata == {}


def test_an_event_is_frozen() -> None:
    event = EvUserCreated(user_id="1")
    with pytest.raises(ValidationError, match="frozen"):
        event.user_id = "2"
    with pytest.raises(ValidationError, match="frozen"):
        event.correlation_id = "2"


def test_unknown_fields_are_ignored() -> None:
    event = EvUserCreated.model_validate({"user_id": "1", "nickname": "bob"})
    assert not hasattr(event, "nickname")


@pytest.mark.parametrize(
    ("given_moment", "in_utc"),
    [
        (datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2))), datetime(2026, 1, 1, 10, tzinfo=UTC)),
        (datetime(2026, 1, 1, 12), datetime(2026, 1, 1, 12, tzinfo=UTC)),  # noqa: DTZ001 - that is the case
    ],
)
def test_a_timestamp_is_kept_in_utc(given_moment: datetime, in_utc: datetime) -> None:
    timestamp = EvUserCreated(user_id="1", timestamp=given_moment).timestamp
    assert timestamp == in_utc
    assert timestamp.utcoffset() == timedelta(0)


def test_a_generic_event_is_routed_by_its_raw_type() -> None:
    event = GenericEvent(raw_type="partner.thing", data={"a": 1})
    assert event.routing_key == "partner.thing"
    assert event.data == {"a": 1}
    assert isinstance(event, Event)
    assert not isinstance(event, BaseEvent)


def test_the_bare_event_has_no_routing_key() -> None:
    with pytest.raises(NotImplementedError, match="BaseEvent or a GenericEvent"):
        _ = Event().routing_key
