"""The check of what is stored: how much of it today's event classes would not parse, where, and why."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, TypeAlias

from redis.exceptions import RedisError

from rapids import DeadLetter, DeadLetterQueue
from rapids.clients import RedisClient
from rapids.exceptions import GroupNotFoundError, StreamNotFoundError
from rapids.inspection import Inspector, StreamEntry
from rapids.redaction import Redactor

__all__ = [
    "StoredCheck",
    "StoredEventsGate",
    "StoredPlace",
    "StoredProblem",
    "check_newest",
    "check_stored",
]

StoredPlace: TypeAlias = Literal["entries", "pending", "letters"]

MAX_READ = 200_000
"""Entries of a stream that are looked at. Of each type only the newest are parsed."""

MAX_PROBLEMS = 200
MAX_TYPES = 10_000
MAX_KNOWN = 100_000
MAX_TEXT = 500
MAX_SEARCHED = 1024 * 1024
"""Bytes of data that are searched for hidden values. Of larger ones, no message is shown."""

MAX_INLINE = 1024
"""Bytes: larger events are parsed and searched in a thread, since a hostile one of 64 KiB takes a tenth of a second."""

PAGE = 100
SHOWN = 3

GATE_SECONDS = 30.0
"""How long a check of the gate may take."""

PAUSE = 30.0
"""Seconds from a check of the gate to the next one."""

_logger = logging.getLogger("rapids")

UNREADABLE = "deserialization_error"
"""The reason of letters of events that could not be read when they were delivered."""

NOT_PARSED = ("invalid", "unreadable", "newer_version")


@dataclass(frozen=True, slots=True)
class StoredProblem:
    """A problem that stored events have in common. Hidden values are masked in its texts."""

    place: StoredPlace
    stream: str
    """The stream, or the dead-letter stream."""
    group: str
    """Of pending entries and of letters, their group; otherwise empty."""
    event_type: str
    outcome: str
    """As of `DeadLetter.check_parsing`: `invalid`, `unreadable` or `newer_version`."""
    pointer: str
    """Where in the event's data, as a JSON Pointer."""
    message: str
    count: int
    """How many events have it."""
    example: str
    """The id of one of them: an entry or a letter."""
    is_known: bool
    """Whether a dead letter says already that these could not be read when they were delivered."""


@dataclass(frozen=True, slots=True)
class StoredCheck:
    """What was read, and what today's classes would not parse of it."""

    entries: int
    pending: int
    letters: int
    failed: int
    """How many would not parse, and nobody knows yet."""
    known: int
    """How many would not parse, of which a dead letter says so already."""
    problems: tuple[StoredProblem, ...]
    """The most frequent first, at most 200. An event may have several."""
    complete: bool
    """Whether everything was read: not if the time was over, or a stream has more than 200,000 entries."""

    @property
    def refuses(self) -> bool:
        """Whether there is something that no process of today's classes would parse. Events of a newer schema version
        are for newer processes."""
        return any(one.outcome != "newer_version" and not one.is_known for one in self.problems)

    @property
    def reasons(self) -> str:
        """What it refuses for, in a line: the most frequent problems."""
        return "; ".join(
            f"{one.event_type}{one.pointer and f' {one.pointer}'}: {one.message} ({one.count:,} {one.place} of "
            f"{one.stream}, such as {one.example})"
            for one in [one for one in self.problems if not one.is_known][:SHOWN]
        )

    def __str__(self) -> str:
        read = f"{self.entries:,} entries, {self.pending:,} pending, {self.letters:,} letters"
        parts = [f"{self.failed:,} of these would not parse: {read}" if self.failed else f"all parse: {read}"]
        if self.known:
            parts.append(f"{self.known:,} more have a dead letter that says so")
        return "; ".join(parts if self.complete else [*parts, "not everything was read"])


