"""The settler: writes settlements, many in one round trip, until Redis has confirmed each of them."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import orjson
from redis.exceptions import RedisError

from rapids._core.outcomes import ACK, Ack, Dead, Keep, Ledger, Park, Release, without_entry
from rapids._storage import settlement
from rapids._storage.client.connections import Reply
from rapids._storage.reads import acknowledgement
from rapids._storage.settlement import Letter, SettleCall
from rapids._storage.terms import Term
from rapids._wire.entry_format import Fields, event_type_in
from rapids._wire.letter_format import Origin, write_letter
from rapids._worker.acks import Acks
from rapids._worker.context import WorkerContext
from rapids._worker.gate import Gate
from rapids._worker.inflight import HeldEntry, Inflight, State
from rapids._worker.leases import Leases, Moment
from rapids._worker.losses import report_lost
from rapids._worker.settled import Settled

__all__ = ["Settler"]

logger = logging.getLogger("rapids.worker")

MAX_FLUSH = 1_000
"""Settlements written in one round trip."""

NOT_OURS = (b"gone", b"lost", b"stale")
"""Replies that mean: another consumer had the entry, or had settled it."""

RIDE_TIME = 0.005
"""Seconds that an acknowledgement waits for the next read: half of the promised time, since a loop may be busy."""


class Settler:
    """Takes settlements at any time. One task writes them; those that arrive during a write are part of the next.

    Plain acknowledgements wait a moment for the reader, which sends them with its next read.
    """

    def __init__(self, context: WorkerContext, gate: Gate, inflight: Inflight, leases: Leases, acks: Acks) -> None:
        self._context = context
        self._gate = gate
        self._inflight = inflight
        self._leases = leases
        self._acks = acks
        self._queue: deque[Settled] = deque()
        self._unsure: dict[tuple[bytes, int], Moment] = {}
        """Deliveries whose settlement was sent and not answered, and when it was first sent. An entry may have two of
        them: one that was kept, and the next."""
        self._hurry = asyncio.Event()
        self._under_way = 0

    def put(self, settled: Settled) -> None:
        """Settle an entry as soon as possible. Its lease is kept until the settlement is written."""
        settled.held.enter(State.SETTLING)
        self._queue.append(settled)
        self._hurry.set()
        self._acks.wanted.set()

    def release(self, entries: Iterable[HeldEntry]) -> None:
        """Release entries that have not begun: other consumers may take them at once, and no delivery is counted."""
        settings = self._context.settings
        for held in entries:
            entry = held.entry
            released = Release(Ledger.load(entry.ledger).released(entry.deliveries, entry.taken_ms))
            # A replay that has not begun needs no letter: its letter is in the archive.
            entry_id = "" if entry.source.is_replay else entry.entry_id.decode()
            origin = Origin(entry_id, settings.stream, settings.group, self._context.name, entry.deliveries)
            self.put(Settled(held, entry, released, origin))

    def acknowledge(self, held: HeldEntry) -> None:
        """Acknowledge an entry: every handler succeeded on the first delivery, or the group has no handler for it.

        On a later delivery there may be a ledger of an earlier consumer, which the settlement must delete.
        """
        entry = held.entry
        if entry.ledger is None and entry.deliveries == 1 and held.state is not State.LOST:
            self._acks.put(held)
        else:
            self.put(Settled(held, entry, ACK, Origin("", "", "", "", 0)))

    async def flushed(self) -> None:
        """Wait until all settlements so far are written."""
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
            # The reader has a moment to send acknowledgements with its next read. Settlements do not wait.
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
        """Write all that is queued. Returns whether Redis has confirmed all of it."""
        taken = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_FLUSH))]
        self._under_way, failed = len(taken), list(taken)
        try:
            acked = True
            if batch := self._acks.take():
                commands = [command for source, ids in batch.items() for command in acknowledgement(source, ids)]
                try:
                    replies = await self._context.commands.send(commands)
                except (RedisError, OSError) as error:
                    acked = False
                    self._acks.failed(batch, error)
                else:
                    acked = not any(isinstance(reply, Exception) for reply in replies)
                    self._acks.answered(batch, replies)
            failed = await self._settle(taken)
        finally:  # if interrupted, none of them is known to be written
            self._queue.extendleft(reversed(failed))
            self._under_way = 0
        if taken and not failed:
            self._context.outages.worked("settling")
        return acked and not failed

    async def _settle(self, batch: Sequence[Settled]) -> list[Settled]:
        if not batch:
            return []
        context, sent_at = self._context, self._leases.moment()
        try:
            calls = [_call_for(one, self._gate.term) for one in batch]
            dlq, most = context.settings.dlq_stream, context.settings.dlq_maxlen
            writing = settlement.settle(context.commands, context.name, calls, dlq=dlq, dlq_maxlen=most)
            replies: list[Reply] = await writing
        except BaseException as error:  # it is not known whether it was written, also if interrupted
            for one in batch:
                self._unsure.setdefault(_delivery_of(one), sent_at)
            if not isinstance(error, RedisError | OSError):
                raise
            replies = [error] * len(batch)
        failed, trimmed = list[Settled](), list[Settled]()
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
                    reply = b"settled"  # by the write that was not answered
                if reply not in NOT_OURS:
                    self._acks.settled_at = time.monotonic()
                is_held = one.held.state is not State.LOST
                self._inflight.drop(one.held)  # unless a later delivery is held in its place
                if isinstance(one.settlement, Keep):
                    context.next_look.within(one.settlement.delay)
                self._log(one, reply)
                if reply not in (b"gone", b"lost"):
                    one.count(context.counts, is_held=is_held)
                elif is_held:
                    context.counts.lease_lost(one.entry.source, one.entry.entry_id)
        return failed + await self._settle(trimmed)

    def _without_entry(self, one: Settled) -> Settled:
        """The settlement of an entry that was trimmed from the stream: dead letters of the handlers that were to run
        again, if its payload is held and there is a dead-letter stream. Otherwise the entry is lost."""
        if self._context.settings.dlq_stream is not None and one.entry.fields and one.origin.entry_id:
            return replace(one, settlement=without_entry(one.settlement), retried=(), is_trimmed=True)
        self._log(one, b"trimmed")
        return replace(one, settlement=ACK, retried=(), is_lost=True)

    async def _missing(self, one: Settled) -> Settled | None:
        """What is still to be settled of an entry that was not pending; None if nothing is.

        All of it if its group was recreated and the entry is pending again. Its letters if it was trimmed. Nothing if
        an unanswered write may have settled it, unless the group was lost since: then it is rather settled twice than
        not at all.
        """
        sent_at = self._unsure.get(_delivery_of(one))
        if one.is_buried:
            return None
        try:
            if sent_at is not None and not await self._leases.was_lost_since(one.entry.source, sent_at):
                return None
            match await self._leases.registered(one.held):
                case "ours":
                    self._unsure.pop(_delivery_of(one), None)  # it is pending, so it is to be settled
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
            "event_type": event_type_in(one.entry.fields) or "",
            "correlation_id": one.correlation_id,
            "deliveries": one.entry.deliveries,
        }
        match reply, one.settlement:
            case b"gone", _:
                logger.warning("entry %s was settled by another consumer", entry_id, extra=extra)
            case b"lost", _:
                logger.warning(
                    "entry %s now belongs to another consumer: recorded only the finished handlers",
                    entry_id,
                    extra=extra,
                )
            case b"trimmed", _:
                message = "entry %s was trimmed from the stream while it was handled: lost"
                report_lost(self._context, 1, message, entry_id, **extra)
            case _, Ack(letters=letters) | Release(letters=letters):
                self._log_letters(letters, extra, one.entry.fields)
            case _, Keep(delay=delay, ledger=ledger, letters=letters):
                self._log_letters(letters, extra, one.entry.fields)
                if not any(wait.due_ms is None for wait in ledger.waits):  # otherwise the failure was logged
                    message = "delivery %d of entry %s was for some of its handlers only; next one in %.1f s"
                    logger.info(message, one.entry.deliveries, entry_id, delay, extra=extra)
            case _, Park(ledger=ledger, failures=failures):
                handlers = sorted(ledger.gave_up)
                types = ", ".join(dead.failure.error_type for dead in failures)
                self._context.failures.write(
                    logging.ERROR,
                    ("a parked entry", str(extra["event_type"]), ", ".join(handlers), types[:200]),
                    "entry %s (event %r) parked, as there is no dead-letter stream: failed for good in %s: %s",
                    entry_id,
                    extra["event_type"],
                    ", ".join(map(repr, handlers)),
                    extra={**extra, "handlers": handlers},
                    raised=[(dead.failure, dead.error) for dead in failures],
                    fields=one.entry.fields,
                )

    def _log_letters(self, letters: Sequence[Dead], extra: Mapping[str, object], fields: Fields) -> None:
        for letter in letters:
            failure = letter.failure
            self._context.failures.write(
                logging.ERROR,
                ("a dead letter", str(extra["event_type"]), letter.handler, failure.error_type),
                "dead letter of handler %r for entry %s (event %r, delivery %d): %s: %s",
                letter.handler,
                extra["entry_id"],
                extra["event_type"],
                extra["deliveries"],
                letter.reason,
                extra={
                    **extra,
                    "handler": letter.handler,
                    "error_type": failure.error_type,
                    **(letter.run.log_fields() if letter.run else {}),
                },
                raised=[(failure, letter.error)],
                fields=fields,
            )


def _delivery_of(one: Settled) -> tuple[bytes, int]:
    return one.entry.entry_id, one.entry.deliveries


def _call_for(one: Settled, term: Term | None) -> SettleCall:
    """The script's call for a settlement. A lost entry was taken in an earlier term, if there are terms."""
    entry, settlement_ = one.entry, one.settlement
    if term is not None and one.held.state is State.LOST:
        term = replace(term, token="")
    call = SettleCall(
        source=entry.source,
        entry_id=entry.entry_id,
        verb="ack",
        ledger=settlement_.ledger.dump(),
        delivery=entry.deliveries,
        taken_with=entry.ledger or b"",
        term=term,
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
    is_filled = not (one.is_trimmed or one.is_buried) and settlement.is_filled(one.entry)
    stored = () if is_filled else one.entry.fields
    return [Letter(letter.handler, write_letter(stored, one.origin, letter), is_filled) for letter in letters]
