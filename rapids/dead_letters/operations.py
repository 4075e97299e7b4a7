"""`Operations`: bulk replay, discard and restore of a dead-letter queue's letters."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import get_args
from uuid import uuid4

from rapids._core.checks import actor_and_reason, at_least, flag, instance, one_of, positive_seconds
from rapids._core.outages import Outages, Retries
from rapids._core.paging import Listing
from rapids._core.threads import in_own_thread
from rapids._storage import operation_records as stored
from rapids._storage.client.connections import Commands
from rapids.dead_letters.canary import Canary, first_sizes, write_canary
from rapids.dead_letters.letter import DeadLetter, Scope
from rapids.dead_letters.moves import QueueMoves
from rapids.dead_letters.operation import (
    Operation,
    OperationKind,
    OperationPage,
    OperationState,
    Preview,
    Selector,
    read_operation,
    search_for,
    write_selector,
)
from rapids.dead_letters.runner import POLL_PAUSE, OperationRun, Runner, new_token
from rapids.dead_letters.selection import Count, Span
from rapids.exceptions import OperationNotFoundError, OperationRunningError, OperationStateError

__all__ = ["Operations"]

SAMPLE = 20
MAX_CHECKED = 200
logger: logging.Logger = logging.getLogger("rapids.operations")

LISTING = Listing("operations")

MAX_CHECKED_BYTES = 1024 * 1024
"""Bytes of a letter's data and metadata; parsing more by its class can block the process."""
PREVIEW_READ, PREVIEW_STEPS = 20, 20
MAX_PREVIEW_BYTES = 4_000_000
"""Bytes of letters after which no more are read for a preview."""


