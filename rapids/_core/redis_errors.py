"""Redis errors: the kind of an error, and its reason in one line for the log."""

from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    MaxConnectionsError,
    MovedError,
    NoPermissionError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

__all__ = ["is_no_group", "is_no_script", "is_no_stream", "is_other_type", "is_outage", "is_refused", "reason"]

REFUSALS = (AuthenticationError, AuthorizationError, NoPermissionError)

OUTAGE_KINDS = (
    "BusyLoadingError",
    "ReadOnlyError",
    "ClusterDownError",
    "MasterDownError",
    "TryAgainError",
    "OutOfMemoryError",
)
"""Classes of redis-py by name, since older releases do not have all of them."""

OUTAGE_ANSWERS = (
    "LOADING",
    "READONLY",
    "MISCONF",
    "NOREPLICAS",
    "OOM",
    "CLUSTERDOWN",
    "MASTERDOWN",
    "TRYAGAIN",
    "UNBLOCKED",
    "BUSY ",
    "max number of clients",
    "non local key in a cluster node",  # from a script whose slot is being moved
)
"""Parts of error answers that mean: the server cannot do it now, but may do it later."""


def is_outage(error: BaseException) -> bool:
    """Whether the present state of the server or the network caused the error, so the command may work later."""
    if is_refused(error):
        return False
    if isinstance(error, RedisConnectionError | RedisTimeoutError | MaxConnectionsError | OSError):
        return True
    if isinstance(error, AskError):  # includes MOVED: the nodes do not agree yet on which of them has the slot
        return True
    is_answer = type(error).__name__ in OUTAGE_KINDS or any(answer in str(error) for answer in OUTAGE_ANSWERS)
    return isinstance(error, RedisError) and is_answer


def is_refused(error: BaseException) -> bool:
    """Whether the server refuses this client: wrong credentials or a missing permission."""
    return isinstance(error, REFUSALS)


def is_no_group(error: BaseException) -> bool:
    """Whether a stream or its consumer group does not exist."""
    return isinstance(error, ResponseError) and "NOGROUP" in str(error)


def is_no_stream(error: BaseException) -> bool:
    """Whether a stream does not exist."""
    return isinstance(error, ResponseError) and "no such key" in str(error).lower()


def is_other_type(error: BaseException) -> bool:
    """Whether a key has a value of another type than the command is for."""
    return isinstance(error, ResponseError) and "WRONGTYPE" in str(error)


def is_no_script(error: BaseException) -> bool:
    """Whether the server does not know a script, after a restart, a failover or SCRIPT FLUSH."""
    return isinstance(error, ResponseError) and (
        type(error).__name__ == "NoScriptError" or str(error).startswith("NOSCRIPT")
    )


def reason(error: BaseException) -> str:
    """An error's text in one line, with a readable text if redis-py gives none."""
    if isinstance(error, MovedError):
        return (
            f"MOVED {error}: another node of the Cluster has the key, and only a Cluster's client goes there "
            "(redis+cluster://, RedisCluster)"
        )
    if isinstance(error, AskError):
        return f"ASK {error}: the key is on its way to another node of the Cluster"
    if isinstance(error, MasterNotFoundError):
        # redis-py's text continues with its internal state, many lines for each Sentinel.
        return f"{str(error).partition(' : ')[0]}: no Sentinel that answers knows one"
    return " ".join(str(error).split()) or type(error).__name__
