"""The diagnosis of a server and its streams: what endangers the promises, what it means, and what to do about it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, TypeAlias

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import RedisError, ResponseError

from rapids._core.checks import positive_seconds, stream_name
from rapids._core.entry_id import is_before
from rapids._core.redis_errors import reason
from rapids._core.server_warnings import MIN_VERSION, dangers
from rapids._storage import inspection_queries, server_info
from rapids._storage.client.connections import SharedPool
from rapids._storage.keys import beside, default_dlq
from rapids._storage.server_info import ServerFacts
from rapids.dead_letters.queue import DeadLetterQueue
from rapids.exceptions import GroupNotFoundError, StreamNotFoundError
from rapids.inspection.inspector import Inspector
from rapids.inspection.snapshots import FoundStreams, GroupSnapshot, StreamSnapshot

__all__ = ["CommandCounts", "Diagnosis", "Finding", "Severity", "count_commands", "diagnose"]

Severity: TypeAlias = Literal["danger", "warning"]
"""`danger`: events are lost or not handled, or will be. `warning`: it may be meant so."""

PAGE = 500
RECENT_MS = 30_000
"""A consumer that was seen since then counts as living, since those of other libraries hold no name."""

NEARLY_TRIMMED = 0.8
"""The part of a trimmed stream that a group has not read: then the next ones may be lost."""

MAX_KEYS = 10_000
MAX_NAMED = 5

OF_GROUPS = ("ledger", "due", "parked", "paused", "replay", "restoring")
"""What is kept for a group, without a TTL."""

SERIOUS = ("cluster", "version", "eviction", "memory", "persistence")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that endangers a promise. Names in texts are untrusted."""

    kind: str
    """Such as `eviction`, `acl`, `no_living_consumer`; it does not change."""
    severity: Severity
    subject: str
    """The stream, the group and its stream, or `server`."""
    message: str
    """What it is, and what it means."""
    advice: str
    """What to do; empty if the message says it."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found, the dangers first."""

    servers: tuple[str, ...]
    """Each server that has one of the streams, by its version and run id."""
    streams: tuple[str, ...]
    groups: int
    """How many groups were looked at."""
    findings: tuple[Finding, ...]
    complete: bool
    """Whether all keys of the server were looked at."""

    @property
    def is_dangerous(self) -> bool:
        """Whether one of the findings is a danger."""
        return any(finding.severity == "danger" for finding in self.findings)


async def diagnose(
    redis: Redis | RedisCluster, *, streams: Sequence[str] | None = None, seconds: float = 5.0
) -> Diagnosis:
    """Look at a server and at streams, by default at all streams of the server, and change nothing.

    The search for streams and for orphaned keys takes at most `seconds` each. The permissions are those of the user of
    this client.

    Raises `ValueError` or `TypeError` for an invalid option, `redis.exceptions.RedisError` if Redis does not answer.
    """
    limit = positive_seconds("seconds", seconds)
    inspector = Inspector(redis)
    found = FoundStreams(tuple(stream_name("streams", name) for name in streams or ()), (), True)
    if streams is None:
        found = await inspector.find_streams(seconds=limit)
    findings: list[Finding] = []
    servers: dict[str, str] = {}
    for name in found.streams or ("rapids",):  # on a Cluster, they are on several servers
        commands = SharedPool(redis, name)
        facts = await server_info.look_at_server(commands)
        if facts.run_id not in servers:
            version = "unknown version" if facts.version is None else ".".join(map(str, facts.version))
            servers[facts.run_id] = f"{version} ({facts.run_id[:8]})" if facts.run_id else version
            findings += _of_server(facts, knows_a_cluster=isinstance(redis, RedisCluster))
            if refused := ", ".join(await server_info.refusals(commands, name, default_dlq(name))):
                message = f"the user of this address may not run {refused}: a router or emitter with this user fails"
                advice = "give the user the permissions that docs/running.md lists"
                findings.append(Finding("acl", "danger", "server", message, advice))
    groups: dict[str, list[str]] = {}
    for name in found.streams:
        try:
            groups[name] = await _of_stream(inspector, name, findings)
        except ResponseError as error:  # this user may not look at all of it
            findings.append(_unreadable(name, error))
    for name in found.dlqs:
        try:
            stats = await DeadLetterQueue(redis, name).stats()
        except ResponseError as error:
            findings.append(_unreadable(name, error))
            continue
        if stats.cut:
            when = "" if stats.cut_at is None else f", last {stats.cut_at:%Y-%m-%d %H:%M} UTC"
            message = f"{stats.cut:,} dead letters were trimmed before anybody handled them{when}"
            advice = "handle letters sooner, or raise dlq_maxlen"
            findings.append(Finding("letters_trimmed", "danger", name, message, advice))
    searched = await inspection_queries.search(redis, "beside", most=MAX_KEYS, seconds=limit)
    if streams is None and found.complete:
        findings += await _orphaned(redis, searched.names, {*found.streams, *found.dlqs}, groups)
    findings.sort(key=lambda finding: finding.severity)  # "danger" is before "warning"
    return Diagnosis(
        servers=tuple(servers.values()),
        streams=(*found.streams, *found.dlqs),
        groups=sum(map(len, groups.values())),
        findings=tuple(findings),
        complete=found.complete and searched.complete,
    )


