"""Tracked work: everything that a test sets off on real streams, until the groups have settled it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, overload

from rapids.clients import RedisClient
from rapids.dead_letters import DeadLetter
from rapids.emitter import EventEmitter
from rapids.events import Event
from rapids.inspection import PendingEntry
from rapids.router import EventRouter
from rapids.testing.causes_text import causes_text, pending_lines
from rapids.testing.failed_work import Failed, ParkedEntry, Place, failed_in, first_line, letters_after, pending_after
from rapids.testing.records import EventRecord, described
from rapids.testing.repetition import (
    Probe,
    Repetition,
    emitted_difference,
    raise_differences,
    state_difference,
    state_of,
)
from rapids.tracker import TrackedEntry, Tracker, Unsettled

__all__ = ["ParkedEntry", "Tracked"]

FIRST_PAUSE, LONGEST_PAUSE = 0.002, 0.05
"""Seconds between two looks."""


@dataclass(slots=True)
class _Seen:
    """What the last look found."""

    entries: tuple[TrackedEntry, ...] = ()
    events: tuple[Event, ...] = ()
    dead_letters: tuple[DeadLetter, ...] = ()
    parked: tuple[ParkedEntry, ...] = ()
    failed: tuple[Failed, ...] = ()
    """Every handler of these letters and parked entries."""
    unsettled: tuple[Unsettled, ...] = ()
    details: dict[Place, PendingEntry] = field(default_factory=dict[Place, PendingEntry])


class Tracked(EventRecord):
    """What was emitted while it is open, by any emitter on these streams, and what became of it.

    Its assertions about events are those of `RecordingEmitter`. They, `dead_letters` and `parked` are as of the last
    `settled()`. `redis`: the client that it uses.
    """

    def __init__(
        self,
        redis: RedisClient,
        routers: Sequence[EventRouter],
        streams: Sequence[str],
        *,
        timeout: float,
        fast_forward: float,
        how: Repetition = None,
        probe: Probe | None = None,
    ) -> None:
        self._how: Repetition = how
        self._probe = probe
        self._repeated: set[tuple[str, str]] = set()
        """The entries that were delivered again, or came of that, by stream and id. No assertion is about them."""
        self._once: set[tuple[str, str]] = set()
        """The entries that were delivered again already."""
        self._ignored: set[str] = set()
        """The failures that came of repetitions, by id."""
        self.redis = redis
        self._routers = tuple(routers)
        self._tracker = Tracker(redis, [(router.stream, router.group) for router in routers], streams)
        self._dlqs = tuple(dict.fromkeys(one.dlq_stream for one in routers if one.dlq_stream is not None))
        self._timeout = timeout
        self._fast_forward = fast_forward
        self._forwarded: dict[Place, float] = {}
        """Seconds that waits were shortened by so far."""
        self._seen = _Seen()
        self._is_settled = False

    async def begin(self) -> None:
        """Track what is emitted from now on."""
        await self._tracker.begin(*self._dlqs)

    @property
    def events(self) -> tuple[Event, ...]:
        """The events that were emitted, stream by stream. Raises `AssertionError` before `settled()`."""
        __tracebackhide__ = True
        self._needs_settled("events")
        return self._seen.events

    @property
    def dead_letters(self) -> tuple[DeadLetter, ...]:
        """The dead letters that were left, oldest first. Raises `AssertionError` before `settled()`."""
        __tracebackhide__ = True
        self._needs_settled("dead_letters")
        return self._seen.dead_letters

    @property
    def parked(self) -> tuple[ParkedEntry, ...]:
        """The entries that were parked, oldest first. Raises `AssertionError` before `settled()`."""
        __tracebackhide__ = True
        self._needs_settled("parked")
        return self._seen.parked

    @overload
    async def emit(self, event: Event, *, stream: str | None = None) -> str: ...
    @overload
    async def emit(self, event: Sequence[Event], *, stream: str | None = None) -> list[str]: ...
    async def emit(self, event: Event | Sequence[Event], *, stream: str | None = None) -> str | list[str]:
        """Emit an event, or several, to `stream`, by default the stream of the routers.

        Raises `ValueError` if the routers read several streams and none is given, and what `EventEmitter.emit` raises.
        """
        streams = self._tracker.streams
        if stream is None and len(streams) != 1:
            raise ValueError(f"stream must be given, since several are tracked: {', '.join(map(repr, streams))}")
        emitter = EventEmitter(self.redis, stream=streams[0] if stream is None else stream)
        return await emitter.emit(event)

    async def settled(self, *, timeout: float | None = None) -> None:
        """Return when everything that was emitted, and what it set off, is handled, dead or parked in all groups.

        Waits of entries that are to be delivered again are left out: their due times are moved. After `timeout`
        seconds, by default those of `tracked`, or if an entry would have to wait for longer than `fast_forward`,
        raises `AssertionError`, which shows what was emitted, by its causes, and what is not settled.

        With `--rapids-twice` or `--rapids-crash`, everything is then delivered once more, one event after another, and
        `AssertionError` says how that was not without effect.
        """
        __tracebackhide__ = True
        limit = self._timeout if timeout is None else timeout
        await self._wait(limit)
        await self._collect(())
        self._is_settled = True
        if self._how is not None:
            await self._repeat(limit, self._how)

    async def _wait(self, limit: float) -> None:
        """Wait until nothing is unsettled, and fail after `limit` seconds."""
        __tracebackhide__ = True
        deadline, pause = time.monotonic() + limit, FIRST_PAUSE
        before: tuple[str, ...] | None = None
        while True:
            moment = await self._tracker.look()
            if not moment.unsettled:
                if moment.last_ids == before:
                    return
                before, pause = moment.last_ids, FIRST_PAUSE
                continue
            before = None
            too_long = [one for one in moment.unsettled if one.state == "waiting" and not await self._hasten(one)]
            if len(too_long) == len(moment.unsettled):
                latest = await self._tracker.look()  # an entry may have been due, and begun another wait since then
                longest = max([one.due_in or 0 for one in latest.unsettled], default=0)
                await self._fail(
                    moment.unsettled,
                    f"an entry would wait for another {_duration(longest)}, and "
                    f"fast_forward allows {_duration(self._fast_forward)} in total",
                )
            if time.monotonic() >= deadline:
                await self._fail(moment.unsettled, f"not settled within {limit:g} s (timeout)")
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE)

    def all_handled(self) -> None:
        """No handler failed for good, and at least one ran.

        Events that no handler here is for are left to other services, but not all of them may be such. Raises
        `AssertionError`, which shows what failed or had no handler, and what was emitted.
        """
        __tracebackhide__ = True
        if failed := len(self.dead_letters) + len(self.parked):
            raise AssertionError(f"expected everything to be handled, but {_count(failed)} failed for good:\n{self}")
        entries = self._seen.entries
        if not entries:
            raise AssertionError("expected everything to be handled; nothing was emitted")
        if not any(_has_handler(router, one) for one in entries for router in self._routers):
            kinds = dict.fromkeys(
                f"{one.event.routing_key!r} on stream {one.stream!r}" for one in entries if one.event is not None
            )
            what = f", {' and '.join(kinds)}" if kinds else ""
            raise AssertionError(
                f"expected everything to be handled, but no handler is for what was emitted{what}:\n{self}"
            )

    def __str__(self) -> str:
        return causes_text(self._seen.entries, self._states())

    def __repr__(self) -> str:
        return f"<Tracked {', '.join(map(repr, self._tracker.streams))}>"

    async def _hasten(self, waiting: Unsettled) -> bool:
        """Let a wait pass, unless it is too long. Returns whether it was not."""
        place = Place(waiting.stream, waiting.group, waiting.entry_id)
        passed = self._forwarded.get(place, 0.0)
        seconds = await self._tracker.hasten(waiting, self._fast_forward - passed)
        if seconds < 0:
            return False
        self._forwarded[place] = passed + seconds
        for router in self._routers:
            if (router.stream, router.group) == (waiting.stream, waiting.group):
                router.look_now()
        return True

    async def _fail(self, unsettled: tuple[Unsettled, ...], why: str) -> None:
        __tracebackhide__ = True
        await self._collect(unsettled)
        raise AssertionError(f"{_count(len(unsettled))} not settled: {why}\n{self}")

    async def _repeat(self, limit: float, how: Literal["twice", "crash"]) -> None:
        """Deliver what was handled once more, one entry after another, and raise what that changed."""
        __tracebackhide__ = True
        found: list[str] = []
        for entry in self._seen.entries:
            if (entry.stream, entry.entry_id) in self._once or entry.event is None:
                continue
            self._once.add((entry.stream, entry.entry_id))
            readers = [one for one in self._routers if _has_handler(one, entry) and not self._failed(one, entry)]
            if how == "twice":
                found += await self._again(limit, entry, readers, partial(self._tracker.append_again, entry))
            else:
                for router in readers:
                    again = partial(self._tracker.deliver_again, entry, router.group)
                    found += await self._again(limit, entry, [router], again)
        raise_differences(how, "each event", list(dict.fromkeys(found)))

    async def _again(
        self, limit: float, entry: TrackedEntry, routers: Sequence[EventRouter], again: Callable[[], Awaitable[object]]
    ) -> list[str]:
        """Deliver an entry again to these routers. Returns what differed."""
        assert entry.event is not None  # noqa: S101 - only entries with an event are repeated
        if not routers:
            return []
        known = {one.event.id: one for one in await self._tracker.entries() if one.event is not None}
        before = await state_of(self._probe)
        await again()
        for router in routers:
            router.look_now()
        await self._wait(limit)
        whose = _whose(entry, routers)
        found: list[str] = []
        entries = await self._tracker.entries()
        new = {one.event.id for one in entries if one.event is not None} - known.keys()
        for one in entries:
            place = (one.stream, one.entry_id)
            if place in self._repeated or any(place == (old.stream, old.entry_id) for old in self._seen.entries):
                continue
            self._repeated.add(place)
            if one.event is None or one.event.id not in new or one.event.causation_id in new - {one.event.id}:
                continue  # what a new event set off is no fault of its handlers
            cause = known.get(one.event.causation_id or "")
            found.append(f"{whose if cause is None else _whose(cause, self._routers)}: {emitted_difference(one.event)}")
        failed_before = {failed.whose for failed in self._seen.failed}
        letters, parked, _ = await self._left()
        for failed in failed_in(letters, parked, _event_ids(entries)):
            if failed.id in self._ignored or failed in self._seen.failed:
                continue
            self._ignored.add(failed.id)
            _, group, handler, event_id = failed.whose
            if failed.whose not in failed_before and event_id not in new:
                of = known.get(event_id, entry).event or entry.event
                found.append(f"{handler} ({group}), on {described(of)}: raised {failed.error}")
        if (changed := state_difference(before, await state_of(self._probe))) is not None:
            found.append(f"{whose}: {changed}")
        return found

    def _failed(self, router: EventRouter, entry: TrackedEntry) -> bool:
        """Whether the entry failed for good in this group."""
        place = Place(router.stream, router.group, entry.entry_id)
        return place in self._seen.details or any(place.has(one) for one in self._seen.dead_letters)

    async def _collect(self, unsettled: tuple[Unsettled, ...]) -> None:
        """Read everything that assertions and messages need."""
        entries = tuple(
            one for one in await self._tracker.entries() if (one.stream, one.entry_id) not in self._repeated
        )
        letters, parked, details = await self._left()
        failed = tuple(one for one in failed_in(letters, parked, _event_ids(entries)) if one.id not in self._ignored)
        known = {one.id for one in failed}
        letters = [one for one in letters if one.id in known]
        parked = [one for one in parked if known.intersection(of.id for of in failed_in([], [one], {}))]
        events = tuple(entry.event for entry in entries if entry.event is not None)
        self._seen = _Seen(entries, events, tuple(letters), tuple(parked), failed, unsettled, details)

    async def _left(self) -> tuple[list[DeadLetter], list[ParkedEntry], dict[Place, PendingEntry]]:
        """The letters and parked entries that there are now, and all pending ones by their places."""
        letters = [
            one for dlq in self._dlqs for one in await letters_after(self.redis, dlq, self._tracker.began_at(dlq))
        ]
        details, existing = dict[Place, PendingEntry](), {entry.stream for entry in await self._tracker.entries()}
        for router in self._routers:
            if router.stream in existing:
                for one in await pending_after(self.redis, router, self._tracker.began_at(router.stream)):
                    details[Place(router.stream, router.group, one.entry_id)] = one
        parked = [ParkedEntry(at.stream, at.group, one) for at, one in details.items() if one.state == "parked"]
        return letters, parked, details

    def _states(self) -> dict[tuple[str, str], list[str]]:
        """Lines about each entry: what became of it in each group."""
        seen = self._seen
        lines: dict[tuple[str, str], list[str]] = {}
        undelivered = {Place(one.stream, one.group, one.entry_id) for one in seen.unsettled if not one.is_replay}
        for entry in seen.entries:
            of_entry = lines.setdefault((entry.stream, entry.entry_id), [])
            for router in self._routers:
                if router.stream != entry.stream:
                    continue
                place = Place(router.stream, router.group, entry.entry_id)
                dead = [letter for letter in seen.dead_letters if place.has(letter)]
                of_entry += [
                    f"{router.group}: dead in {one.handler!r}, {one.reason}: {first_line(one.error)}" for one in dead
                ]
                if (pending := seen.details.get(place)) is not None:
                    of_entry += pending_lines(router.group, pending)
                elif place in undelivered:
                    hint = "" if router.running else "; its router does not run here"
                    of_entry.append(f"{router.group}: NOT SETTLED, not delivered{hint}")
                elif not dead:
                    of_entry.append(f"{router.group}: {'handled' if _has_handler(router, entry) else 'no handler'}")
        return lines

    def _needs_settled(self, what: str) -> None:
        __tracebackhide__ = True
        if not self._is_settled:
            raise AssertionError(f"{what} are known after `await t.settled()`")


def _has_handler(router: EventRouter, entry: TrackedEntry) -> bool:
    if router.stream != entry.stream:
        return False
    return entry.event is None or bool(router.rehearsal().handlers_of(entry.event.routing_key))


def _event_ids(entries: Sequence[TrackedEntry]) -> dict[tuple[str, str], str]:
    return {(one.stream, one.entry_id): one.event.id for one in entries if one.event is not None}


def _whose(entry: TrackedEntry, routers: Sequence[EventRouter]) -> str:
    """The handlers of an entry in these groups, and its event."""
    assert entry.event is not None  # noqa: S101 - only entries with an event are repeated or known
    names = [
        f"{name} ({router.group})"
        for router in routers
        if router.stream == entry.stream
        for name in router.rehearsal().handlers_of(entry.event.routing_key)
    ]
    return f"{' or '.join(names)}, on {described(entry.event)}"


def _count(entries: int) -> str:
    return "1 entry" if entries == 1 else f"{entries} entries"


def _duration(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds < 7_200 else f"{seconds / 3_600:,.1f} h"
