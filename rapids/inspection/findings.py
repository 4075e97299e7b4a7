"""The findings of the overview: what is wrong now, in words, with the next step. Rules without I/O."""

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeAlias, get_args

from rapids._core.json_schema import with_json_schema
from rapids.dead_letters.causes import Cause, QueueStats
from rapids.exceptions import RetryAfter
from rapids.inspection.diagnosis import Severity
from rapids.inspection.snapshots import GroupSnapshot, StreamSnapshot

__all__ = ["Failing", "GroupFacts", "OverviewFinding", "OverviewKind", "QueueFacts", "Retrying", "findings_of"]

OverviewKind: TypeAlias = Literal[
    "failing",
    "no_living_consumer",
    "stuck",
    "letters_trimmed",
    "retrying",
    "falling_behind",
    "parked",
    "paused",
    "nobody_reads",
    "letters",
]
"""`failing`: handlers write dead letters. `no_living_consumer`: there is work, and nobody does it. `stuck`: the same,
although consumers are alive. `letters_trimmed`: dead letters were lost. `retrying`: entries wait for another delivery
after a failure. `falling_behind`: the oldest entry is old. `parked`: entries failed for good, without a dead-letter
stream. `paused`: somebody paused the group. `nobody_reads`: the stream has no group. `letters`: older dead letters."""

ORDER: tuple[OverviewKind, ...] = get_args(OverviewKind)
"""The most urgent kind first."""

MAX_FINDINGS = 50

ACTIVE = timedelta(hours=1)
"""A cause whose newest letter is older does not fail now. A loss of letters counts as new for a day."""

STUCK_MS = 60_000
"""Milliseconds for which the oldest entry is unsettled, and nothing is handled, until a group counts as stuck."""

BEHIND_MS = 600_000
"""Milliseconds for which the oldest entry is unsettled until a group counts as behind."""


@with_json_schema
@dataclass(frozen=True, slots=True, kw_only=True)
class OverviewFinding:
    """Something that is wrong now, and what to do next. Names in texts are untrusted: show them as text only."""

    kind: OverviewKind
    severity: Severity
    """`danger`: events fail or are not handled. `warning`: it may be meant so."""
    message: str
    """What it is, since when, and whom it hurts."""
    advice: str
    """What to do next."""
    stream: str | None = None
    group: str | None = None
    handler: str | None = None
    dlq: str | None = None
    """The dead-letter stream that has its letters."""
    fingerprint: str | None = None
    """The cause in that stream, if it has only one."""
    count: int = 0
    """How many letters or entries it is about."""
    since: datetime | None = None
    last_at: datetime | None = None
    """When it last happened, of dead letters."""


@dataclass(frozen=True, slots=True)
class Failing:
    """A cause of dead letters."""

    cause: Cause
    dlq: str
    stream: str | None
    """None if it is not known."""

    def is_active(self, now: datetime) -> bool:
        """Whether it fails now."""
        return now - self.cause.last_at <= ACTIVE

    def finding(self, now: datetime, affected: Set[tuple[str, str]]) -> OverviewFinding:
        """What it means. `affected`: the groups and handlers that fail now."""
        cause, is_active = self.cause, self.is_active(now)
        who = f"`{cause.handler}`" if cause.handler else f"group `{cause.group}`" if cause.group else "a handler"
        since, error = _clock(cause.first_at, now), _class(cause.error_type) or cause.reason or "of several causes"
        if is_active:
            often = {1: "once", 2: "twice"}.get(cause.count, f"{cause.count:,} times")
            failed = (
                f"has failed {often}" if cause.handler else f"could not read {_count(cause.count, 'entry', 'entries')}"
            )
            match sorted(handler for _, handler in affected - {(cause.group, cause.handler)}):
                case []:
                    others = "nothing else is affected"
                case [one]:
                    others = f"`{one}` fails, too" if one else "another group fails, too"
                case several:
                    others = f"{len(several)} other handlers fail, too"
            message = f"{who} {failed} since {since}, {error}; {others}"
            letters = "the letter" if cause.count == 1 else f"all {cause.count:,} letters"
            advice = f"read the newest dead letter, correct the cause, then replay {letters}"
        else:
            message = f"{_count(cause.count, 'dead letter')} of {who} since {since}, {error}; none in the last hour"
            advice = "replay them if the cause is corrected, or discard them"
        return OverviewFinding(
            kind="failing" if is_active else "letters",
            severity="danger" if is_active else "warning",
            message=message,
            advice=advice,
            stream=self.stream,
            group=cause.group or None,
            handler=cause.handler or None,
            dlq=self.dlq,
            fingerprint=cause.fingerprint or None,
            count=cause.count,
            since=cause.first_at,
            last_at=cause.last_at,
        )


