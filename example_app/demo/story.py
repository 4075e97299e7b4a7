"""The story: a few customers and an operator, who use only the HTTP API of the service."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import httpx

from example_app.demo.narration import Narrator

__all__ = ["Placed", "Story", "StoryError", "eventually"]

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds to wait for each step before the story fails."""

PAUSE = 0.03
"""Seconds between two looks at an order."""


class StoryError(Exception):
    """A step of the story did not happen."""


@dataclass(frozen=True, slots=True)
class Placed:
    """An order that a customer placed."""

    order_id: str
    customer: str
    correlation_id: str
    """From the header of the answer."""


@dataclass(slots=True)
class Story:
    """Plays the story on a running service."""

    http: httpx.AsyncClient
    """For the service's address."""
    admin_token: str
    narrator: Narrator
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    orders: list[Placed] = field(default_factory=list[Placed])
    replayed: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """The operator's replays, as the service confirmed them."""

    async def play(self) -> None:
        """Play the whole story. Raises `StoryError` if a step does not happen."""
        tell = self.narrator.chapter
        tell("Ada orders a lamp. Payment, shipping and the audit follow from events:")
        await self._ends_well(await self.place("Ada", ["lamp"], "48.90"))
        tell("Grace orders a compiler. The courier has no van free, so the handler is tried again:")
        await self._ends_well(await self.place("Grace", ["compiler"], "120.00"))
        tell("Edsger's card is declined. A retry does not help, so it becomes a dead letter:")
        declined = await self.place("Edsger", ["chalk", "blackboard"], "75.50", card="declined")
        await self._is(declined, "payment_declined")
        letter = await self._letter_of(declined)
        tell("Edsger changes the card, and the operator replays the dead letter:")
        await self._answer("PUT", f"/orders/{declined.order_id}/card", json={"card": "visa-4242"})
        await self._replay(letter)
        await self._ends_well(declined)
        tell("Barbara and Donald order at the same time. The ids on the left show which request is which:")
        both = await asyncio.gather(
            self.place("Barbara", ["abstract data"], "19.99"), self.place("Donald", ["volume 4"], "64.00")
        )
        for placed in both:
            await self._ends_well(placed)

    async def leave_failures(self) -> None:
        """Let some orders fail, so that the dashboard has something to show."""
        self.narrator.chapter("Three more customers have a declined card. Their dead letters are left for you:")
        for customer in ("Edsger", "Tony", "Frances"):
            await self._letter_of(await self.place(customer, ["chalk"], "7.50", card="declined"))

    async def place(self, customer: str, items: Sequence[str], total: str, card: str = "visa-1881") -> Placed:
        """Place an order."""
        order = {"customer": customer, "items": list(items), "total": total, "card": card}
        answer = await self._answer("POST", "/orders", json=order)
        placed = Placed(answer.json()["order_id"], customer, answer.headers["X-Correlation-ID"])
        self.orders.append(placed)
        return placed

    async def order(self, placed: Placed) -> dict[str, Any]:
        """The order as the service shows it."""
        return (await self._answer("GET", f"/orders/{placed.order_id}")).json()

    async def dead_letters(self, placed: Placed) -> list[dict[str, Any]]:
        """The dead letters of an order."""
        found: list[dict[str, Any]] = []
        query = {"q": placed.order_id, "since": self.began.isoformat()}
        while True:
            page = (await self._answer("GET", "/rapids/api/dead-letters", params=query)).json()
            found += page["items"]
            if page["next_cursor"] is None:
                return found
            query["cursor"] = page["next_cursor"]

    async def dead_letter(self, letter_id: str) -> dict[str, Any]:
        """One dead letter, with its history."""
        return (await self._answer("GET", f"/rapids/api/dead-letters/{letter_id}")).json()

    async def _letter_of(self, placed: Placed) -> dict[str, Any]:
        """Look for the order's dead letter, as an operator would, until it is there."""
        letters = await eventually(lambda: self.dead_letters(placed), f"no dead letter of order {placed.order_id}")
        for letter in letters:
            what = f"shows {letter['handler']}: {letter['error']}"
            self.narrator.seen(letter["correlation_id"], "GET /rapids/api/dead-letters", what)
        return letters[0]

    async def _replay(self, letter: dict[str, Any]) -> None:
        path = f"/rapids/api/dead-letters/{letter['id']}/replay"
        answer = await self._answer("POST", path, json={"reason": "the customer changed the card"})
        self.replayed.append(answer.json())

    async def _ends_well(self, placed: Placed) -> None:
        order = await self._is(placed, "shipped")
        what = f"{placed.customer}'s order is shipped: {order['payment_id']}, {order['tracking_number']}"
        self.narrator.seen(placed.correlation_id, f"GET /orders/{placed.order_id}", what)

    async def _is(self, placed: Placed, status: str) -> dict[str, Any]:
        async def look() -> dict[str, Any] | None:
            order = await self.order(placed)
            return order if order["status"] == status else None

        return await eventually(look, f"order {placed.order_id} of {placed.customer} did not become {status}")

    async def _answer(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.admin_token}"} if path.startswith("/rapids/") else {}
        try:
            answer = await self.http.request(method, path, headers=headers, **more)
        except httpx.HTTPError as error:
            raise StoryError(f"{method} {path} got no answer: {error or type(error).__name__}") from error
        if answer.is_error:
            raise StoryError(f"{method} {path} was answered {answer.status_code}: {answer.text}")
        return answer


async def eventually(look: Callable[[], Awaitable[T | None]], otherwise: str) -> T:
    """Look until there is a result, and return it. Raises `StoryError` after `PATIENCE` seconds."""
    deadline = time.monotonic() + PATIENCE
    while not (seen := await look()):
        if time.monotonic() > deadline:
            raise StoryError(f"{otherwise} within {PATIENCE:g} s")
        await asyncio.sleep(PAUSE)
    return seen
