"""Backoffs: functions that give the wait before the next attempt.

A `Backoff` is any callable that takes the number of failed attempts so far (1, 2, ...) and returns seconds.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from rapids._core.checks import positive_seconds, seconds

__all__ = ["Backoff", "constant", "exponential", "linear"]

Backoff: TypeAlias = Callable[[int], float]

JITTER = 0.25


@dataclass(frozen=True, slots=True)
class _Exponential:
    base: float
    """Never an int: a power of an int is computed to its last digit, which takes seconds for a high attempt."""
    max_delay: float
    jitter: bool

    def __call__(self, attempt: int) -> float:
        try:
            delay = min(self.base**attempt, self.max_delay)
        except OverflowError:
            delay = self.max_delay
        return delay * random.uniform(1 - JITTER, 1) if self.jitter else delay  # noqa: S311 - not a secret


@dataclass(frozen=True, slots=True)
class _Linear:
    delay: float
    max_delay: float

    def __call__(self, attempt: int) -> float:
        return min(self.delay * attempt, self.max_delay)


@dataclass(frozen=True, slots=True)
class _Constant:
    delay: float

    def __call__(self, attempt: int) -> float:
        return self.delay


def exponential(base: float = 2.0, max_delay: float = 60.0, jitter: bool = True) -> Backoff:
    """`base` to the power of the attempt, in seconds: 2, 4, 8, 16, 32, 60, 60, ...

    `max_delay` (seconds) is the upper limit. `jitter` subtracts up to a quarter at random, so that many consumers that
    failed together do not retry together. It never adds, so `max_delay` holds.

    Raises `ValueError` for a negative or infinite number.
    """
    return _Exponential(float(positive_seconds("base", base)), seconds("max_delay", max_delay), jitter)


def linear(delay: float = 1.0, max_delay: float = 60.0) -> Backoff:
    """`delay` seconds more after each attempt: 1, 2, 3, ... up to `max_delay` seconds.

    Raises `ValueError` for a negative or infinite number.
    """
    return _Linear(seconds("delay", delay), seconds("max_delay", max_delay))


def constant(delay: float = 1.0) -> Backoff:
    """The same `delay` (seconds) after every attempt.

    Raises `ValueError` for a negative or infinite number.
    """
    return _Constant(seconds("delay", delay))
