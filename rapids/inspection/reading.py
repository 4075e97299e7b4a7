"""From what the server told to snapshots: plain functions."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

import orjson

from rapids._core.entry_id import FIRST_ID, moment, order, time_of
from rapids._core.outcomes import Ledger
from rapids._storage import groups
from rapids._storage.inspection_queries import (
    COUNTED,
    ConsumerRow,
    GroupRow,
    GroupRows,
    PendingRow,
    StreamRow,
    WaitingRow,
)
from rapids._storage.keys import PARKED, WAITING
from rapids.inspection.snapshots import (
    ConsumerSnapshot,
    GroupSnapshot,
    HandlerAttempts,
    ParkedFailure,
    PendingEntry,
    StreamSnapshot,
)

__all__ = ["consumer", "group", "lag", "pending", "server_time", "stream", "waiting"]


def stream(name: str, row: StreamRow) -> StreamSnapshot:
    return StreamSnapshot(
        at=server_time(row.now_ms),
        stream=name,
        length=row.length,
        first_id=_text_or_none(row.first_id),
        first_at=_time_or_none(row.first_id),
        last_id=_text_or_none(row.last_id),
        last_at=_time_or_none(row.last_id),
        entries_added=row.entries_added,
        groups=row.groups,
        memory=row.memory,
    )


def group(stream: str, found: GroupRows, row: GroupRow) -> GroupSnapshot:
    behind, exact = lag(found, row)
    last_delivered = row.last_delivered_id.decode()
    oldest = min(filter(None, (row.oldest_id, row.next_id)), key=order, default=None)
    return GroupSnapshot(
        at=server_time(found.now_ms),
        stream=stream,
        group=_text(row.name),
        last_delivered_id=last_delivered,
        last_delivered_at=None if last_delivered == FIRST_ID else time_of(row.last_delivered_id),
        entries_read=row.entries_read,
        lag=behind,
        lag_exact=exact,
        pending=row.pending,
        held=row.pending - row.held_by_waiting - row.parked,
        waiting=row.due,
        parked=row.parked,
        oldest_unsettled_id=_text_or_none(oldest),
        oldest_unsettled_ms=None if oldest is None else max(found.now_ms - order(oldest)[0], 0),
        replays=row.replays,
        consumers=row.consumers,
        consumers_alive=row.living,
    )


def lag(found: GroupRows, row: GroupRow) -> tuple[int, bool]:
    """Entries that were not delivered, and whether that is exact.

    Some servers count those trimmed away before they were read, too; here, only what is in the stream does.
    """
    if found.first_id is None or found.last_id is None or row.next_id is None:
        return 0, True
    delivered, first, last = order(row.last_delivered_id), order(found.first_id), order(found.last_id)
    if delivered < first:
        return found.length, True
    if row.lag is not None:
        return min(max(row.lag, 0), found.length), True
    if row.counted < COUNTED:
        return row.counted, True
    share = (last[0] - delivered[0]) / max(last[0] - first[0], 1)
    return min(max(round(found.length * share), COUNTED), found.length), False


def consumer(now_ms: int, row: ConsumerRow) -> ConsumerSnapshot:
    since = None if row.token is None else groups.token_made_at(row.token)
    return ConsumerSnapshot(
        consumer=_text(row.name),
        alive=row.token is not None,
        alive_since=None if since is None else moment(since),
        seen_at=server_time(now_ms - row.idle_ms),
        idle_ms=row.idle_ms,
        # Redis says -1 where it never got anything.
        inactive_ms=None if row.inactive_ms is None or row.inactive_ms < 0 else row.inactive_ms,
        pending=row.pending,
    )


def pending(row: PendingRow) -> PendingEntry:
    state = {WAITING: "waiting", PARKED: "parked"}.get(row.consumer, "held")
    entry_id, at, ledger = row.entry_id.decode(), time_of(row.entry_id), _ledger(row.ledger)
    attempts = _attempts(ledger)
    match state:
        case "waiting":
            return PendingEntry(
                *(entry_id, at, "waiting", None, False, row.idle_ms, row.deliveries),
                due_at=None if row.due is None else _time_of_score(row.due),
                handlers=_handlers(ledger),
                attempts=attempts,
            )
        case "parked":
            return PendingEntry(
                *(entry_id, at, "parked", None, False, row.idle_ms, row.deliveries),
                failures=_failures(row.why),
                attempts=attempts,
            )
        case _:
            return PendingEntry(
                *(entry_id, at, "held", _text(row.consumer), row.is_living == 1, row.idle_ms, row.deliveries),
                handlers=_handlers(ledger),
                attempts=attempts,
            )


def waiting(row: WaitingRow) -> PendingEntry | None:
    """A waiting entry; None for one that somebody holds although it is told to be due."""
    if row.consumer not in (WAITING, None):
        return None
    ledger = _ledger(row.ledger)
    return PendingEntry(
        entry_id=row.entry_id.decode(),
        appended_at=time_of(row.entry_id),
        state="waiting",
        consumer=None,
        consumer_alive=False,
        idle_ms=None if row.consumer is None else row.idle_ms,
        deliveries=row.deliveries if row.consumer else ledger.recorded,
        due_at=_time_of_score(row.due),
        handlers=_handlers(ledger),
        attempts=_attempts(ledger),
    )


def server_time(now_ms: int) -> datetime:
    """A moment of the server's clock."""
    return datetime.fromtimestamp(now_ms / 1000, UTC)


def _time_or_none(entry_id: bytes | None) -> datetime | None:
    return None if entry_id is None else time_of(entry_id)


def _time_of_score(score: bytes) -> datetime | None:
    try:
        return moment(round(float(score)))
    except (ValueError, OverflowError):
        return None


def _text(name: bytes) -> str:
    return name.decode(errors="backslashreplace")


def _text_or_none(entry_id: bytes | None) -> str | None:
    return None if entry_id is None else entry_id.decode()


# What is kept beside a stream is Rapids' own, but nothing keeps others from writing there.


def _ledger(raw: bytes | None) -> Ledger:
    try:
        return Ledger.load(raw)
    except (ValueError, KeyError, TypeError, AttributeError):
        return Ledger()


def _handlers(ledger: Ledger) -> tuple[str, ...]:
    return tuple(wait.handler for wait in ledger.waits)


def _attempts(ledger: Ledger) -> tuple[HandlerAttempts, ...]:
    return tuple(HandlerAttempts(handler, log.kept, log.left_out) for handler, log in ledger.attempts)


def _failures(raw: bytes | None) -> tuple[ParkedFailure, ...]:
    try:
        told: Any = orjson.loads(raw or b"[]")
    except ValueError:
        return ()
    rows = cast(list[Any], told) if isinstance(told, list) else []
    return tuple(_failure(cast(Mapping[str, Any], row)) for row in rows if isinstance(row, dict))


def _failure(row: Mapping[str, Any]) -> ParkedFailure:
    return ParkedFailure(*(str(row.get(name, "")) for name in ("handler", "reason", "error")))
