"""The audit log: who changed what, when and why."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from redis.asyncio import Redis, RedisCluster

from rapids._core.checks import actor_and_reason, at_least, note, stream_name, text
from rapids._core.entry_id import moment_or_last, order, parsed_id
from rapids._core.json_schema import with_json_schema
from rapids._core.paging import Listing
from rapids._storage import scripts
from rapids._storage.client.connections import SharedPool, call, checked, run
from rapids._storage.keys import audit_log
from rapids._wire.entry_format import Fields, pairs

__all__ = ["AuditEntry", "AuditFilter", "AuditLog", "AuditPage", "LoggedChange", "MergedAuditPage", "merged_page"]

LISTING = Listing("audit")

MAX_PAGE = 500
MAX_PAGES = 4
"""Pages that are read for one page of changes that match a filter."""

MAX_VALUE = 1_000
"""Characters of a detail that `AuditLog.add` takes."""

TARGETS = ("letter", "operation", "group")
"""The kinds of changes. A letter that an operation moved has no entry of its own."""


@with_json_schema
@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One change. Users typed the actor, the reason and the details: show them as text only."""

    id: str
    at: datetime
    """When, by the server's clock."""
    actor: str
    action: str
    """`letter_replayed`, `letter_discarded`, `letter_restored`, `letters_reindexed`, `group_paused`, `group_resumed`,
    `export_started`, `export_ended`, what `AuditLog.add` was given, or `operation_` followed by what was done with the
    operation or by its new state."""
    reason: str
    operation: str
    """The operation's id; empty if there is none."""
    target: str
    """The id of the letter or operation, or the group."""
    details: Mapping[str, str]
    """What else the entry says, by name: the `scope` of a replay; of an operation `kind`, `selector` (its first 1,000
    characters) and `total` at its start, then how many letters are `done`, `skipped` and `failed`."""


@dataclass(frozen=True, slots=True)
class AuditPage:
    """A page of changes, newest first."""

    items: tuple[AuditEntry, ...]
    cursor: str | None
    """Where the next page starts; None after the last one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedChange(AuditEntry):
    """One change, and the log that has it. An operation has entries, and the letters that it moved have none."""

    stream: str
    """The dead-letter stream or the event stream whose log has the entry."""


@dataclass(frozen=True, slots=True)
class MergedAuditPage:
    """A page of changes from several logs, newest first."""

    items: tuple[LoggedChange, ...]
    cursor: str | None
    """Where the next page starts; None after the last one."""


class AuditLog:
    """Who changed what, and why: letters and operations of a dead-letter stream, or groups of an event stream.

    Each entry is written in the same step as its change. About 10,000 entries are kept, until 90 days after the last.

    Raises `ValueError` or `TypeError` for an option that makes no sense.
    """

    def __init__(self, redis: Redis | RedisCluster, stream: str) -> None:
        self.stream: str = stream_name("stream", stream)
        self._commands = SharedPool(redis, self.stream)

    async def list(self, *, cursor: str | None = None, limit: int = 50) -> AuditPage:
        """A page of up to `limit` changes (1 to 500), newest first, and where the next one starts.

        Raises `ValueError` for a cursor that did not come from a page, or a `limit` out of range;
        `redis.exceptions.RedisError` if Redis does not answer.
        """
        _check_limit(limit)
        newest = "+" if cursor is None else f"({LISTING.entry_ids(cursor, 1)[0]}"
        entries = await _entries(self._commands, self.stream, newest, limit + 1)
        following = LISTING.entry_cursor(entries[limit - 1].id) if len(entries) > limit else None
        return AuditPage(tuple(entries[:limit]), following)

    async def add(
        self, action: str, *, actor: str = "", reason: str = "", details: Mapping[str, str] | None = None
    ) -> None:
        """Add what the log cannot know by itself, since it changed nothing in Redis: for example an export.

        `details` are texts of at most 1,000 characters by name; empty ones are left out.

        Raises `ValueError` or `TypeError` for anything else; `redis.exceptions.RedisError` if Redis does not answer.
        """
        text("action", action)
        actor_and_reason(actor, reason)
        entry = {"action": action, "actor": actor, "reason": reason}
        for name, value in (details or {}).items():
            if text("a name in details", name) in (*entry, *TARGETS):
                raise ValueError(f"details must not name {', '.join((*entry, *TARGETS))}, as {name!r} does")
            entry[name] = note(f"details[{name!r}]", value, MAX_VALUE)
        pairs_ = [part for pair in entry.items() for part in pair]
        checked((await run(self._commands, scripts.load("add_to_audit"), [((audit_log(self.stream),), pairs_)]))[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which changes. A field that is None does not restrict; all others must be equal, or include the time."""

    actor: str | None = None
    action: str | None = None
    target: str | None = None
    operation: str | None = None
    since: datetime | None = None
    """Then or later. Without a time zone it is taken as UTC, and so is `until`."""
    until: datetime | None = None
    """Before then."""

    def matches(self, change: AuditEntry) -> bool:
        """Whether a change matches."""
        since, until = (
            at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at for at in (self.since, self.until)
        )
        names = ("actor", "action", "target", "operation")
        return (
            all(getattr(self, name) in (None, getattr(change, name)) for name in names)
            and (since is None or since <= change.at)
            and (until is None or change.at < until)
        )


