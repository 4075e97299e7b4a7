"""Imitations of other services: a payment provider and a courier, which are slow and fail as the demo needs it."""

import asyncio
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import sha256

__all__ = ["CardDeclinedError", "Courier", "CourierBusyError", "PaymentProvider"]

DECLINED_CARD = "declined"


class CardDeclinedError(Exception):
    """The bank declined the card. A retry does not help."""


class CourierBusyError(Exception):
    """No van is free at the moment. A retry helps."""


@dataclass(slots=True)
class PaymentProvider:
    """Charges every card except `declined`.

    Like a real provider it takes an idempotency key: calls with the same key are one payment, charged once.
    """

    latency: float = 0.08
    """Seconds an answer takes."""
    charged: dict[str, Decimal] = field(default_factory=dict[str, Decimal])
    """What was charged, by payment id."""

    async def charge(self, card: str, amount: Decimal, *, idempotency_key: str) -> str:
        """Charge the card and return the payment's id. Raises `CardDeclinedError`."""
        await asyncio.sleep(self.latency)
        if card == DECLINED_CARD:
            raise CardDeclinedError("insufficient funds")
        payment_id = f"pay_{_digest(idempotency_key)}"
        self.charged.setdefault(payment_id, amount)
        return payment_id


@dataclass(slots=True)
class Courier:
    """Takes parcels. It has no van free at the second request, and then at every third one."""

    latency: float = 0.05
    """Seconds an answer takes."""
    requests: int = 0
    """How many times it was called."""

    async def book(self, order_id: str) -> str:
        """Book a van for the order and return the tracking number, one per order. Raises `CourierBusyError`."""
        self.requests += 1
        busy = self.requests % 3 == 2
        await asyncio.sleep(self.latency)
        if busy:
            raise CourierBusyError("no van is free")
        return f"1Z{_digest(order_id).upper()}"


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:10]
