"""Appending entries until Redis has them, and only once."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence, Set
from dataclasses import dataclass, field

from redis.exceptions import RedisError

from rapids.backoff import exponential
from rapids.settings import EmitterSettings
from rapids.storage import streams
from rapids.storage.connection import AnswerLostError, Client, Reply, ServerClient, SharedPool, is_outage

__all__ = ["Appended", "Appender", "NotReplicatedError", "Outgoing", "UnknownOutcomeError"]

LONGEST_DELAY = 30.0
REPLICATION_TIMEOUT_MS = 1_000


class UnknownOutcomeError(RedisError):
    """An answer was lost, and whether Redis carried the command out can no longer be found out."""


class NotReplicatedError(RedisError):
    """Redis has the entries, and fewer replicas than asked for confirmed them in time."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An event on its way: its id and the fields of its entry."""

    event_id: str
    fields: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of some entries: the entry id of each that is stored, and why the others are not."""

    ids: Sequence[str | None]
    unsure: Set[int]
    """Positions of which it is not known whether they are stored."""
    attempts: int
    error: Exception | None


@dataclass(slots=True)
class _Progress:
    """How far an append has come."""

    outgoing: Sequence[Outgoing]
    since: str | None
    """The last entry id known before the first attempt: what this append stores comes after it."""
    ids: list[str | None]
    unsure: set[int] = field(default_factory=set[int])
    lost_clients: set[ServerClient | None] = field(default_factory=set[ServerClient | None])

    def open_positions(self) -> list[int]:
        return [at for at, entry_id in enumerate(self.ids) if entry_id is None]


class Appender:
    """Appends to one stream over a user's pool, with retries.

    When an answer was lost, the next attempt first makes sure: it has the server close the connection the commands went
    out on, so that they are carried out now or never, and looks the events up among the entries that came since.
    """

    def __init__(self, client: Client, settings: EmitterSettings) -> None:
        self._commands = SharedPool(client, identified=True)
        self._settings = settings
        self._last_seen: str | None = None

    async def append(self, outgoing: Sequence[Outgoing]) -> Appended:
        """Append entries in order, until all are stored or the retries are used up."""
        progress = _Progress(outgoing, self._last_seen, [None] * len(outgoing))
        attempt = 0
        while True:
            attempt += 1
            error = await self._attempt(progress)
            last = error is None or not is_outage(error) or attempt >= self._settings.max_retries
            if last:
                return Appended(progress.ids, progress.unsure, attempt, error)
            await asyncio.sleep(exponential(max_delay=LONGEST_DELAY)(attempt - 1) * self._settings.retry_delay)

    async def _attempt(self, progress: _Progress) -> Exception | None:
        """Store what is not stored yet; the error that kept some of it from being stored, if any."""
        try:
            if progress.since is None:
                progress.since = await streams.last_id(self._commands, self._settings.stream) or "0-0"
            if progress.unsure:
                await self._make_sure(progress, progress.since)
            open_ = progress.open_positions()
            return await self._send(progress, open_) if open_ else await self._confirm()
        except (RedisError, OSError) as error:
            return error

    async def _send(self, progress: _Progress, open_: Sequence[int]) -> Exception | None:
        try:
            replies = await streams.append(
                self._commands,
                self._settings.stream,
                [progress.outgoing[at].fields for at in open_],
                maxlen=self._settings.maxlen,
                replicas=self._settings.replicas,
                replication_timeout_ms=REPLICATION_TIMEOUT_MS,
            )
        except AnswerLostError as error:
            progress.unsure.update(open_)
            progress.lost_clients.add(error.client)
            return error
        except (RedisError, OSError) as error:
            return error
        for at, reply in zip(open_, replies, strict=False):
            progress.ids[at] = _entry_id(reply)
        self._note_seen(progress.ids)
        return self._fault(replies[: len(open_)]) or self._replication_fault(replies[len(open_) :])

    async def _confirm(self) -> Exception | None:
        """All were found to be stored after their answers had been lost, that of the replicas among them: ask again."""
        if not (replicas := self._settings.replicas):
            return None
        stream, patience = self._settings.stream, REPLICATION_TIMEOUT_MS
        return self._replication_fault(
            [await streams.replicated(self._commands, stream, replicas=replicas, timeout_ms=patience)]
        )

    async def _make_sure(self, progress: _Progress, since: str) -> None:
        """Find out which of the unsure ones are stored. Raises `UnknownOutcomeError` where nothing can tell."""
        for client in list(progress.lost_clients):
            if client is None:
                raise UnknownOutcomeError("the connection was lost before the server's number for it was known")
            await streams.kill_client(self._commands, client)
            progress.lost_clients.discard(client)
        positions = defaultdict[str, list[int]](list)
        for at in sorted(progress.unsure, reverse=True):
            positions[progress.outgoing[at].event_id].append(at)
        found, complete = await streams.find_events(self._commands, self._settings.stream, since, list(positions))
        for event_id, entry_id in found:
            if positions[event_id]:  # one event may be in the list twice, and be found as often
                progress.ids[at := positions[event_id].pop()] = entry_id
                progress.unsure.discard(at)
        if not complete and progress.unsure:
            raise UnknownOutcomeError(
                "too many entries came since, or some were trimmed, to look the events up among them"
            )
        progress.unsure.clear()

    @staticmethod
    def _fault(replies: Sequence[Reply]) -> Exception | None:
        """The error that decides: one that does not pass, as then there is no use in trying again, else any."""
        errors = [reply for reply in replies if isinstance(reply, Exception)]
        return next((error for error in errors if not is_outage(error)), errors[0] if errors else None)

    def _replication_fault(self, replies: Sequence[Reply]) -> Exception | None:
        wanted = self._settings.replicas
        if not wanted or not replies or (isinstance(replies[0], int) and replies[0] >= wanted):
            return None
        return NotReplicatedError(
            f"stored, but {replies[0]} of {wanted} replicas confirmed it within {REPLICATION_TIMEOUT_MS} ms"
        )

    def _note_seen(self, ids: Sequence[str | None]) -> None:
        stored = [entry_id for entry_id in ids if entry_id is not None]
        known = [*stored, *([self._last_seen] if self._last_seen else [])]
        self._last_seen = max(known, key=streams.order, default=None)


def _entry_id(reply: Reply) -> str | None:
    return reply.decode() if isinstance(reply, bytes) else None
