"""The correlation scope: what is set, where it shows, what is restored."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import Any
from uuid import UUID

import pytest

from rapids import correlation_scope, get_causation_id, get_correlation_id
from rapids.correlation import CorrelationScope


async def test_a_scope_makes_an_id_yields_it_and_restores_what_was_there() -> None:
    assert get_correlation_id() is None
    async with correlation_scope() as correlation_id:
        assert str(UUID(correlation_id)) == correlation_id
        assert get_correlation_id() == correlation_id
        assert get_causation_id() is None
    assert get_correlation_id() is None


def test_a_scope_works_without_async() -> None:
    with correlation_scope("request-1") as correlation_id:
        assert correlation_id == get_correlation_id() == "request-1"
    assert get_correlation_id() is None


async def test_each_scope_has_an_id_of_its_own() -> None:
    async with correlation_scope() as one:
        pass
    async with correlation_scope() as other:
        pass
    assert one != other


async def test_scopes_nest() -> None:
    async with correlation_scope("outer"):
        with correlation_scope("inner"):
            assert get_correlation_id() == "inner"
        assert get_correlation_id() == "outer"


async def test_a_scope_ends_with_an_exception_too_and_lets_it_through() -> None:
    with pytest.raises(LookupError, match="mine"):
        async with correlation_scope("failing"):
            raise LookupError("mine")
    assert get_correlation_id() is None


async def test_one_scope_object_can_be_entered_again_even_inside_itself() -> None:
    scope = correlation_scope("again")
    async with scope:
        with scope:
            assert get_correlation_id() == "again"
        assert get_correlation_id() == "again"
    assert get_correlation_id() is None
    async with scope:
        assert get_correlation_id() == "again"


async def test_tasks_inherit_the_scope_they_are_started_in_and_not_a_neighbours() -> None:
    async def seen() -> str | None:
        await asyncio.sleep(0)
        return get_correlation_id()

    async def request(name: str) -> list[str | None]:
        async with correlation_scope(name):
            return await asyncio.gather(seen(), seen())

    assert await asyncio.gather(request("a"), request("b"), seen()) == [["a", "a"], ["b", "b"], None]


async def test_handling_an_event_names_it_as_the_cause() -> None:
    with CorrelationScope.handling("request-1", "event-1"):
        assert (get_correlation_id(), get_causation_id()) == ("request-1", "event-1")
    assert (get_correlation_id(), get_causation_id()) == (None, None)


@pytest.mark.parametrize("missing", [None, ""])
async def test_an_event_without_a_correlation_starts_one_of_its_own(missing: str | None) -> None:
    with CorrelationScope.handling(missing, "event-1"):
        assert (get_correlation_id(), get_causation_id()) == ("event-1", "event-1")


async def test_a_scope_inside_a_handler_keeps_the_cause() -> None:
    with CorrelationScope.handling("request-1", "event-1"):
        async with correlation_scope("other"):
            assert (get_correlation_id(), get_causation_id()) == ("other", "event-1")


@pytest.mark.parametrize("nonsense", ["", "a\nb", "\x00", "\ud800"])
def test_an_empty_or_unprintable_id_is_refused(nonsense: str) -> None:
    with pytest.raises(ValueError, match="correlation_id must be a non-empty string") as raised:
        correlation_scope(nonsense)
    assert repr(nonsense) in str(raised.value)


@pytest.mark.parametrize("nonsense", [7, b"x", ["a"]])
def test_an_id_that_is_no_string_is_refused(nonsense: Any) -> None:
    with pytest.raises(TypeError, match="correlation_id must be a non-empty string"):
        correlation_scope(nonsense)


def test_a_context_that_knows_no_scope_sees_none() -> None:
    outside = copy_context()
    with correlation_scope("x"):
        assert outside.run(get_correlation_id) is None
