"""The commands about streams and groups: `streams`, `groups`, `pause` and `resume`."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Annotated, Any

import typer
from rich.text import Text

from rapids.cli.consent import DryRun, Reason, Yes, actor, agree
from rapids.cli.display import (
    Column,
    Json,
    ago,
    lasted,
    note,
    print_json,
    print_pairs,
    print_table,
    printed,
    safe,
    terminal,
)
from rapids.cli.root import Url, app, execute
from rapids.cli.stream_choice import GroupName, StreamName, chosen_stream, stream_of_group
from rapids.clients import RedisClient
from rapids.control import GroupControl
from rapids.exceptions import GroupNotFoundError, StreamNotFoundError
from rapids.inspection import ConsumerSnapshot, FoundStreams, GroupSnapshot, Inspector, StreamSnapshot

PAGE = 500


@dataclass(frozen=True, slots=True)
class GroupState(GroupSnapshot):
    """A group and its parked replays."""

    replays_parked: int = 0
    """How many of the replays failed for good, since there is no dead-letter stream."""


@dataclass(frozen=True, slots=True)
class GroupDetail(GroupState):
    """A group and its consumers."""

    consumer_list: tuple[ConsumerSnapshot, ...] = ()


@app.command()
def streams(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="STREAM", help="Which streams; by default all of the server.")
    ] = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Show streams, their age and size.

    Without a name, all streams of the server are searched (SCAN), for at most 5 seconds.
    """

    async def look(redis: RedisClient) -> tuple[list[StreamSnapshot], FoundStreams]:
        inspector = Inspector(redis)
        found = FoundStreams(tuple(names), (), True) if names else await inspector.find_streams()
        return await snapshots_of(inspector, (*found.streams, *found.dlqs), must_exist=bool(names)), found

    shown, found = execute(url, look)
    if as_json:
        for one in shown:
            print_json(one)
    elif shown:
        columns = [
            Column("STREAM"),
            Column("LENGTH", is_number=True, is_below=True),
            Column("GROUPS", is_number=True, is_below=True),
            Column("OLDEST", is_number=True, is_below=True),
            Column("NEWEST", is_number=True, is_below=True),
            Column("MEMORY", is_number=True, is_below=True),
        ]
        print_table(
            columns,
            [
                (
                    one.stream,
                    one.length,
                    one.groups,
                    ago(one.first_at, one.at),
                    ago(one.last_at, one.at),
                    _bytes(one.memory),
                )
                for one in shown
            ],
        )
    else:
        note("no streams")
    if not found.complete:
        note("the search ended before all keys were looked at: there may be more streams; name them")


async def snapshots_of(inspector: Inspector, names: Sequence[str], *, must_exist: bool = False) -> list[StreamSnapshot]:
    """The streams that exist. Raises `StreamNotFoundError` for another if all of them must exist."""
    shown: list[StreamSnapshot] = []
    for name in names:
        try:
            shown.append(await inspector.stream(name))
        except StreamNotFoundError:
            if must_exist:
                raise
    return shown