@dataclass(frozen=True, slots=True)
class CommandCounts:
    """How often a server ran each command, also for scripts. Servers do not count whose commands they are."""

    rapids: Mapping[str, int]
    """Commands of the kinds that Rapids runs; those of other programs, too."""
    others: Mapping[str, int]
    """Commands that Rapids never runs: other programs use this server."""


async def count_commands(redis: Redis | RedisCluster, *, seconds: float) -> CommandCounts:
    """Count what the server runs for so many seconds, without what counts here; on a Cluster, all masters together.

    Raises `ValueError` or `TypeError` for an invalid option, `redis.exceptions.RedisError` if Redis does not answer, or
    does not permit INFO.
    """
    limit = positive_seconds("seconds", seconds)
    before = await server_info.command_counts(redis)
    await asyncio.sleep(limit)
    after = await server_info.command_counts(redis)
    counted = sum(after, Counter[str]()) - sum(before, Counter(info=len(before)))
    ours = {name for name in counted if name.partition("|")[0] in server_info.COMMANDS}
    return CommandCounts(
        rapids={name: count for name, count in counted.most_common() if name in ours},
        others={name: count for name, count in counted.most_common() if name not in ours},
    )


def _of_server(facts: ServerFacts, *, knows_a_cluster: bool) -> Iterator[Finding]:
    seen = set[str]()
    for danger in dangers(facts, knows_a_cluster=knows_a_cluster):
        seen.add(danger.kind)
        message, _, advice = danger.message.rpartition("; ")
        yield Finding(danger.kind, "danger" if danger.kind in SERIOUS else "warning", "server", message, advice)
    if facts.version is None:
        needed = ".".join(map(str, MIN_VERSION))
        yield Finding("version", "warning", "server", "its version is not known", f"it must be {needed} or newer")
    if facts.is_append_only is False and not facts.is_embedded and "persistence" not in seen:
        message = "there is no append-only file: a crash loses what was appended since the last snapshot"
        yield Finding("persistence", "warning", "server", message, "set appendonly yes (appendfsync everysec)")
    if facts.maxmemory == 0 and not facts.is_embedded:
        message = "maxmemory is not set: a growing stream takes all memory of the machine, which then ends Redis"
        yield Finding("memory", "warning", "server", message, "set maxmemory, and maxmemory-policy noeviction")


async def _of_stream(inspector: Inspector, name: str, findings: list[Finding]) -> list[str]:
    """Add what is found. Returns the names of the groups."""
    try:
        stream = await inspector.stream(name)
    except StreamNotFoundError:
        findings.append(Finding("no_stream", "warning", name, "there is no such stream", "check its name"))
        return []
    if stream.groups == 0 and stream.length:
        message = f"{stream.length:,} entries, and no group: nobody reads this stream"
        advice = "start a router for it, or delete it; without a group, trim='acknowledged' removes nothing"
        findings.append(Finding("nobody_reads", "warning", name, message, advice))
    names: list[str] = []
    async for group in _groups(inspector, name):
        names.append(group.group)
        with suppress(ValueError):  # Rapids does not accept this name: the group is another program's
            findings += await _of_group(inspector, stream, group)
    return names


def _unreadable(name: str, error: Exception) -> Finding:
    message = f"not all of it can be looked at: {reason(error)}"
    return Finding("unreadable", "warning", name, message, "use a user with the permissions of docs/running.md")


async def _groups(inspector: Inspector, stream: str) -> AsyncIterator[GroupSnapshot]:
    cursor: str | None = None
    while True:
        page = await inspector.groups(stream, cursor=cursor, limit=PAGE)
        for group in page.items:
            yield group
        if (cursor := page.cursor) is None:
            return


