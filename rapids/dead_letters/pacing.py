"""How fast an operation goes."""

import time

__all__ = ["LARGEST_BATCH", "Pace"]

LARGEST_BATCH = 400
"""Letters moved in one step: some 10 ms of the server's time, for which everybody else waits."""

STEP_SECONDS = 0.5
"""With a rate limit, about how many seconds' letters are moved in one step."""


class Pace:
    """Tells how many letters the next step may take, and when it may begin. `rate` in letters a second."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._due = 0.0

    @property
    def batch(self) -> int:
        """Letters for the next step."""
        return LARGEST_BATCH if self._rate is None else max(1, min(LARGEST_BATCH, int(self._rate * STEP_SECONDS)))

    @property
    def wait(self) -> float:
        """Seconds until the next step may begin."""
        return max(0.0, self._due - time.monotonic())

    def took(self, letters: int) -> None:
        """A step has dealt with so many. Time that was lost, in an outage say, is not made up for."""
        if self._rate is not None:
            self._due = max(self._due, time.monotonic()) + letters / self._rate
