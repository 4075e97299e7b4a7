"""The fields of a stream entry, of a replay entry and of a dead letter: names, order and bytes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import ClassVar

from rapids import BaseEvent, GenericEvent
from rapids._core.attempt_log import Attempt, AttemptLog
from rapids._core.failures import Failure
from rapids._core.outcomes import Dead, Ledger, Reason, Wait
from rapids._wire.encoding import encode
from rapids._wire.fingerprints import fingerprint_name
from rapids._wire.letter_format import Origin, replay_fields, write_letter
from rapids._wire.trace_context import TRACE_FIELDS, trace_values
from rapids.hooks import TraceContext

__all__ = ["lines"]

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678_901, UTC)
EVENT_ID = "11111111-1111-4111-8111-111111111111"


class PinnedEvent(BaseEvent):
    event_type: ClassVar[str] = "pins.order_placed"
    schema_version: ClassVar[int] = 3

    order_id: str
    total: float
    tags: list[str]
    note: str | None = None


def lines() -> list[str]:
    event = PinnedEvent(
        id=EVENT_ID, timestamp=MOMENT, order_id="o-1", total=12.5, tags=["new", "größe"], metadata={"source": "web"}
    )
    entry = encode(event, correlation_id="request-1", causation_id=None)
    generic = GenericEvent(id=EVENT_ID, timestamp=MOMENT, raw_type="pins.unknown", data={"n": 1})
    letter = [*letter_of(entry), b"letter_id", b"1767323050000-0"]
    odd = letter_of([*entry, b"extra", b"\xff\x00"])
    context = TraceContext("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "vendor=1")
    trace = [part for pair in zip(TRACE_FIELDS, trace_values(context), strict=True) for part in pair]
    traced = letter_of([*entry, *trace])
    return [
        *described("entry", entry),
        *described("entry of a GenericEvent", encode(generic, correlation_id=None, causation_id="cause-1")),
        *described("fields of an entry emitted under a span, after the others", trace),
        *described("dead letter", letter),
        *described("dead letter of an entry with other fields", odd),
        *described("dead letter of an entry emitted under a span", traced),
        *described("replay entry", replay_fields(letter, handler="charge", letter_id="1767323050000-0")),
        *described("replay entry for all handlers", replay_fields(odd, handler="", letter_id="1767323050000-0")),
        f"fingerprint of the dead letter: {fingerprint_name(letter)}",
        f"ledger: {ledger().dump()!r}",
    ]


def described(title: str, fields: Sequence[bytes]) -> list[str]:
    pairs = zip(fields[::2], fields[1::2], strict=True)
    return [f"{title}: {name.decode()} = {value!r}" for name, value in pairs]


def attempts() -> AttemptLog:
    failed = Attempt(1, 2, MOMENT.replace(microsecond=678_000), "worker-1", "ValueError", "no such card")
    return AttemptLog.of(failed)


def letter_of(entry: Sequence[bytes]) -> list[bytes]:
    failure = Failure("ValueError", "no such card", "Traceback: no such card", "shop.cards:12 charge")
    origin = Origin("1767323045678-0", "orders", "billing", "worker-1", 5, replay_of="1767323040000-0", replay_count=1)
    dead = Dead("charge", Reason.MAX_DELIVERIES_EXCEEDED, failure, attempts())
    return write_letter(entry, origin, dead, failed_at=MOMENT)


def ledger() -> Ledger:
    return Ledger(
        done=frozenset({"log"}),
        dead=frozenset({"mail"}),
        recorded=2,
        gave_up=frozenset({"ship"}),
        waits=(Wait("charge", 1, due_ms=1_767_323_060_000), Wait("refund", 2, delay=1.5)),
        attempts=(("charge", attempts()),),
    )
