"""Backoffs: callables from the number of failed attempts to seconds."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapids.backoff import Backoff, constant, exponential, linear


def first(count: int, backoff: Backoff) -> list[float]:
    return [backoff(attempt) for attempt in range(1, count + 1)]


def test_exponential_doubles_up_to_its_cap() -> None:
    assert first(7, exponential(base=2.0, max_delay=60.0, jitter=False)) == [2, 4, 8, 16, 32, 60, 60]


def test_linear_adds_its_delay_up_to_its_cap() -> None:
    assert first(5, linear(delay=1.0, max_delay=60.0)) == [1, 2, 3, 4, 5]
    assert first(4, linear(delay=25, max_delay=60)) == [25, 50, 60, 60]


def test_constant_stays() -> None:
    assert first(3, constant(delay=5.0)) == [5, 5, 5]


def test_the_defaults() -> None:
    assert first(7, exponential(jitter=False)) == [2, 4, 8, 16, 32, 60, 60]
    assert linear()(3) == 3
    assert linear()(1000) == 60
    assert constant()(9) == 1


@given(
    base=st.floats(0.01, 1e6) | st.integers(1, 10**6),
    max_delay=st.floats(0, 1e6) | st.integers(0, 10**6),
    attempt=st.integers(1, 10**6),
)
def test_jitter_takes_up_to_a_quarter_and_never_adds(base: float, max_delay: float, attempt: int) -> None:
    bare = exponential(base, max_delay, jitter=False)(attempt)
    jittered = exponential(base, max_delay)(attempt)

    assert 0 <= bare <= max_delay
    assert 0.75 * bare <= jittered <= bare


def test_jitter_spreads() -> None:
    backoff = exponential(base=8, max_delay=8)
    assert len({backoff(1) for _ in range(50)}) > 10


@given(
    delay=st.floats(0, allow_nan=False, allow_infinity=False),
    max_delay=st.floats(0, allow_nan=False, allow_infinity=False),
    attempt=st.integers(1, 10**6),
)
def test_linear_and_constant_never_leave_their_bounds(delay: float, max_delay: float, attempt: int) -> None:
    assert 0 <= linear(delay, max_delay)(attempt) <= max_delay
    assert constant(delay)(attempt) == delay


def test_a_huge_attempt_number_gives_the_cap() -> None:
    assert exponential(base=10.5, max_delay=30, jitter=False)(10**9) == 30


@pytest.mark.parametrize("make", [exponential, linear, constant])
def test_a_backoff_travels_to_another_process(make: Callable[[], Backoff]) -> None:
    assert pickle.loads(pickle.dumps(make())) == make()


def shortly(value: object) -> str:
    return f"{value!r:.9}"


NUMBERS: list[tuple[Callable[..., Backoff], str]] = [
    (exponential, "base"),
    (exponential, "max_delay"),
    (linear, "delay"),
    (linear, "max_delay"),
    (constant, "delay"),
]


@pytest.mark.parametrize(("make", "option"), NUMBERS)
@pytest.mark.parametrize("nonsense", [-1, -0.001, math.nan, math.inf, -math.inf, 10**400], ids=shortly)
def test_an_impossible_number_is_refused(make: Callable[..., Backoff], option: str, nonsense: float) -> None:
    with pytest.raises(ValueError, match=f"^{option} must be a finite number of seconds") as raised:
        make(**{option: nonsense})
    assert str(raised.value).endswith(f"not {nonsense!r}")


@pytest.mark.parametrize(("make", "option"), NUMBERS)
@pytest.mark.parametrize("nonsense", ["1", None, True, [1]])
def test_a_value_that_is_no_number_is_refused(make: Callable[..., Backoff], option: str, nonsense: Any) -> None:
    with pytest.raises(TypeError, match=f"^{option} must be a finite number of seconds"):
        make(**{option: nonsense})


def test_a_base_of_zero_is_refused_and_a_delay_of_zero_is_not() -> None:
    with pytest.raises(ValueError, match="base must be a finite number of seconds above 0, not 0"):
        exponential(base=0)
    assert first(2, exponential(max_delay=0)) == [0, 0]
    assert first(2, linear(delay=0)) == first(2, constant(delay=0)) == [0, 0]
