"""The settler: writes what deliveries came to, many in one round trip, until Redis has confirmed each."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import orjson
from redis.exceptions import RedisError

from rapids._core.counter_state import Counts, OfType
from rapids._core.outcomes import ACK, Ack, Dead, Keep, Ledger, Park, Release, Settlement, without_entry
from rapids._storage import settlement
from rapids._storage.client.connections import Reply
from rapids._storage.groups import RawEntry, acknowledgement
from rapids._storage.settlement import Letter, SettleCall
from rapids._wire.letter_format import Origin, write_letter
from rapids._worker.acks import Acks
from rapids._worker.context import WorkerContext
from rapids._worker.inflight import HeldEntry, Inflight, State
from rapids._worker.leases import Leases
from rapids._worker.losses import report_lost
from rapids.observers import DeadLettered, Parked

__all__ = ["Settled", "Settler"]

logger = logging.getLogger("rapids.worker")

LARGEST_FLUSH = 1_000
"""Settlements written in one round trip."""

NOT_OURS = (b"gone", b"lost", b"stale")
"""Answers that say that the entry was another's, or settled, by then."""

RIDE_TIME = 0.005
"""Seconds an acknowledgement waits for a read to go along with; half of what is promised, since a loop may be busy."""


@dataclass(frozen=True, slots=True)
class Settled:
    """An entry and what its delivery came to, with what a log line, a letter or a counter says about it."""

    held: HeldEntry
    entry: RawEntry
    """The same entry, with the fields that a letter of it gets."""
    settlement: Settlement
    origin: Origin
    event_id: str = ""
    correlation_id: str = ""
    counts: OfType | None = None
    """What is counted for its type; None where no handler was begun."""
    retried: tuple[str, ...] = ()
    """The handlers that failed and are to run again."""
    is_buried: bool = False
    """Whether the entry was found to be neither pending nor in the stream: what is to be written are its letters."""
    is_lost: bool = False
    """Whether it was trimmed from the stream, and no letter can be written for it."""