async def _of_group(inspector: Inspector, stream: StreamSnapshot, group: GroupSnapshot) -> list[Finding]:
    subject = f"{group.group} of {group.stream}"
    findings: list[Finding] = []
    replays = group.replays
    if replays:
        with suppress(StreamNotFoundError, GroupNotFoundError):  # no router has looked at them yet
            replays -= (await inspector.group(group.stream, group.group, replays=True)).parked
    work = group.lag + group.held + group.waiting + replays
    if (pause := group.pause) is not None:
        message = f"paused since {pause.since:%Y-%m-%d %H:%M} UTC by {pause.actor or 'somebody'}: {pause.reason or '-'}"
        findings.append(Finding("paused", "warning", subject, message, "rapids resume, when the reason is gone"))
    if group.consumers_alive == 0 and not await _are_others_alive(inspector, group):
        if work:
            entries = f"{work:,} {'entry is' if work == 1 else 'entries are'}"
            of_replays = f" (replays: {replays:,})" if replays else ""
            message = f"{entries} to be handled{of_replays}, and no consumer of the group is alive"
            findings.append(Finding("no_living_consumer", "danger", subject, message, "start its workers"))
        else:
            message = "no consumer of the group is alive. It has nothing to do now"
            advice = "start its workers; or XGROUP DESTROY it, since it holds back trim='acknowledged'"
            findings.append(Finding("no_living_consumer", "warning", subject, message, advice))
    if group.parked:
        message = f"{group.parked:,} entries are parked: they failed for good, and the group has no dead-letter stream"
        advice = "see rapids pending --state parked; give its routers a dlq_stream"
        findings.append(Finding("parked", "warning", subject, message, advice))
    return findings + await _of_trimming(inspector, stream, group)


async def _are_others_alive(inspector: Inspector, group: GroupSnapshot) -> bool:
    """Whether a consumer of another library was seen lately."""
    try:
        page = await inspector.consumers(group.stream, group.group, limit=PAGE)
    except (GroupNotFoundError, StreamNotFoundError):
        return False
    return any(one.idle_ms < RECENT_MS for one in page.items)


async def _of_trimming(inspector: Inspector, stream: StreamSnapshot, group: GroupSnapshot) -> list[Finding]:
    subject = f"{group.group} of {group.stream}"
    trimmed = 0 if stream.entries_added is None else stream.entries_added - stream.length
    findings: list[Finding] = []
    advice = "a larger maxlen, or maxlen=None with EventRouter(trim='acknowledged'); more consumers"
    is_behind = stream.first_id is not None and is_before(group.last_delivered_id, stream.first_id)
    if trimmed > 0 and is_behind and (group.entries_read or 0) < trimmed:
        lost = trimmed - (group.entries_read or 0)
        is_known = group.entries_read is not None
        how = "were trimmed away before the group read them" if is_known else "were trimmed away, perhaps unread"
        message = f"about {lost:,} entries {how}: they are lost for it"
        findings.append(Finding("trimmed_unread", "danger" if is_known else "warning", subject, message, advice))
    elif trimmed > 0 and stream.length and group.lag >= NEARLY_TRIMMED * stream.length:
        message = f"{group.lag:,} of {stream.length:,} entries are not read, and the stream is being trimmed"
        findings.append(Finding("nearly_trimmed", "danger", subject, f"{message}: the next ones are lost", advice))
    if group.held + group.waiting and stream.first_id is not None:
        try:
            page = await inspector.pending(group.stream, group.group, limit=1)
        except (GroupNotFoundError, StreamNotFoundError):
            return findings
        if page.items and is_before(page.items[0].entry_id, stream.first_id) and page.items[0].state != "parked":
            message = "entries that it holds or that wait were trimmed away: they cannot be delivered again"
            findings.append(Finding("trimmed_pending", "danger", subject, message, advice))
    return findings


async def _orphaned(
    redis: Redis | RedisCluster, keys: Sequence[str], streams: set[str], groups: Mapping[str, Sequence[str]]
) -> list[Finding]:
    """Keys without a TTL of streams or groups that are gone."""
    candidates: list[str] = []
    for key in keys:
        stream, part = beside(key)
        owners = {stream, f"{{{stream}}}"} & streams
        kind, _, group = part.partition(":")
        if not owners or (kind in OF_GROUPS and not any(group in groups.get(owner, (group,)) for owner in owners)):
            candidates.append(key)
    try:
        orphaned = await inspection_queries.without_ttl(redis, candidates)
    except RedisError:
        return []
    if not orphaned:
        return []
    named = ", ".join(orphaned[:MAX_NAMED])
    more = f" and {len(orphaned) - MAX_NAMED:,} more" if len(orphaned) > MAX_NAMED else ""
    message = f"keys without a TTL of streams or groups that do not exist, {len(orphaned):,}: {named}{more}"
    return [Finding("orphaned_keys", "warning", "server", message, "if the streams do not come back, UNLINK them")]
