"""Two groups and three handlers on one event. One handler fails; a replay reaches only that one.

On one server and on a Cluster; by Python and by HTTP; and where the handler was renamed between its failure and the
replay.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import httpx
import pytest

from rapids import BaseEvent, DeadLetter, DeadLetterQueue, EventRouter
from rapids._storage.keys import Source
from rapids_fastapi import Rapids, TokenAuth
from tests.cluster.conftest import Place
from tests.fastapi.helpers import admin_app
from tests.support import eventually
from tests.worker.helpers import STREAM, until_settled

TOKEN = "a token for the show"


class ShowOrderPlaced(BaseEvent):
    number: int


class Shop:
    """A service with two groups: `payments` has the handlers `charge` and `receipt`, `shipping` has `pack`."""

    def __init__(self, url: str, dlq: str) -> None:
        self.url, self.dlq = url, dlq
        self.bank_is_open = False
        self.ran: list[str] = []
        """Which handlers have run, in order; with an exclamation mark where one failed."""

    @asynccontextmanager
    async def open(self, *, charge: str = "charge", aliases: tuple[str, ...] = ()) -> AsyncIterator[Opened]:
        """Run it in this process. `charge` and `aliases`: the name of that handler, and the names it had before."""
        common: dict[str, Any] = {"stream": STREAM, "dlq_stream": self.dlq, "max_deliveries": 1, "block_ms": 200}
        payments = EventRouter(group="payments", **common)
        shipping = EventRouter(group="shipping", **common)

        @payments.on(ShowOrderPlaced, name=charge, aliases=aliases)
        async def take_money(event: ShowOrderPlaced) -> None:
            self.ran.append(charge if self.bank_is_open else f"{charge}!")
            if not self.bank_is_open:
                raise ConnectionError("the bank is closed")

        @payments.on(ShowOrderPlaced)
        async def receipt(event: ShowOrderPlaced) -> None:
            self.ran.append("receipt")

        @shipping.on(ShowOrderPlaced)
        async def pack(event: ShowOrderPlaced) -> None:
            self.ran.append("pack")

        rapids = Rapids(url=self.url, routers=[payments, shipping], admin_auth=TokenAuth(TOKEN))
        app = admin_app(rapids)
        async with rapids.lifespan(app) as state:
            transport = httpx.ASGITransport(_with_state(app, state))
            headers = {"Authorization": f"Bearer {TOKEN}"}
            async with httpx.AsyncClient(transport=transport, base_url="http://shop", headers=headers) as http:
                yield Opened(rapids, DeadLetterQueue(rapids.redis, self.dlq), http)


@dataclass(frozen=True)
class Opened:
    """The service while it runs."""

    rapids: Rapids
    queue: DeadLetterQueue
    http: httpx.AsyncClient

    async def letters(self) -> tuple[DeadLetter, ...]:
        """The letters there are, once both groups have settled everything, replays too."""
        for group in ("payments", "shipping"):
            replays = Source(STREAM, group).replays().stream
            await until_settled(self.rapids.redis, STREAM, group)
            await eventually(lambda replays=replays: self._is_empty(replays))
        return (await self.queue.list()).items

    async def _is_empty(self, stream: str) -> bool:
        return await self.rapids.redis.xlen(stream) == 0


def _with_state(app: Any, state: dict[str, Any]) -> Any:
    """The application as a server calls it: with the lifespan's state in each request."""

    async def called(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "state": dict(state)}, receive, send)

    return called


# --- by whom --------------------------------------------------------------------------------------------------------


@pytest.fixture
def shop(place: Place) -> Shop:
    return Shop(place.url, place.dlq)


async def by_python(opened: Opened, letter: DeadLetter) -> None:
    await opened.queue.replay(letter.id, actor="admin", reason="the bank is open again")


async def by_http(opened: Opened, letter: DeadLetter) -> None:
    path = f"/rapids/api/dead-letters/{letter.id}/replay"
    answer = await opened.http.post(
        path, params={"dlq": opened.queue.stream}, json={"reason": "the bank is open again"}
    )
    assert answer.status_code == 200, answer.text


pytestmark = pytest.mark.parametrize("replay", [by_python, by_http])
Replay: TypeAlias = Callable[[Opened, DeadLetter], Awaitable[None]]


# --- the show -------------------------------------------------------------------------------------------------------


async def test_a_replay_runs_only_the_handler_that_failed(shop: Shop, replay: Replay) -> None:
    async with shop.open() as opened:
        await opened.rapids.emitter.emit(ShowOrderPlaced(number=1))
        (letter,) = await opened.letters()
        assert (letter.group, letter.handler, letter.error) == ("payments", "charge", "the bank is closed")
        assert sorted(shop.ran) == ["charge!", "pack", "receipt"]

        shop.bank_is_open = True
        shop.ran.clear()
        await replay(opened, letter)
        assert await opened.letters() == ()
        assert shop.ran == ["charge"]
        archived = await opened.queue.get(letter.id)
        (change,) = archived.history
        assert (archived.state, change.actor, change.reason) == ("replayed", "admin", "the bank is open again")
        assert await opened.rapids.redis.xlen(STREAM) == 1  # no other group and no other reader saw anything


async def test_a_replay_runs_the_failed_handler_under_its_new_name(shop: Shop, replay: Replay) -> None:
    async with shop.open() as opened:
        await opened.rapids.emitter.emit(ShowOrderPlaced(number=1))
        (letter,) = await opened.letters()
    shop.ran.clear()

    async with shop.open(charge="collect", aliases=("charge",)) as opened:
        await replay(opened, letter)  # too early: the bank is closed
        (again,) = await opened.letters()
        assert shop.ran == ["collect!"]
        assert (again.handler, again.replay_of) == ("collect", letter.id)

        shop.bank_is_open = True
        await replay(opened, again)
        assert await opened.letters() == ()
        assert shop.ran == ["collect!", "collect"]


async def test_a_replay_runs_no_handler_if_the_old_name_is_no_alias(shop: Shop, replay: Replay) -> None:
    async with shop.open() as opened:
        await opened.rapids.emitter.emit(ShowOrderPlaced(number=1))
        (letter,) = await opened.letters()
    shop.ran.clear()
    shop.bank_is_open = True

    async with shop.open(charge="collect") as opened:
        await replay(opened, letter)
        (again,) = await opened.letters()
        assert shop.ran == []
        assert (again.handler, again.replay_of) == ("charge", letter.id)
        assert "the group has no handler 'charge'; if it was renamed" in again.error
