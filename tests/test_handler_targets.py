"""What a handler listens to, and which events that matches."""

from __future__ import annotations

import re
from abc import ABC
from typing import Any, ClassVar, Optional, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

import rapids.events
from rapids import BaseEvent, Event, GenericEvent
from rapids._core.handlers import Handler, HandlerRegistry, Handlers, Pattern, matches, matches_pattern, targets_of


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes defined inside a test are forgotten after it."""
    monkeypatch.setattr(rapids.events, "_registry", dict(rapids.events._registry))


class RtDocument(BaseEvent):
    doc_id: str = ""


class RtDocumentCreated(RtDocument):
    pass


class RtDocumentDeleted(RtDocument):
    pass


class RtDocumentShredded(RtDocumentDeleted):
    pass


class RtUserCreated(BaseEvent):
    pass


def listens(target: object, event_type: str) -> bool:
    return any(matches(single, event_type) for single in targets_of(target))


# --- classes --------------------------------------------------------------------------------------------------------


def test_a_class_matches_itself_and_its_subclasses_and_nothing_else() -> None:
    assert listens(RtDocumentDeleted, "rt_document.deleted")
    assert listens(RtDocumentDeleted, "rt_document.shredded")
    assert not listens(RtDocumentDeleted, "rt_document.created")
    assert not listens(RtDocumentDeleted, "rt.document")
    assert not listens(RtDocumentDeleted, "rt_user.created")


def test_a_base_class_matches_all_below_it() -> None:
    for event_type in ("rt.document", "rt_document.created", "rt_document.deleted", "rt_document.shredded"):
        assert listens(RtDocument, event_type)
    assert not listens(RtDocument, "rt_user.created")


def test_a_base_class_matches_a_subclass_defined_later() -> None:
    targets = targets_of(RtDocument)
    assert not any(matches(target, "rt_document.later") for target in targets)

    class RtDocumentLater(RtDocument):
        pass

    assert any(matches(target, "rt_document.later") for target in targets)


def test_an_abstract_base_matches_what_is_below_it() -> None:
    class RtAudited(BaseEvent, ABC):
        _skip_registration: ClassVar[bool] = True

    class RtAuditedLogin(RtAudited):
        pass

    assert listens(RtAudited, "rt_audited.login")
    assert not listens(RtAudited, "rt.audited")


def define(module: str = __name__) -> type[BaseEvent]:
    class RtReloaded(BaseEvent):
        pass

    return RtReloaded


def test_a_redefined_class_is_the_same_target_either_way() -> None:
    first = define()
    second = define()
    assert first is not second
    assert listens(first, "rt.reloaded")
    assert listens(second, "rt.reloaded")


def test_a_subclass_of_a_redefined_class_still_matches_it() -> None:
    first = define()

    class RtReloadedChild(first):  # type: ignore[valid-type, misc]
        pass

    assert listens(define(), "rt_reloaded.child")


def test_base_event_matches_every_declared_event_and_event_every_one() -> None:
    assert listens(BaseEvent, "rt_user.created")
    assert not listens(BaseEvent, "rt.never_declared")
    assert listens(Event, "rt_user.created")
    assert listens(Event, "rt.never_declared")


def test_generic_event_matches_what_no_class_is_declared_for() -> None:
    assert listens(GenericEvent, "rt.never_declared")
    assert not listens(GenericEvent, "rt_user.created")


# --- unions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "union",
    [
        RtDocumentCreated | RtUserCreated,
        Union[RtDocumentCreated, RtUserCreated],  # noqa: UP007 - that is the case
        Union[RtDocumentCreated, Union[RtUserCreated, RtDocumentCreated]],  # noqa: UP007
    ],
)
def test_a_union_in_either_spelling_matches_its_members(union: object) -> None:
    assert targets_of(union) == (RtDocumentCreated, RtUserCreated)
    assert listens(union, "rt_document.created")
    assert listens(union, "rt_user.created")
    assert not listens(union, "rt_document.deleted")


def test_a_union_matches_below_its_members_and_generic_events() -> None:
    assert listens(RtDocumentDeleted | RtUserCreated, "rt_document.shredded")
    assert listens(RtUserCreated | GenericEvent, "rt.never_declared")


# --- patterns -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "matched", "unmatched"),
    [
        ("user.created", ["user.created"], ["user.deleted", "user", "user.created.now", "xuser.created"]),
        ("user.*", ["user.created", "user.x"], ["user", "user.a.b", "users.created"]),
        ("*.created", ["user.created", "order.created"], ["created", "a.b.created", "user.deleted"]),
        ("*", ["ping", "user.created", "a.b.c", ""], []),
        ("*.*", ["user.created"], ["ping", "a.b.c"]),
        ("**", ["ping", "user.created", "a.b.c"], []),
        ("user.**", ["user.created", "user.a.b.c"], ["user", "users.created", "x.user"]),
        ("**.created", ["user.created", "a.b.created"], ["created", "user.created.x"]),
        ("a.**.z", ["a.b.z", "a.b.c.z"], ["a.z", "a", "z", "a.b", "b.a.z"]),
        ("a.**.m.**.z", ["a.b.m.c.d.z", "a.m.m.m.z"], ["a.z", "a.m.z", "a.m.b.z"]),
        ("s3_*.uploaded", ["s3_object.uploaded", "s3_.uploaded"], ["s3.uploaded", "s3_a.b.uploaded"]),
        ("order.*ed", ["order.placed", "order.ed"], ["order.place"]),
        ("**.**", ["a.b", "a.b.c"], ["a"]),
        ("order.v?", ["order.v?"], ["order.v1", "order.v"]),
        ("order.[pc]*", ["order.[pc]", "order.[pc]x"], ["order.placed", "order.[", "order.c"]),
        ("a.[!b]", ["a.[!b]"], ["a.c"]),
        ("a.]*[?", ["a.][?", "a.]x[?"], ["a.]x"]),
        ("User.*", ["User.created"], ["user.created"]),
        ("user.(created)", ["user.(created)"], ["user.created"]),
    ],
)
def test_a_pattern_matches_by_segment(pattern: str, matched: list[str], unmatched: list[str]) -> None:
    assert [name for name in [*matched, *unmatched] if matches_pattern(pattern, name)] == matched


segments = st.lists(st.sampled_from(["a", "b", "ab", "?", "[ab]"]), min_size=1, max_size=6)
patterns = st.lists(st.sampled_from(["a", "b", "?", "[ab]", "*", "a*", "**"]), min_size=1, max_size=5)


def as_regex(pattern: list[str]) -> str:
    """The same pattern for `re`, over segments that each end with a dot."""
    parts = {"**": r"(?:[^.]+\.)+", "*": r"[^.]+\."}
    return "".join(parts.get(part, re.escape(part).replace(r"\*", "[^.]*") + r"\.") for part in pattern)


@given(pattern=patterns, name=segments)
def test_a_pattern_matches_what_a_regular_expression_would(pattern: list[str], name: list[str]) -> None:
    expected = pattern == ["*"] or re.fullmatch(as_regex(pattern), "".join(f"{part}." for part in name)) is not None
    assert matches_pattern(".".join(pattern), ".".join(name)) == expected


def test_a_hostile_type_takes_no_longer_than_others() -> None:
    """Backtracking would not come back before the suite's time-out."""
    assert not matches_pattern(".".join(["**", "a"] * 20 + ["z"]), ".".join(["a"] * 250))