@app.command()
def groups(
    group: Annotated[str | None, typer.Argument(metavar="GROUP", help="One group, with its consumers.")] = None,
    stream: Annotated[
        str | None, typer.Option("--stream", "-s", help="The event stream; by default all of the server.")
    ] = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Show how far behind consumer groups are, and whether anybody works.

    With a group, show it and its consumers; without --stream, the stream of the server that has this group.
    """
    if group is not None:
        _show_group(stream, group, url, as_json=as_json)
        return

    async def look(redis: RedisClient) -> list[GroupState]:
        inspector = Inspector(redis)
        names = (stream,) if stream else (await inspector.find_streams()).streams
        return [one for name in names for one in await _groups_of(inspector, name)]

    shown = execute(url, look)
    if as_json:
        for one in shown:
            print_json(one)
    elif shown:
        columns = [
            Column("STREAM"),
            Column("GROUP"),
            Column("LAG", is_number=True, is_below=True),
            Column("HELD", is_number=True, is_below=True),
            Column("WAITING", is_number=True, is_below=True),
            Column("PARKED", is_number=True, is_below=True),
            Column("REPLAYS", is_number=True, is_below=True),
            Column("OLDEST", is_number=True, is_below=True),
            Column("ALIVE", is_number=True, is_below=True),
            Column("STATE"),
        ]
        print_table(
            columns,
            [
                (
                    one.stream,
                    one.group,
                    _lag(one),
                    one.held,
                    one.waiting,
                    Text(f"{one.parked:,}", "red" if one.parked else ""),
                    one.replays,
                    lasted(one.oldest_unsettled_ms),
                    f"{one.consumers_alive}/{one.consumers}",
                    _state(one),
                )
                for one in shown
            ],
        )
    else:
        note("no groups")


async def _groups_of(inspector: Inspector, stream: str) -> list[GroupState]:
    """All groups of a stream."""
    found: list[GroupState] = []
    cursor: str | None = None
    while True:
        page = await inspector.groups(stream, cursor=cursor, limit=PAGE)
        found += [await _state_of(inspector, one) for one in page.items]
        if (cursor := page.cursor) is None:
            return found


async def _state_of(inspector: Inspector, snapshot: GroupSnapshot) -> GroupState:
    parked = 0
    if snapshot.replays:
        # No router has looked at them yet, or Rapids does not accept the name.
        with suppress(StreamNotFoundError, GroupNotFoundError, ValueError):
            parked = (await inspector.group(snapshot.stream, snapshot.group, replays=True)).parked
    return GroupState(**_values(snapshot), replays_parked=parked)


def _values(group: GroupSnapshot) -> dict[str, Any]:
    return {field.name: getattr(group, field.name) for field in fields(group)}


def _show_group(named: str | None, group: str, url: str | None, *, as_json: bool) -> None:
    async def look(redis: RedisClient) -> GroupDetail:
        inspector = Inspector(redis)
        stream = named or await stream_of_group(inspector, group)
        state = await _state_of(inspector, await inspector.group(stream, group))
        consumers: list[ConsumerSnapshot] = []
        cursor: str | None = None
        while True:
            page = await inspector.consumers(stream, group, cursor=cursor, limit=PAGE)
            consumers += page.items
            if (cursor := page.cursor) is None:
                break
        return GroupDetail(**_values(state), consumer_list=tuple(consumers))

    one = execute(url, look)
    if as_json:
        print_json(one)
        return
    oldest = one.oldest_unsettled_id and f"{one.oldest_unsettled_id} ({lasted(one.oldest_unsettled_ms)})"
    print_pairs(
        [
            ("stream", one.stream),
            ("group", one.group),
            ("state", _state(one)),
            ("last delivered", f"{one.last_delivered_id} ({ago(one.last_delivered_at, one.at)})"),
            ("lag", _lag(one)),
            ("pending", f"{one.pending:,}: {one.held:,} held, {one.waiting:,} waiting, {one.parked:,} parked"),
            ("oldest unsettled", oldest),
            ("replays", f"{one.replays:,}{f', {one.replays_parked:,} of them parked' if one.replays_parked else ''}"),
        ]
    )
    if one.consumer_list:
        terminal().print()
        print_table(
            [
                Column("CONSUMER"),
                Column("ALIVE"),
                Column("SINCE"),
                Column("SEEN", is_number=True),
                Column("HOLDS", is_number=True),
            ],
            [
                (
                    consumer.consumer,
                    Text("alive", "green") if consumer.alive else Text("gone", "dim"),
                    consumer.alive_since,
                    f"{lasted(consumer.idle_ms)} ago",
                    consumer.pending,
                )
                for consumer in one.consumer_list
            ],
        )


@app.command()
def pause(
    group: GroupName,
    named: StreamName = None,
    reason: Reason = "",
    yes: Yes = False,
    dry_run: DryRun = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Pause a group in all its processes.

    Running handlers finish. What was not begun is released.
    """
    _change(named, group, "pause", reason, yes=yes, dry_run=dry_run, url=url, as_json=as_json)


@app.command()
def resume(
    group: GroupName,
    named: StreamName = None,
    reason: Reason = "",
    yes: Yes = False,
    dry_run: DryRun = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """End the pause of a group."""
    _change(named, group, "resume", reason, yes=yes, dry_run=dry_run, url=url, as_json=as_json)


def _change(
    named: str | None, group: str, what: str, reason: str, *, yes: bool, dry_run: bool, url: str | None, as_json: bool
) -> None:
    stream = chosen_stream(url, named, group=group)

    async def look(redis: RedisClient) -> GroupState:
        inspector = Inspector(redis)
        return await _state_of(inspector, await inspector.group(stream, group))

    async def change(redis: RedisClient) -> GroupState:
        control = GroupControl(redis, stream, group)
        await (control.pause if what == "pause" else control.resume)(actor=actor(), reason=reason)
        return await look(redis)

    before = execute(url, look)
    note(
        f"group {group} of {stream}: {_state(before)}; {before.consumers_alive} consumers alive, "
        f"{before.lag:,} entries to come, {before.held:,} held, {before.waiting:,} waiting"
    )
    if (before.pause is not None) == (what == "pause"):
        note("nothing to change")
        after = before
    elif dry_run:
        after = before
    else:
        agree(f"{what} this group?", yes=yes)
        after = execute(url, change)
        note(f"the group is {'paused' if what == 'pause' else 'resumed'}, in all its processes within about a second")
    if as_json:
        print_json(after)


def _state(group: GroupState) -> Text:
    if group.pause is not None:
        why = f": {group.pause.reason}" if group.pause.reason else ""
        return printed(f"paused by {group.pause.actor or 'somebody'}{why}", "yellow")
    replays = group.replays - group.replays_parked
    if group.consumers_alive == 0:
        has_work = group.lag or group.pending > group.parked or replays
        return Text("nobody works", "red") if has_work else Text("nobody is alive", "yellow")
    if group.lag or group.held or replays:
        return Text("working", "green")
    return Text("waiting" if group.waiting else "caught up", "green")


def _lag(group: GroupSnapshot) -> str:
    return f"{'' if group.lag_exact else '~'}{group.lag:,}"


def _bytes(size: int | None) -> str:
    if size is None:
        return "-"
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{safe(size)} B"