@dataclass(frozen=True, slots=True)
class Retrying:
    """A handler that waiting entries of a group wait for."""

    handler: str
    error_type: str
    next_at: datetime | None


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """What is known of a group."""

    snapshot: GroupSnapshot
    handled_per_second: float | None
    others_alive: bool
    """Whether a consumer that holds no name, of another library, was seen lately."""
    retrying: Sequence[Retrying] = ()

    def findings(self, now: datetime) -> Iterator[OverviewFinding]:
        """What is wrong with it."""
        group = self.snapshot
        work = group.lag + group.held + group.waiting + group.replays
        age = group.oldest_unsettled_ms or 0
        oldest = None if group.oldest_unsettled_ms is None else now - timedelta(milliseconds=age)
        left = f"{_count(work, 'entry', 'entries')} of group `{group.group}`"

        def finding(
            kind: OverviewKind, severity: Severity, message: str, advice: str, count: int, since: datetime | None = None
        ) -> OverviewFinding:
            return OverviewFinding(
                kind=kind,
                severity=severity,
                message=message,
                advice=advice,
                stream=group.stream,
                group=group.group,
                count=count,
                since=since,
            )

        if (pause := group.pause) is not None:
            by, why = pause.actor or "somebody", f": {pause.reason}" if pause.reason else ""
            message = f"group `{group.group}` was paused by {by} at {_clock(pause.since, now)}{why}; "
            message += f"{_count(work, 'entry waits', 'entries wait')}"
            yield finding("paused", "warning", message, "resume it when the reason is gone", work, pause.since)
        elif work and not (group.consumers_alive or self.others_alive):
            message = (
                f"no consumer of group `{group.group}` is alive, and {_count(work, 'entry waits', 'entries wait')}"
            )
            yield finding("no_living_consumer", "danger", message, "start its workers", work, oldest)
        elif group.lag and age >= STUCK_MS and self.handled_per_second == 0:
            message = f"nothing was handled for a minute, although {left} {'wait' if work > 1 else 'waits'}"
            message += f", the oldest for {_length(age)}"
            advice = "look at what its consumers hold, and at the health of its routers"
            yield finding("stuck", "danger", message, advice, work, oldest)
        elif group.lag and age >= BEHIND_MS:
            message = f"{left} {'are' if work > 1 else 'is'} not handled yet, the oldest for {_length(age)}"
            yield finding(
                "falling_behind", "warning", message, "add consumers, or raise their concurrency", work, oldest
            )
        if self.retrying:
            kinds = dict.fromkeys(f"`{one.handler}` ({_class(one.error_type)})" for one in self.retrying)
            due = [one.next_at for one in self.retrying if one.next_at is not None]
            message = f"{_count(group.waiting, 'entry waits', 'entries wait')} for another try of {', '.join(kinds)}"
            message += f", the next at {_clock(min(due), now)}" if due else ""
            yield OverviewFinding(
                kind="retrying",
                severity="warning",
                message=message,
                advice="see what they wait for: their handlers asked for it (RetryAfter), and no delivery is spent"
                if all(_class(one.error_type) == RetryAfter.__name__ for one in self.retrying)
                else "look at their attempts; after their last delivery, they have failed for good",
                stream=group.stream,
                group=group.group,
                handler=self.retrying[0].handler if len({one.handler for one in self.retrying}) == 1 else None,
                count=group.waiting,
            )
        if group.parked:
            message = f"{_count(group.parked, 'entry is', 'entries are')} parked in group `{group.group}`: "
            message += "they failed for good, and it has no dead-letter stream"
            advice = "see why they are parked; give its routers a dlq_stream"
            yield finding("parked", "warning", message, advice, group.parked)


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """What is known of a dead-letter stream."""

    dlq: str
    stats: QueueStats

    def findings(self, now: datetime) -> Iterator[OverviewFinding]:
        """What is wrong with it."""
        stats = self.stats
        if stats.cut:
            is_new = stats.cut_at is not None and now - stats.cut_at <= timedelta(days=1)
            letters = _count(stats.cut, "dead letter was", "dead letters were")
            when = "" if stats.cut_at is None else f", last at {_clock(stats.cut_at, now)}"
            yield OverviewFinding(
                kind="letters_trimmed",
                severity="danger" if is_new else "warning",
                message=f"{letters} trimmed before anybody handled them{when}",
                advice="handle letters sooner, or raise dlq_maxlen",
                dlq=self.dlq,
                count=stats.cut,
                last_at=stats.cut_at,
            )


def findings_of(
    now: datetime,
    streams: Iterable[StreamSnapshot],
    groups: Sequence[GroupFacts],
    causes: Sequence[Failing],
    queues: Iterable[QueueFacts],
) -> tuple[OverviewFinding, ...]:
    """What is wrong, the worst first, at most 50 findings."""
    affected = {(one.cause.group, one.cause.handler) for one in causes if one.is_active(now)}
    affected |= {(group.snapshot.group, retry.handler) for group in groups for retry in group.retrying}
    found = [cause.finding(now, affected) for cause in causes]
    found += [finding for facts in (*groups, *queues) for finding in facts.findings(now)]
    for stream in streams:
        if stream.length and not stream.groups:
            entries = _count(stream.length, "entry", "entries")
            found.append(
                OverviewFinding(
                    kind="nobody_reads",
                    severity="warning",
                    message=f"stream `{stream.stream}` has {entries}, and no group reads it",
                    advice="start a router for it, or delete it",
                    stream=stream.stream,
                    count=stream.length,
                    since=stream.first_at,
                )
            )
    found.sort(key=lambda one: (one.severity, ORDER.index(one.kind), -one.count))  # "danger" is before "warning"
    return tuple(found[:MAX_FINDINGS])


def _class(error_type: str) -> str:
    """The name of an error's class without its module."""
    return error_type.rpartition(".")[2]


def _clock(moment: datetime, now: datetime) -> str:
    return f"{moment:%H:%M} UTC" if moment.date() == now.date() else f"{moment:%Y-%m-%d %H:%M} UTC"


def _length(milliseconds: int) -> str:
    seconds = milliseconds // 1000
    for unit, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds // unit} {name}"
    return f"{seconds} seconds"


def _count(count: int, one: str, many: str = "") -> str:
    return f"1 {one}" if count == 1 else f"{count:,} {many or one + 's'}"
