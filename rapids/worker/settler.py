"""The settler: writes what deliveries came to, many in one round trip, until Redis has confirmed each."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import orjson
from redis.exceptions import RedisError

from rapids.outcomes import Ack, Dead, HandBack, Keep, Park, Settlement
from rapids.storage import settlement
from rapids.storage.connection import Reply
from rapids.storage.groups import RawEntry
from rapids.storage.settlement import Letter, SettleCall
from rapids.wire.letters import Origin, write_letter
from rapids.worker.leases import Leases
from rapids.worker.member import Member

__all__ = ["Settled", "Settler"]

logger = logging.getLogger("rapids.worker")

LARGEST_FLUSH = 1_000


@dataclass(frozen=True, slots=True)
class Settled:
    """An entry and what its delivery came to, with what a log line or a letter says about it."""

    entry: RawEntry
    settlement: Settlement
    origin: Origin
    event_id: str = ""
    correlation_id: str = ""


class Settler:
    """Takes settlements at any time; one task writes them. What arrives during a write goes with the next."""

    def __init__(self, member: Member, leases: Leases, on_kept: Callable[[float], None]) -> None:
        self._member = member
        self._leases = leases
        self._on_kept = on_kept
        self._queue: deque[Settled] = deque()
        self._unsure: set[bytes] = set()
        """Entries for which a write went out and its answer was lost."""
        self._arrived = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    def put(self, settled: Settled) -> None:
        """Settle an entry as soon as possible. Its lease is kept until that is written."""
        self._leases.settling(settled.entry)
        self._queue.append(settled)
        self._empty.clear()
        self._arrived.set()

    async def flushed(self) -> None:
        """Wait until everything put so far is written."""
        await self._empty.wait()

    async def run(self) -> None:
        """Write until cancelled."""
        failures = 0
        while True:
            await self._arrived.wait()
            taken = [self._queue.popleft() for _ in range(min(len(self._queue), LARGEST_FLUSH))]
            failed = await self._flush(taken)
            self._queue.extendleft(reversed(failed))
            if failed:
                failures += 1
                await asyncio.sleep(self._member.outages.pause(failures))
            else:
                failures = 0
                self._member.outages.worked("settling")
            if not self._queue:
                self._arrived.clear()
                self._empty.set()

    async def _flush(self, batch: Sequence[Settled]) -> list[Settled]:
        """Write a batch; those Redis did not confirm."""
        plain = [one for one in batch if self._is_plain(one)]
        by_script = [one for one in batch if not self._is_plain(one)]
        return await self._acknowledge(plain) + await self._settle(by_script)

    def _is_plain(self, one: Settled) -> bool:
        """Whether an acknowledgement is all there is to write: nothing is kept of the entry, and nobody else has it."""
        held = self._leases.holds(one.entry.source, one.entry.entry_id)
        return one.settlement == Ack() and one.entry.ledger is None and held

    async def _acknowledge(self, batch: Sequence[Settled]) -> list[Settled]:
        failed: list[Settled] = []
        for source in {one.entry.source: None for one in batch}:
            of_source = [one for one in batch if one.entry.source == source]
            replies: list[Reply]
            try:
                replies = await settlement.acknowledge(
                    self._member.commands, source, [one.entry.entry_id for one in of_source]
                )
            except (RedisError, OSError) as error:
                replies = [error]
            faults = [reply for reply in replies if isinstance(reply, Exception)]
            if faults:
                self._member.outages.failed("settling", faults[0])
                failed += of_source
            else:
                for one in of_source:
                    self._leases.drop(one.entry)
        return failed

    async def _settle(self, batch: Sequence[Settled]) -> list[Settled]:
        if not batch:
            return []
        settings = self._member.settings
        replies: list[Reply]
        try:
            replies = await settlement.settle(
                self._member.commands,
                self._member.name,
                [_call_for(one) for one in batch],
                dlq=settings.dlq_stream,
                dlq_maxlen=settings.dlq_maxlen,
            )
        except (RedisError, OSError) as error:
            replies = [error] * len(batch)
            self._unsure.update(one.entry.entry_id for one in batch)
        failed: list[Settled] = []
        for one, reply in zip(batch, replies, strict=True):
            if isinstance(reply, Exception):
                self._member.outages.failed("settling", reply)
                failed.append(one)
            elif reply == b"gone" and await self._is_missing(one):
                failed.append(one)
            else:
                self._unsure.discard(one.entry.entry_id)
                self._leases.drop(one.entry)
                if isinstance(one.settlement, Keep):
                    self._on_kept(one.settlement.delay)
                self._log(one, reply)
        return failed

    async def _is_missing(self, one: Settled) -> bool:
        """Whether an entry was not pending because its group was made anew, and is pending now, so that it can be
        settled. Not if it may have been settled by a write whose answer was lost: that wrote its letters."""
        if one.entry.entry_id in self._unsure:
            return False
        try:
            return await self._leases.registered(one.entry)
        except (RedisError, OSError) as error:
            self._member.outages.failed("settling", error)
            return True

    def _log(self, one: Settled, reply: Reply) -> None:
        entry_id = one.entry.entry_id.decode()
        extra = {
            **self._member.context,
            "stream": one.entry.source.stream,
            "entry_id": entry_id,
            "event_id": one.event_id,
            "correlation_id": one.correlation_id,
            "deliveries": one.entry.deliveries,
        }
        match reply, one.settlement:
            case b"gone", _:
                logger.warning("entry %s was settled by another consumer meanwhile", entry_id, extra=extra)
            case b"lost", _:
                logger.warning("entry %s is another consumer's now: wrote only what is done", entry_id, extra=extra)
            case b"trimmed", _:
                logger.error("entry %s was trimmed from the stream while it was handled: lost", entry_id, extra=extra)
            case _, Ack(letters=letters) | HandBack(letters=letters):
                self._log_letters(letters, extra)
            case _, Keep(delay=delay, ledger=ledger, letters=letters):
                self._log_letters(letters, extra)
                has_failed = any(wait.due_ms is None for wait in ledger.waits)
                logger.log(
                    logging.WARNING if has_failed else logging.INFO,
                    "delivery %d of entry %s failed; next one in %.1f s"
                    if has_failed
                    else "delivery %d of entry %s was for some of its handlers only; next one in %.1f s",
                    *(one.entry.deliveries, entry_id, delay),
                    extra=extra,
                )
            case _, Park(ledger=ledger):
                handlers = sorted(ledger.gave_up)
                logger.error(
                    "entry %s parked, as there is no dead-letter stream: failed for good in %s",
                    *(entry_id, ", ".join(map(repr, handlers))),
                    extra={**extra, "handlers": handlers},
                )

    def _log_letters(self, letters: Sequence[Dead], extra: Mapping[str, object]) -> None:
        for letter in letters:
            logger.error(
                "dead letter of handler %r for entry %s: %s: %s",
                *(letter.handler, extra["entry_id"], letter.reason, letter.failure.error_type),
                extra={**extra, "handler": letter.handler, "error_type": letter.failure.error_type},
            )


def _call_for(one: Settled) -> SettleCall:
    """What the script is to do: one clause for each settlement."""
    entry, settlement_ = one.entry, one.settlement
    match settlement_:
        case Ack(letters, ledger):
            return SettleCall(entry.source, entry.entry_id, "ack", ledger.dump(), letters=_letters(one, letters))
        case Keep(delay, ledger, letters):
            return SettleCall(
                *(entry.source, entry.entry_id, "keep", ledger.dump()),
                delay_ms=round(delay * 1000),
                letters=_letters(one, letters),
            )
        case Park(ledger, failures):
            return SettleCall(entry.source, entry.entry_id, "park", ledger.dump(), why=_why(failures))
        case HandBack(ledger, letters):
            return SettleCall(
                *(entry.source, entry.entry_id, "hand_back", ledger.dump()),
                deliveries=ledger.recorded,
                letters=_letters(one, letters),
            )


def _letters(one: Settled, letters: Sequence[Dead]) -> list[Letter]:
    return [Letter(letter.handler, write_letter(one.entry.fields, one.origin, letter)) for letter in letters]


def _why(failures: Sequence[Dead]) -> bytes:
    told = [
        {"handler": failure.handler, "reason": failure.reason, "error": failure.failure.message} for failure in failures
    ]
    return orjson.dumps(told)
