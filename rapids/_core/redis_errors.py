"""Why Redis did not do as asked, in one line for whoever reads a log."""

from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import AskError, MovedError

__all__ = ["reason"]


def reason(error: BaseException) -> str:
    """An error's text in one line, and in words where redis-py's are none."""
    if isinstance(error, MovedError):
        return (
            f"MOVED {error}: another node of the Cluster has the key, and only a Cluster's client goes there "
            "(redis+cluster://, RedisCluster)"
        )
    if isinstance(error, AskError):
        return f"ASK {error}: the key is on its way to another node of the Cluster"
    if isinstance(error, MasterNotFoundError):
        # What follows is redis-py's inner life, a screenful for each Sentinel.
        return f"{str(error).partition(' : ')[0]}: no Sentinel that answers knows one"
    return " ".join(str(error).split()) or type(error).__name__