async def merged_page(
    redis: Redis | RedisCluster,
    streams: Iterable[str],
    *,
    filter: AuditFilter | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> MergedAuditPage:
    """A page of up to `limit` changes (1 to 500) from the logs of several streams, newest first.

    With a `filter`, about 2,000 changes are looked at, so a page may be short, even empty, and have a next one.

    Changes with the same id are in the order of their streams' names. Logs on one server are in the order of time. With
    the nodes of a Cluster, the order is as good as their clocks agree.

    Raises `ValueError` for a cursor that did not come from a page, or a `limit` out of range; `TypeError` for one name
    instead of several; `redis.exceptions.RedisError` if Redis does not answer.
    """
    if isinstance(streams, str):
        raise TypeError(f"streams must be several names, not {streams!r}")
    _check_limit(limit)
    if filter is not None:
        return await _matching_page(redis, tuple(streams), filter, cursor, limit)
    after_id, after_stream = ("", "") if cursor is None else _place_in(cursor)
    changes: list[LoggedChange] = []
    for stream in streams:  # one after another, so that a page takes one connection
        # An entry with the id of the last one shown comes after it, if its stream's name does.
        newest = "+" if cursor is None else after_id if stream > after_stream else f"({after_id}"
        entries = await _entries(SharedPool(redis, stream), stream, newest, limit + 1)
        changes += [LoggedChange(**asdict(entry), stream=stream) for entry in entries]
    changes.sort(key=lambda change: change.stream)
    changes.sort(key=lambda change: order(change.id), reverse=True)
    following = None
    if len(changes) > limit:
        last = changes[limit - 1]
        following = LISTING.cursor(f"{last.id} {last.stream}")
    return MergedAuditPage(tuple(changes[:limit]), following)


async def _matching_page(
    redis: Redis | RedisCluster, streams: Iterable[str], wanted: AuditFilter, cursor: str | None, limit: int
) -> MergedAuditPage:
    found = list[LoggedChange]()
    for _ in range(MAX_PAGES):
        page = await merged_page(redis, streams, cursor=cursor, limit=MAX_PAGE)
        for change in page.items:
            if wanted.matches(change):
                found.append(change)
                if len(found) == limit:
                    is_last = change is page.items[-1] and page.cursor is None
                    return MergedAuditPage(
                        tuple(found), None if is_last else LISTING.cursor(f"{change.id} {change.stream}")
                    )
        if (cursor := page.cursor) is None:
            break
    return MergedAuditPage(tuple(found), cursor)


def _place_in(cursor: str) -> tuple[str, str]:
    """The id and the stream of the last entry on the page before. Raises `ValueError`."""
    entry_id, _, stream = LISTING.text(cursor).partition(" ")
    if parsed_id(entry_id) != entry_id:
        raise LISTING.bad(cursor)
    return entry_id, stream


def _check_limit(limit: int) -> None:
    if at_least("limit", limit, 1) > MAX_PAGE:
        raise ValueError(f"limit must be a whole number from 1 to {MAX_PAGE}, not {limit!r}")


async def _entries(commands: SharedPool, stream: str, newest: str, count: int) -> list[AuditEntry]:
    """Up to `count` entries, newest first. `newest`: the highest id, as XREVRANGE takes it."""
    rows = await call(commands, "XREVRANGE", audit_log(stream), newest, "-", "COUNT", count)
    return [_entry(entry_id.decode(), fields) for entry_id, fields in rows]


def _entry(entry_id: str, fields: Fields) -> AuditEntry:
    values = {name.decode(errors="replace"): value.decode(errors="replace") for name, value in pairs(fields)}
    return AuditEntry(
        id=entry_id,
        at=moment_or_last(order(entry_id)[0]),
        actor=values.pop("actor", ""),
        action=values.pop("action", ""),
        reason=values.pop("reason", ""),
        operation=values.get("operation", ""),
        target=next((values[name] for name in TARGETS if values.get(name)), ""),
        details={name: value for name, value in values.items() if name not in TARGETS and value},
    )