class Settler:
    """Takes settlements at any time; one task writes them. What arrives during a write goes with the next.

    Plain acknowledgements are left to the reader for a moment, to go along with its next read.
    """

    def __init__(self, context: WorkerContext, inflight: Inflight, leases: Leases, acks: Acks) -> None:
        self._context = context
        self._inflight = inflight
        self._leases = leases
        self._acks = acks
        self._queue: deque[Settled] = deque()
        self._unsure: dict[tuple[bytes, int], int] = {}
        """Deliveries for which a write went out and its answer was lost, and how often the group had been lost by then.
        An entry may have two: one that was kept, and the next."""
        self._hurry = asyncio.Event()
        self._under_way = 0

    def put(self, settled: Settled) -> None:
        """Settle an entry as soon as possible. Its lease is kept until that is written."""
        settled.held.enter(State.SETTLING)
        self._queue.append(settled)
        self._hurry.set()
        self._acks.wanted.set()

    def release(self, entries: Iterable[HeldEntry]) -> None:
        """Release entries that were not begun: claimable at once, and without spending a delivery."""
        settings = self._context.settings
        for held in entries:
            entry = held.entry
            released = Release(Ledger.load(entry.ledger).released(entry.deliveries, entry.taken_ms))
            # A replay that never began has its letter in the archive, whatever becomes of it.
            entry_id = "" if entry.source.is_replay else entry.entry_id.decode()
            origin = Origin(entry_id, settings.stream, settings.group, self._context.name, entry.deliveries)
            self.put(Settled(held, entry, released, origin))

    def acknowledge(self, held: HeldEntry) -> None:
        """Settle an entry that needs nothing else: every handler was done at the first go, or there is none.

        An earlier consumer may have left a ledger of what it had done: only at a first delivery there was none.
        """
        entry = held.entry
        if entry.ledger is None and entry.deliveries == 1 and held.state is not State.LOST:
            self._acks.put(held)
        else:
            self.put(Settled(held, entry, ACK, Origin("", "", "", "", 0)))

    async def flushed(self) -> None:
        """Wait until everything put so far is written."""
        while self._queue or self._under_way or not self._acks.is_idle:
            self._hurry.set()
            self._acks.changed.clear()
            await self._acks.changed.wait()

    async def run(self) -> None:
        """Write until cancelled."""
        failures = 0
        while True:
            if not self._queue and not self._acks.are_waiting:
                self._acks.wanted.clear()
                await self._acks.wanted.wait()
            # The reader has a moment to take acknowledgements along with its next read. Settlements do not wait.
            while self._acks.are_waiting and not self._hurry.is_set() and (left := RIDE_TIME - self._acks.age) > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await self._hurry.wait()
            self._hurry.clear()
            if await self._flush():
                failures = 0
            else:
                failures += 1
                await asyncio.sleep(self._context.outages.pause(failures))
            self._acks.changed.set()

    async def _flush(self) -> bool:
        """Write everything that is there; whether Redis has confirmed it all."""
        taken = [self._queue.popleft() for _ in range(min(len(self._queue), LARGEST_FLUSH))]
        self._under_way, failed = len(taken), list(taken)
        try:
            acked = await self._acknowledge()
            failed = await self._settle(taken)
        finally:  # interrupted, none of them is known to be written
            self._queue.extendleft(reversed(failed))
            self._under_way = 0
        if taken and not failed:
            self._context.outages.worked("settling")
        return acked and not failed

    async def _acknowledge(self) -> bool:
        if not (batch := self._acks.take()):
            return True
        commands = [command for source, ids in batch.items() for command in acknowledgement(source, ids)]
        try:
            replies = await self._context.commands.send(commands)
        except (RedisError, OSError) as error:
            self._acks.failed(batch, error)
            return False
        self._acks.answered(batch, replies)
        return not any(isinstance(reply, Exception) for reply in replies)

    async def _settle(self, batch: Sequence[Settled]) -> list[Settled]:
        if not batch:
            return []
        replies: list[Reply]
        context = self._context
        try:
            calls = [_call_for(one) for one in batch]
            replies = await settlement.settle(
                context.commands,
                context.name,
                calls,
                dlq=context.settings.dlq_stream,
                dlq_maxlen=context.settings.dlq_maxlen,
            )
        except (RedisError, OSError) as error:
            replies = [error] * len(batch)
            self._note_unsure(batch)
        except BaseException:  # interrupted: whether it was written is not known
            self._note_unsure(batch)
            raise
        failed: list[Settled] = []
        trimmed: list[Settled] = []
        for one, reply in zip(batch, replies, strict=True):
            if isinstance(reply, Exception):
                context.outages.failed("settling", reply)
                failed.append(one)
            elif reply == b"trimmed":
                trimmed.append(self._without_entry(one))
            elif reply == b"gone" and (missing := await self._missing(one)) is not None:
                if missing.is_buried:
                    trimmed.append(missing)
                else:
                    failed.append(missing)
            else:
                if self._unsure.pop(_delivery_of(one), None) is not None and reply in (b"gone", b"lost"):
                    reply = b"settled"  # by the write whose answer was lost
                if reply not in NOT_OURS:
                    self._acks.settled_at = time.monotonic()
                is_held = one.held.state is not State.LOST
                if reply != b"stale":  # else it was delivered to this process again
                    self._inflight.drop(one.held)
                if isinstance(one.settlement, Keep):
                    context.next_look.within(one.settlement.delay)
                self._log(one, reply)
                _count(context.counts, one, reply, is_held=is_held)
        return failed + await self._settle(trimmed)

    def _note_unsure(self, batch: Sequence[Settled]) -> None:
        self._unsure.update((_delivery_of(one), self._leases.losses) for one in batch)

    def _without_entry(self, one: Settled) -> Settled:
        """What there is to settle of an entry that was trimmed from the stream: the letters of what it was to be kept
        for, while there is a payload to put into them and a stream to write them to. Else it is lost."""
        if self._context.settings.dlq_stream is not None and one.entry.fields and one.origin.entry_id:
            return replace(one, settlement=without_entry(one.settlement), retried=())
        self._log(one, b"trimmed")
        return replace(one, settlement=ACK, retried=(), is_lost=True)

    async def _missing(self, one: Settled) -> Settled | None:
        """What is still to be settled of an entry that was not pending; None where nothing is.

        All of it where its group was recreated, and the entry is pending now. Its letters where it was trimmed, and
        somebody dropped it for that. Not if it may have been settled by a write whose answer was lost, unless the
        group was lost since: then rather once too often than not at all.
        """
        if one.is_buried or self._unsure.get(_delivery_of(one)) == self._leases.losses:
            return None
        try:
            match await self._leases.registered(one.held):
                case "ours":
                    return one
                case "trimmed" if (left := self._without_entry(one)).settlement is not ACK:
                    return replace(left, is_buried=True)
                case _:
                    return None
        except (RedisError, OSError) as error:
            self._context.outages.failed("settling", error)
            return one

    def _log(self, one: Settled, reply: Reply) -> None:
        entry_id = one.entry.entry_id.decode()
        extra = {
            **self._context.log,
            "stream": one.entry.source.stream,
            "entry_id": entry_id,
            "event_id": one.event_id,
            "correlation_id": one.correlation_id,
            "deliveries": one.entry.deliveries,
        }
        match reply, one.settlement:
            case b"gone", _:
                logger.warning("entry %s was settled by another consumer", entry_id, extra=extra)
            case b"lost", _:
                logger.warning("entry %s is another consumer's now: wrote only what is done", entry_id, extra=extra)
            case b"trimmed", _:
                message = "entry %s was trimmed from the stream while it was handled: lost"
                report_lost(self._context, 1, message, entry_id, **extra)
            case _, Ack(letters=letters) | Release(letters=letters):
                self._log_letters(letters, extra)
            case _, Keep(delay=delay, ledger=ledger, letters=letters):
                self._log_letters(letters, extra)
                has_failed = any(wait.due_ms is None for wait in ledger.waits)
                logger.log(
                    logging.WARNING if has_failed else logging.INFO,
                    "delivery %d of entry %s failed; next one in %.1f s"
                    if has_failed
                    else "delivery %d of entry %s was for some of its handlers only; next one in %.1f s",
                    one.entry.deliveries,
                    entry_id,
                    delay,
                    extra=extra,
                )
            case _, Park(ledger=ledger):
                handlers = sorted(ledger.gave_up)
                logger.error(
                    "entry %s parked, as there is no dead-letter stream: failed for good in %s",
                    entry_id,
                    ", ".join(map(repr, handlers)),
                    extra={**extra, "handlers": handlers},
                )

    def _log_letters(self, letters: Sequence[Dead], extra: Mapping[str, object]) -> None:
        for letter in letters:
            logger.error(
                "dead letter of handler %r for entry %s: %s: %s",
                letter.handler,
                extra["entry_id"],
                letter.reason,
                letter.failure.error_type,
                extra={**extra, "handler": letter.handler, "error_type": letter.failure.error_type},
            )


