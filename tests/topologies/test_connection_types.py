"""The whole story over each way to a server: TLS, a unix socket, a Sentinel; in RESP2 and RESP3."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.exceptions import ConnectionError

from rapids import BaseEvent, EventRouter
from rapids.exceptions import EmitError, RedisUnavailableError
from rapids_fastapi import Rapids
from tests.every_feature import use_every_feature
from tests.servers.builds import NEWEST, OLDEST, WITH_TLS
from tests.servers.client import connected
from tests.servers.sentinel import SentinelFleet
from tests.servers.standalone import Standalone
from tests.support import eventually
from tests.worker.helpers import STREAM, check_keys, make_emitter

pytestmark = pytest.mark.slow

WAYS = {
    "TLS": lambda: Standalone(WITH_TLS, tls=True),
    "unix socket": lambda: Standalone(NEWEST, unix=True),
    "TCP, the oldest": lambda: Standalone(OLDEST),
    "Sentinel": lambda: SentinelFleet(NEWEST),
    "Sentinel, the oldest": lambda: SentinelFleet(OLDEST),
}


class TpNoted(BaseEvent):
    n: int


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.smoke
async def test_every_feature_works_in_both_protocols(way: str) -> None:
    async with WAYS[way]() as servers, connected(servers.url) as redis:
        for protocol in (2, 3):
            await servers.flush()
            async with connected(servers.url, protocol=protocol) as client:
                await use_every_feature(client, redis)
            await check_keys(redis)


@pytest.fixture
async def over_tls() -> AsyncIterator[Standalone]:
    async with Standalone(WITH_TLS, tls=True) as server:
        yield server


async def test_the_plug_in_takes_an_address_with_the_authority_to_trust(over_tls: Standalone) -> None:
    seen: list[int] = []
    router = EventRouter(stream=STREAM)

    @router.on(TpNoted)
    async def note(event: TpNoted) -> None:
        seen.append(event.n)

    rapids = Rapids(routers=[router], url=over_tls.url)
    async with rapids.lifespan():
        await rapids.emitter.emit(TpNoted(n=1))
        await eventually(lambda: seen == [1])


async def test_a_server_that_cannot_be_trusted_is_not_used(over_tls: Standalone) -> None:
    address = over_tls.url.partition("?")[0]
    with pytest.raises(RedisUnavailableError, match="certificate verify failed"):
        async with Rapids(url=address).lifespan():
            pass
    async with connected(address) as client:
        with pytest.raises(EmitError, match="certificate verify failed"):
            await make_emitter(client, max_retries=1).emit(TpNoted(n=1))


async def test_a_server_that_knows_its_clients_by_their_certificates() -> None:
    settings = {"tls-auth-clients": "yes"}
    async with Standalone(WITH_TLS, tls=True, settings=settings) as server:
        assert server.certificates is not None
        mine = str(server.certificates.client)
        async with connected(f"{server.url}&ssl_certfile={mine}&ssl_keyfile={mine}") as client:
            await use_every_feature(client, client)
        async with connected(server.url) as unknown:
            with pytest.raises((ConnectionError, OSError)):
                await asyncio.wait_for(unknown.ping(), 30)