def test_patterns_match_declared_and_undeclared_events_alike() -> None:
    assert targets_of("rt_document.*") == (Pattern("rt_document.*"),)
    assert listens("rt_document.*", "rt_document.created")
    assert listens("rt_document.*", "rt_document.never_declared")


# --- nonsense -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nonsense", ["", ".", "a.", ".a", "a..b"])
def test_a_pattern_with_an_empty_segment_is_refused(nonsense: str) -> None:
    with pytest.raises(ValueError, match="a pattern must be segments with dots between them") as raised:
        targets_of(nonsense)
    assert repr(nonsense) in str(raised.value)


@pytest.mark.parametrize(
    "nonsense",
    [
        None,
        3,
        b"order.*",
        BaseModel,
        int,
        pytest.param(RtUserCreated(), id="an event"),
        [RtUserCreated],
        (RtUserCreated, RtDocument),
        RtUserCreated | int,
        Optional[RtUserCreated],  # noqa: UP045 - that is the case
        list[RtUserCreated],
        Any,
    ],
    ids=lambda nonsense: f"{nonsense!r:.40}",
)
def test_a_target_of_another_kind_is_refused(nonsense: object) -> None:
    with pytest.raises(TypeError, match=r"on\(\) takes an event class, a union of event classes, or a pattern, not"):
        targets_of(nonsense)


# --- looked up once -------------------------------------------------------------------------------------------------


def handlers(*targets: object) -> Handlers:
    registry = HandlerRegistry(timeout=1, retries=0, backoff=float)
    for number, target in enumerate(targets):

        @registry.on(target, name=str(number))
        async def handle(event: Any) -> None: ...

    return Handlers(registry._registered)


def names(found: tuple[Handler, ...]) -> list[str]:
    return [handler.name for handler in found]


def test_handlers_of_an_event_come_in_order_of_registration() -> None:
    group = handlers("*", RtDocument, "rt_user.*", RtDocumentCreated, GenericEvent)

    assert names(group.for_type("rt_document.created")) == ["0", "1", "3"]
    assert names(group.for_type("rt_user.created")) == ["0", "2"]
    assert names(group.for_type("rt.never_declared")) == ["0", "4"]
    assert names(tuple(group)) == ["0", "1", "2", "3", "4"]


def test_a_type_seen_before_its_class_was_defined_is_looked_up_again() -> None:
    group = handlers(RtDocument, GenericEvent)
    assert names(group.for_type("rt_document.later")) == ["1"]

    class RtDocumentLater(RtDocument):
        pass

    assert names(group.for_type("rt_document.later")) == ["0"]


def test_the_number_of_remembered_undeclared_types_is_bounded() -> None:
    group = handlers("*")
    for number in range(10_000):
        assert names(group.for_type(f"rt.junk{number}")) == ["0"]
    assert len(group._by_type) < 5_000
