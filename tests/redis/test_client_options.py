"""Rapids' own connections have what the user's client has: how it logs in, and what it is called."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.credentials import CredentialProvider, UsernamePasswordCredentialProvider
from redis.exceptions import ConnectionError as RedisConnectionError

from rapids._storage.client.connections import OwnConnection, SharedPool, call
from tests.redis.own_server import own_server
from tests.servers.builds import Build
from tests.support import SOON, eventually, free_port
from tests.worker.helpers import STREAM, DvOrder, make_emitter, make_router, running

PASSWORD = "secret"


async def log_in(connection: AbstractConnection) -> None:
    """As with tokens that are asked for when a connection is made."""
    connection.password = PASSWORD
    await connection.on_connect()


class Provider(CredentialProvider):
    """Credentials that are asked for at each connection, such as tokens."""

    def get_credentials(self) -> tuple[str, str]:
        return "default", PASSWORD


LOG_INS: dict[str, Callable[[], dict[str, Any]]] = {
    "password": lambda: {"password": PASSWORD},
    "username": lambda: {"username": "default", "password": PASSWORD},
    "provider": lambda: {"credential_provider": Provider()},
    "ready-provider": lambda: {"credential_provider": UsernamePasswordCredentialProvider("default", PASSWORD)},
    "connect-function": lambda: {"redis_connect_func": log_in},
    "resp3": lambda: {"password": PASSWORD, "protocol": 3},
}


@pytest.mark.parametrize("log_in_by", LOG_INS)
async def test_a_router_logs_in_as_its_client_does(build: Build, log_in_by: str) -> None:
    seen: list[int] = []
    port = free_port()  # over a unix socket, redis-py logs in before it calls the function
    async with own_server(build, "--port", str(port)) as server:
        async with Redis.from_url(server.url) as admin:
            await admin.config_set("requirepass", PASSWORD)
        async with Redis(port=port, **LOG_INS[log_in_by]()) as client:
            router = make_router(None)

            @router.on(DvOrder)
            async def handle(event: DvOrder) -> None:
                seen.append(event.number)

            async with running(router, redis=client):
                await make_emitter(client).emit(DvOrder(number=1))
                await eventually(lambda: seen == [1])


async def test_an_own_connection_has_the_name_and_the_database_of_the_client(redis_url: str) -> None:
    async with Redis.from_url(redis_url, client_name="billing", db=3, decode_responses=True) as client:
        own = OwnConnection(client, STREAM, timeout=SOON)
        assert await call(own, "CLIENT", "GETNAME") == b"billing"
        assert b" db=3 " in await call(own, "CLIENT", "INFO")
        await own.close()


CHANGED = {"decode_responses", "socket_timeout", "parser_class", "retry", "health_check_interval"}
"""Options with a value of our own."""

LEFT_OUT = ("maint_notifications", "orig_", "retry_on", "oss_cluster")
"""Options that belong to the pool, and redis-py's retries."""


async def test_an_own_connection_is_made_with_all_other_options_of_the_client() -> None:
    made: list[dict[str, Any]] = []

    class Recorded(AbstractConnection):
        def __init__(self, **options: Any) -> None:
            made.append(options)
            raise RedisConnectionError("enough")

    client = Redis(
        username="u", password="p", client_name="c", protocol=3, socket_keepalive=True, socket_keepalive_options={4: 60}
    )
    pool = client.connection_pool
    pool.connection_kwargs["redis_connect_func"] = log_in
    pool.connection_kwargs["option_of_a_class_of_the_users"] = 1
    pool.connection_class = Recorded  # type: ignore[assignment]
    with pytest.raises(RedisConnectionError, match="enough"):
        await call(OwnConnection(client, STREAM, timeout=7.0), "PING")

    kept = {name: value for name, value in pool.connection_kwargs.items() if not name.startswith(LEFT_OUT)}
    assert {name for name in made[0] if name not in CHANGED} == {name for name in kept if name not in CHANGED}
    assert all(made[0][name] is value for name, value in kept.items() if name not in CHANGED)
    assert made[0]["socket_timeout"] == 7.0


class OldPool(ConnectionPool):
    """What a busy pool raises before redis-py 7.2."""

    def get_available_connection(self) -> Any:
        if not self.can_get_connection():
            raise RedisConnectionError("Too many connections")
        return super().get_available_connection()


async def test_a_busy_pool_of_an_older_redis_py_is_waited_for(redis_url: str) -> None:
    pool = OldPool.from_url(redis_url, max_connections=1)
    async with Redis(connection_pool=pool) as client:
        used_elsewhere = await pool.get_connection()
        asked = asyncio.create_task(call(SharedPool(client, STREAM), "PING"))
        await asyncio.wait([asked], timeout=0.05)
        assert not asked.done()
        await pool.release(used_elsewhere)
        assert await asked == b"PONG"
        await client.aclose(close_connection_pool=True)