async def check_stored(
    redis: RedisClient,
    streams: Sequence[str],
    *,
    dlqs: Sequence[str] = (),
    newest: int = 1_000,
    seconds: float = 60.0,
    redactor: Redactor | None = None,
) -> StoredCheck:
    """Parse what is stored by the classes that are registered now, and change nothing.

    Reads the `newest` entries of each event type in `streams`, everything that their groups have pending, also replays,
    and all letters of `dlqs`, for at most `seconds`. Events of types without a class count as read. What `redactor`
    hides is masked in messages; by default the usual names.

    Raises `ValueError` for a `newest` or `seconds` that is not positive, and `redis.exceptions.RedisError`.
    """
    if isinstance(newest, bool) or newest < 1:
        raise ValueError(f"newest must be a whole number from 1, not {newest!r}")
    if not seconds > 0:
        raise ValueError(f"seconds must be a number above 0, not {seconds!r}")
    found = _Findings(Redactor.of([]) if redactor is None else redactor)
    is_complete = False
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            for dlq in dict.fromkeys(dlqs):
                await _check_letters(redis, dlq, found)
            inspector = Inspector(redis)
            names = list(dict.fromkeys(streams))
            parts = [await _check_entries(inspector, stream, newest, found) for stream in names]
            for stream in names:
                await _check_pending(inspector, stream, found)
            is_complete = all(parts)
    return found.result(is_complete=is_complete)


def check_newest(option: str, newest: int) -> int:
    """The number, for `StoredEventsGate`. Raises `ValueError` for anything but a whole number from 0."""
    if isinstance(newest, bool) or not isinstance(newest, int) or newest < 0:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"{option} must be a whole number of events of each type from 0, not {newest!r}")
    return newest


class StoredEventsGate:
    """Holds back the routers of an application while today's classes would not parse what is stored.

    Otherwise they would make a dead letter of each such event, while the process that it is to replace still reads it.
    Events of newer versions hold nothing back: they wait for a newer process.
    """

    def __init__(
        self, redis: RedisClient, streams: Sequence[str], dlqs: Sequence[str], *, newest: int, redactor: Redactor
    ) -> None:
        self._look = partial(
            check_stored, redis, streams, dlqs=dlqs, newest=newest, seconds=GATE_SECONDS, redactor=redactor
        )
        self.fault: str = ""
        """Why the routers are held back; empty if they are not."""

    async def check(self) -> bool:
        """Whether the routers may begin. Logs it, and the reasons once. Raises `redis.exceptions.RedisError`."""
        began = time.monotonic()
        found = await self._look()
        # A check that was cut short may have missed what an earlier one found.
        if not found.refuses and not (self.fault and time.monotonic() - began >= GATE_SECONDS):
            is_notable = self.fault or found.failed or not found.complete
            _logger.log(logging.WARNING if is_notable else logging.INFO, "check_stored: %s: the routers begin", found)
            self.fault: str = ""
            return True
        if not self.fault:
            again = f"the routers do not begin. This is checked again every {PAUSE:g} s"
            _logger.critical("check_stored: %s: %s: %s", found, found.reasons, again)
        if found.refuses:
            self.fault = f"check_stored: {found}: {found.reasons}"
        return False

    async def opened(self) -> None:
        """Return when the routers may begin."""
        while True:
            await asyncio.sleep(PAUSE)
            try:
                if await self.check():
                    return
            except (RedisError, OSError) as error:
                _logger.debug("check_stored: %s", error)
            except Exception:  # a fault of ours must not end it
                _logger.exception("check_stored: the check failed, and will be repeated")