def _delivery_of(one: Settled) -> tuple[bytes, int]:
    return one.entry.entry_id, one.entry.deliveries


def _call_for(one: Settled) -> SettleCall:
    """What the script is to do: one clause for each settlement."""
    entry, settlement_ = one.entry, one.settlement
    call = SettleCall(
        source=entry.source,
        entry_id=entry.entry_id,
        verb="ack",
        ledger=settlement_.ledger.dump(),
        delivery=entry.deliveries,
        taken_with=entry.ledger or b"",
    )
    match settlement_:
        case Ack(letters, _):
            return replace(call, verb="bury" if one.is_buried else "ack", letters=_letters(one, letters))
        case Keep(delay, _, letters):
            return replace(call, verb="keep", delay_ms=round(delay * 1000), letters=_letters(one, letters))
        case Park(_, failures):
            why = [
                {"handler": failure.handler, "reason": failure.reason, "error": failure.failure.message}
                for failure in failures
            ]
            return replace(call, verb="park", why=orjson.dumps(why))
        case Release(ledger, letters):
            return replace(call, verb="release", deliveries=ledger.recorded, letters=_letters(one, letters))


def _letters(one: Settled, letters: Sequence[Dead]) -> list[Letter]:
    return [Letter(letter.handler, write_letter(one.entry.fields, one.origin, letter)) for letter in letters]


def _count(counts: Counts, one: Settled, reply: Reply, *, is_held: bool) -> None:
    """Count what the settling script did. `is_held`: whether the lease had not been counted as lost before."""
    letters = () if isinstance(one.settlement, Park) else one.settlement.letters
    if reply in (b"gone", b"lost"):
        if is_held:
            counts.lease_lost(one.entry.source, one.entry.entry_id)
        return
    source, entry_id = one.entry.source, one.entry.entry_id.decode()
    if one.counts is not None:
        for letter in letters:
            one.counts.dead[counts.handler(letter.handler), letter.reason.value] += 1
            if counts.observers is not None:
                counts.observers.tell(
                    DeadLettered(
                        stream=source.stream,
                        group=source.group,
                        entry_id=entry_id,
                        event_id=one.event_id,
                        event_type=one.counts.event_type,
                        handler=letter.handler,
                        reason=letter.reason,
                        failure=letter.failure,
                        deliveries=one.entry.deliveries,
                    )
                )
        for handler in one.retried if not one.is_lost else ():
            one.counts.retried[counts.handler(handler)] += 1
    if is_held and one.is_lost:
        counts.lost(1, "held", entry_ids=(entry_id,), stream=source.stream)
    elif is_held:
        _count_entry(counts, one)


def _count_entry(counts: Counts, one: Settled) -> None:
    match one.settlement:
        case Ack():
            counts.acked += 1
        case Keep():
            counts.kept += 1
        case Release():
            counts.handed_back += 1
        case Park(ledger=ledger):
            of_type = counts.of_type(None) if one.counts is None else one.counts
            of_type.parked += 1
            if counts.observers is not None:
                source, entry_id, handlers = one.entry.source, one.entry.entry_id.decode(), sorted(ledger.gave_up)
                counts.observers.tell(
                    Parked(
                        stream=source.stream,
                        group=source.group,
                        entry_id=entry_id,
                        event_id=one.event_id,
                        event_type=of_type.event_type,
                        handlers=tuple(handlers),
                        deliveries=one.entry.deliveries,
                    )
                )
