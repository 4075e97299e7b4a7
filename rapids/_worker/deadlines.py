"""Time limits of handlers, with one timer for all: a timer for each run would cost more than a quick handler."""

import asyncio
import math

__all__ = ["Deadline", "Deadlines"]


class Deadline:
    """The time limit of what its task does now. When it is over, the task is cancelled."""

    __slots__ = ("_all", "at", "expired", "task")

    def __init__(self, all_: "Deadlines", task: "asyncio.Task[object]") -> None:
        self._all = all_
        self.task = task
        self.at = math.inf
        self.expired = False
        """Whether the time was over before the work was."""

    def begin(self, seconds: float) -> None:
        """Begin a time limit. The task must not be cancelled already."""
        self.expired = False
        self.at = at = self._all.now() + seconds
        if at < self._all.next_at:
            self._all.look_at(at)

    def end(self) -> bool:
        """End the time limit, since the work has ended. Whether the time limit alone caused the task's cancellation."""
        self.at = math.inf
        if not self.expired:
            return False
        self.expired = False
        return self.task.uncancel() == 0


class Deadlines:
    """The deadlines of all executors of a worker."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._deadlines: list[Deadline] = []
        self._timer: asyncio.TimerHandle | None = None
        self.now = self._loop.time
        self.next_at = math.inf

    def of_current_task(self) -> Deadline:
        """A deadline for the running task. It can begin and end any number of times."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - only ever called in one
        deadline = Deadline(self, task)
        self._deadlines.append(deadline)
        return deadline

    def has_expired(self) -> bool:
        """Whether the time limit of what the running task does is over, and has not ended yet."""
        task = asyncio.current_task()
        return any(deadline.expired for deadline in self._deadlines if deadline.task is task)

    def forget(self, deadline: Deadline) -> None:
        """Remove a deadline, since its task ends."""
        self._deadlines.remove(deadline)

    def look_at(self, at: float) -> None:
        """Check the deadlines at this time (the loop's clock, seconds)."""
        if self._timer is not None:
            self._timer.cancel()
        self.next_at = at
        self._timer = self._loop.call_at(at, self._look)

    def close(self) -> None:
        """Check no more deadlines."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer, self.next_at, now = None, math.inf, self.now()
        for deadline in self._deadlines:
            if deadline.at <= now:
                deadline.at, deadline.expired = math.inf, True
                deadline.task.cancel()
        next_at = min((deadline.at for deadline in self._deadlines), default=math.inf)
        if next_at < math.inf:
            self.look_at(next_at)