@dataclass(slots=True)
class _Findings:
    redactor: Redactor
    read: Counter[StoredPlace] = field(default_factory=Counter[StoredPlace])
    failed: int = 0
    known: int = 0
    known_ids: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    """The streams and ids of entries of which a letter says that they cannot be read."""
    problems: dict[StoredProblem, tuple[int, str]] = field(default_factory=dict[StoredProblem, tuple[int, str]])
    """From problems without a count and an example to these."""

    async def add(self, one: DeadLetter | StreamEntry, place: StoredPlace, stream: str, group: str) -> None:
        """Parse an event, and note what is wrong with it."""
        look = partial(_look, one, self.redactor)
        is_large = len(one.data) + len(one.metadata) > MAX_INLINE
        outcome, texts = await asyncio.to_thread(look) if is_large else look()
        self.read[place] += 1
        if isinstance(one, DeadLetter):
            is_known, example = one.reason == UNREADABLE, one.id
            if is_known and len(self.known_ids) < MAX_KNOWN:
                self.known_ids.add((one.stream, one.entry_id))
        else:
            is_known, example = (one.stream, one.entry_id) in self.known_ids, one.entry_id
        if outcome not in NOT_PARSED:
            return
        self.known += is_known
        self.failed += not is_known
        for pointer, message in texts:
            problem = StoredProblem(
                place, stream, group, one.event_type[:MAX_TEXT], outcome, pointer, message, 0, "", is_known
            )
            if problem not in self.problems and len(self.problems) >= MAX_PROBLEMS:
                problem = replace(problem, group="", event_type="", pointer="", message="other problems")
            count, first = self.problems.get(problem, (0, example))
            self.problems[problem] = count + 1, first
        await asyncio.sleep(0)  # a search takes milliseconds

    def result(self, *, is_complete: bool) -> StoredCheck:
        """What was found so far."""
        problems = (replace(one, count=count, example=first) for one, (count, first) in self.problems.items())
        return StoredCheck(
            entries=self.read["entries"],
            pending=self.read["pending"],
            letters=self.read["letters"],
            failed=self.failed,
            known=self.known,
            problems=tuple(sorted(problems, key=lambda one: (one.is_known, -one.count, one.event_type, one.pointer))),
            complete=is_complete,
        )


def _look(one: DeadLetter | StreamEntry, redactor: Redactor) -> tuple[str, list[tuple[str, str]]]:
    """What parsing an event gives, and where and why it does not parse, without what is hidden in the event."""
    check = one.check_parsing()
    if check.outcome not in NOT_PARSED:
        return check.outcome, []
    searched = [redactor.document(raw) if len(raw) <= MAX_SEARCHED else None for raw in (one.data, one.metadata)]
    hidden = redactor.hidden(*searched)
    return check.outcome, [
        redactor.problem(problem.location, problem.message, hidden, MAX_TEXT) for problem in check.problems[:SHOWN]
    ]


async def _check_letters(redis: RedisClient, dlq: str, found: _Findings) -> None:
    queue, cursor = DeadLetterQueue(redis, dlq), None
    while True:
        page = await queue.list(cursor=cursor, limit=PAGE)
        for letter in page.items:
            await found.add(letter, "letters", dlq, letter.group)
        if (cursor := page.cursor) is None:
            return
        await asyncio.sleep(0)


async def _check_entries(inspector: Inspector, stream: str, newest: int, found: _Findings) -> bool:
    """Whether all entries of the stream were looked at."""
    types: Counter[str] = Counter()
    looked_at = 0
    async for entry in inspector.backwards(stream):
        looked_at += 1
        if looked_at > MAX_READ:
            return False
        if len(types) < MAX_TYPES or entry.event_type in types:
            types[entry.event_type] += 1
            if types[entry.event_type] <= newest:
                await found.add(entry, "entries", stream, "")
        if looked_at % PAGE == 0:
            await asyncio.sleep(0)
    return True


async def _check_pending(inspector: Inspector, stream: str, found: _Findings) -> None:
    groups: list[str] = []
    cursor: str | None = None
    with suppress(StreamNotFoundError):
        while True:
            page = await inspector.groups(stream, cursor=cursor, limit=PAGE)
            groups += [one.group for one in page.items]
            if (cursor := page.cursor) is None:
                break
    for group in groups:
        for replays in (False, True):
            with suppress(StreamNotFoundError, GroupNotFoundError, ValueError):  # a name that Rapids does not accept
                await _check_group(inspector, stream, group, found, replays=replays)


async def _check_group(inspector: Inspector, stream: str, group: str, found: _Findings, *, replays: bool) -> None:
    cursor: str | None = None
    while True:
        page = await inspector.pending(stream, group, replays=replays, cursor=cursor, limit=PAGE)
        ids = [one.entry_id for one in page.items]
        async for entry in inspector.entries(stream, ids, replays_of=group if replays else None):
            await found.add(entry, "pending", stream, group)
        if (cursor := page.cursor) is None:
            return
