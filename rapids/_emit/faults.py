"""Why an emit fails although Redis did not refuse its events."""

from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from rapids._core.redis_errors import reason

__all__ = ["NotReplicatedError", "UnknownOutcomeError", "timed_out"]


class UnknownOutcomeError(RedisError):
    """An answer was lost, and it can no longer be found out whether Redis ran the command."""


class NotReplicatedError(RedisError):
    """Redis has the entries, but fewer replicas than required confirmed them in time."""


def timed_out(timeout: float, latest: Exception | None = None) -> RedisTimeoutError:
    """Why an emit ends at its deadline. `latest`: the error of the latest attempt, if one failed."""
    before = "" if latest is None else f"; before that: {reason(latest)}"
    return RedisTimeoutError(f"the emitter's timeout of {timeout:g} s was over{before}")