class Operations:
    """The operations of one dead-letter stream: `queue.operations`.

    Any process that calls `run` (the FastAPI plug-in does) or `run_until_ended` runs operations. If that process dies,
    another one continues within about ten seconds, and no letter is moved twice.

    Every method but the last two raises `redis.exceptions.RedisError` if Redis is unavailable.
    """

    def __init__(self, commands: Commands, dlq: str, moves: QueueMoves) -> None:
        self._commands = commands
        self._dlq = dlq
        self._moves = moves
        self._runners: set[Runner] = set()

    async def start(
        self,
        kind: OperationKind,
        selector: Selector,
        *,
        scope: Scope = "handler",
        rate: float | None = None,
        max_items: int | None = None,
        canary: Canary | None = None,
        actor: str = "",
        reason: str = "",
    ) -> Operation:
        """Start an operation on the letters that match now. It is `running`, and waits for a process that runs it.

        `rate` is the maximum number of letters a second, `max_items` that of letters in all. With a `canary`, a replay
        is done in steps of 1, 5, 25, ... letters, and pauses by itself if more than a share of a step fails again; it
        needs the scope `handler` or `group`. `actor` (200 characters) and `reason` (1,000) are recorded with the
        operation and with each letter that it moves.

        Raises `OperationRunningError` while another operation of this kind has not ended, even if it is paused;
        `ValueError` or `TypeError` for an invalid option.
        """
        _check(kind, selector, scope, max_items, canary)
        if rate is not None:
            _check_rate(rate)
        actor_and_reason(actor, reason)
        until, count = await self._selected(kind, selector, max_items)
        operation_id = uuid4().hex
        fields = {
            "kind": kind,
            "selector": write_selector(selector),
            "scope": scope,
            "rate": "" if rate is None else repr(float(rate)),
            "max_items": "" if max_items is None else str(max_items),
            # A process of 0.2, which does not know canaries, finds nothing to replay.
            "upto": "0-0" if canary else until,
            "canary_upto": until if canary else "",
            "canary": write_canary(canary) if canary else "",
            "total": str(count.total),
            "total_exact": str(int(count.exact)),
        }
        other = await stored.start(self._commands, self._dlq, operation_id, fields, actor=actor, reason=reason)
        if other is not None:
            raise OperationRunningError(kind, other)
        self._wake()
        return await self.get(operation_id)

    async def preview(
        self,
        kind: OperationKind,
        selector: Selector,
        *,
        scope: Scope = "handler",
        max_items: int | None = None,
        canary: Canary | None = None,
    ) -> Preview:
        """The dry run: how many letters an operation would process, the first of them, and how many do not parse.

        Raises `ValueError` or `TypeError` for an invalid option.
        """
        _check(kind, selector, scope, max_items, canary)
        until, count = await self._selected(kind, selector, max_items)
        limit = min(MAX_CHECKED, max_items or MAX_CHECKED)
        search = search_for(self._commands, self._dlq, kind, selector)
        letters, size, rest = list[DeadLetter](), 0, Span(until=until)
        for _ in range(PREVIEW_STEPS):
            batch = await search.step(rest, limit - len(letters))
            for at in range(0, len(batch.places), PREVIEW_READ):
                read = await search.read(batch.places[at : at + PREVIEW_READ])
                letters += read
                size += sum(len(part) for letter in read for part in letter.stored)
                if size >= MAX_PREVIEW_BYTES:
                    break
            if batch.rest is None or len(letters) >= limit or size >= MAX_PREVIEW_BYTES:
                break
            rest = batch.rest
        small = [one for one in letters if len(one.data) + len(one.metadata) <= MAX_CHECKED_BYTES]
        unparseable = await asyncio.wrap_future(
            in_own_thread(lambda: sum(one.check_parsing().outcome != "parses" for one in small))
        )
        steps = first_sizes(count.total) if canary else ()
        return Preview(count.total, count.exact, tuple(letters[:SAMPLE]), len(small), unparseable, steps)

    async def get(self, operation_id: str) -> Operation:
        """One operation. Raises `OperationNotFoundError`."""
        if (found := await stored.read(self._commands, self._dlq, operation_id)) is None:
            raise OperationNotFoundError(operation_id)
        return read_operation(operation_id, *found)

    async def list(self, *, limit: int = 50, cursor: str | None = None) -> OperationPage:
        """Operations, newest first, without their `errors`; the last 100 are kept.

        Raises `ValueError` for a `limit` not from 1 to 100, or a cursor that did not come from a page.
        """
        if at_least("limit", limit, 1) > stored.MAX_KEPT:
            raise ValueError(f"limit must be a whole number from 1 to {stored.MAX_KEPT}, not {limit!r}")
        after = "" if cursor is None else LISTING.text(cursor)
        rows, last = await stored.page(self._commands, self._dlq, after=after, count=limit)
        items = tuple(read_operation(operation_id, fields) for operation_id, fields in rows)
        return OperationPage(items, None if last is None else LISTING.cursor(last))

    async def pause(self, operation_id: str, *, actor: str = "", reason: str = "") -> Operation:
        """Pause it until `resume`. The step in progress, which moves a few hundred letters at most, is finished.

        An operation that is already paused does not change.

        Raises `OperationNotFoundError`, `OperationStateError` if it has ended.
        """
        return await self._change(operation_id, "paused", "operation_paused", actor, reason)

    async def resume(self, operation_id: str, *, canary: bool = True, actor: str = "", reason: str = "") -> Operation:
        """Continue it. `canary=False` ends its canary: what is left is replayed without waiting for outcomes.

        After its canary has stopped it, the next step has as many letters as the one that failed; if outcomes did not
        come in time, it waits for them again.

        Raises `OperationNotFoundError`, `OperationStateError` if it ended.
        """
        ends_canary = not flag("canary", canary)
        return await self._change(operation_id, "running", "operation_resumed", actor, reason, ends_canary=ends_canary)

    async def cancel(self, operation_id: str, *, actor: str = "", reason: str = "") -> Operation:
        """End it now; letters that it has moved are not moved back. An operation that is already cancelled does not
        change.

        Raises `OperationNotFoundError`, `OperationStateError` if it ended otherwise.
        """
        return await self._change(operation_id, "cancelled", "operation_cancelled", actor, reason)

    async def watch(self, operation_id: str, *, interval: float = 0.5) -> AsyncGenerator[Operation]:
        """The operation as it is now, then each time that it has changed, until it has ended.

        Redis is queried every `interval` seconds. Raises `OperationNotFoundError`; `ValueError` if `interval` is not
        positive.
        """
        positive_seconds("interval", interval)
        last: Operation | None = None
        while last is None or not last.is_ended:
            if last is not None:
                await asyncio.sleep(interval)
            if (now := await self.get(operation_id)) != last:
                yield now
            last = now

    async def run(self, stop: asyncio.Event) -> None:
        """Run operations that no other process has, one of each kind at a time, until `stop` is set.

        It looks for them every two seconds, and at once if one is started or resumed in this process. When `stop` is
        set, the steps in progress are finished, and another process may continue at once. It waits while Redis is
        unavailable.

        Raises `redis.exceptions.RedisError` for an error that is no outage, for example a missing permission.
        """
        runner = Runner(self._commands, self._dlq, self._moves, stop)
        self._runners.add(runner)
        try:
            await runner.run()
        finally:
            self._runners.discard(runner)

    async def run_until_ended(self, operation_id: str) -> Operation:
        """Run one operation, or wait while another process runs it or somebody has paused it.

        Returns the operation when it has ended, or when its canary has paused it. It waits while Redis is unavailable.
        Raises `OperationNotFoundError`.
        """
        outages = Outages(logger, {"dlq": self._dlq, "operation": operation_id})
        retries = Retries(outages, "waiting for the operation", asyncio.Event())
        while True:
            operation = await retries.run(lambda: self.get(operation_id))
            if operation.is_ended or operation.is_stopped:
                return operation
            kinds, token = [operation.kind], new_token()
            take = stored.claim
            claim = await retries.run(lambda: take(self._commands, self._dlq, kinds, token, only=operation_id))  # noqa: B023 - awaited here
            if claim is None or not await OperationRun(self._commands, self._moves, claim, outages).run():
                await asyncio.sleep(POLL_PAUSE / 4)

    async def _change(
        self,
        operation_id: str,
        state: OperationState,
        action: str,
        actor: str,
        reason: str,
        *,
        ends_canary: bool = False,
    ) -> Operation:
        actor_and_reason(actor, reason)
        operation = await self.get(operation_id)
        before = await stored.change(
            self._commands,
            self._dlq,
            operation_id,
            kind=operation.kind,
            state=state,
            action=action,
            actor=actor,
            reason=reason,
            ends_canary=ends_canary,
        )
        if before is None:
            raise OperationNotFoundError(operation_id)
        if before not in ("running", "paused", state):
            raise OperationStateError(operation_id, before)
        self._wake()
        return await self.get(operation_id)

    async def _selected(self, kind: OperationKind, selector: Selector, limit: int | None) -> tuple[str, Count]:
        """The last place of the selection, and how many letters it has, at most `limit`."""
        search = search_for(self._commands, self._dlq, kind, selector)
        until = await search.newest()
        count = await search.count(until)
        return until, count if limit is None or count.total < limit else Count(limit, True)

    def _wake(self) -> None:
        for runner in self._runners:
            runner.wake()


def _check(kind: OperationKind, selector: Selector, scope: Scope, max_items: int | None, canary: Canary | None) -> None:
    one_of("kind", kind, get_args(OperationKind))
    one_of("scope", scope, get_args(Scope))
    if not isinstance(selector, Selector):  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
        raise TypeError(f"selector must be a Selector, not {selector!r}")
    if max_items is not None:
        at_least("max_items", max_items, 1, or_none=True)
    instance("canary", canary, Canary, "a Canary or None")
    if canary is not None and (kind != "replay" or scope == "everyone"):
        what = f"kind={kind!r}" if kind != "replay" else f"scope={scope!r}, whose outcomes are not known"
        raise ValueError(f"canary must be None, or kind 'replay' and scope 'handler' or 'group', not {what}")


def _check_rate(rate: float) -> None:
    allowed = "a finite number of letters a second above 0, or None"
    if isinstance(rate, bool) or not isinstance(rate, int | float):  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
        raise TypeError(f"rate must be {allowed}, not {rate!r}")
    if not 0 < rate < float("inf"):
        raise ValueError(f"rate must be {allowed}, not {rate!r}")
