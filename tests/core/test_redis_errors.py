"""Errors of Redis in one line that says what to do, where redis-py's own text does not."""

from __future__ import annotations

import pytest
from redis.asyncio.sentinel import Sentinel
from redis.exceptions import AskError, MovedError, ReadOnlyError, RedisError

from rapids._core.redis_errors import reason
from rapids.exceptions import EmitError


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ReadOnlyError("You can't write against a read only replica."), "You can't write against a read only replica."),
        (RedisError("one\r\n  two"), "one two"),
        (TimeoutError(), "TimeoutError"),
        (AskError("7 host:1"), "ASK 7 host:1: the key is on its way to another node of the Cluster"),
    ],
)
def test_an_error_in_one_line(error: Exception, expected: str) -> None:
    assert reason(error) == expected


def test_a_key_of_another_node_says_which_client_to_use() -> None:
    moved = MovedError("1981 127.0.0.1:7000")
    line = reason(moved)
    assert line.startswith("MOVED 1981 127.0.0.1:7000: ")
    assert "redis+cluster://" in line
    assert line in str(EmitError("a.b", "id", "s", 3, moved))


async def test_an_unknown_master_is_reported_in_one_line() -> None:
    sentinel = Sentinel([("127.0.0.1", 1), ("127.0.0.1", 2)], sentinel_kwargs={"socket_connect_timeout": 5.0})
    with pytest.raises(RedisError) as error:
        await sentinel.discover_master("primary")
    for node in sentinel.sentinels:
        await node.aclose()
    assert "<redis.asyncio" in str(error.value)
    assert reason(error.value) == "No master found for 'primary': no Sentinel that answers knows one"
