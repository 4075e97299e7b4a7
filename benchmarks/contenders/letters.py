"""What looking through dead letters costs, and moving many of them: by the public API, `DeadLetterQueue`."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from redis.asyncio import Redis

from benchmarks.jobs import DLQ, RARE_ERROR, RARE_LETTERS, Job, Outcome
from benchmarks.memory import most_mib
from rapids import DeadLetterQueue, LetterFilter
from rapids.dead_letters import LetterPage, OperationKind, Selector

REPEATS = 5
"""How often a page is asked for: the median is what it takes."""
LARGEST_PAGE = 500
WARM_PAGES = 20
"""Pages after which the memory in use is noted first."""


async def carry_out(job: Job) -> Outcome:
    tasks = {"letters-pages": _pages, "letters-filters": _filters, "letters-index": _index, "letters-move": _move}
    async with Redis.from_url(job.url) as redis:
        queue = DeadLetterQueue(redis, DLQ, dlq_maxlen=None)
        return Outcome(await tasks[job.task](queue, job.count))


# --- pages ----------------------------------------------------------------------------------------------------------


async def _pages(queue: DeadLetterQueue, count: int) -> Mapping[str, float]:
    """Every page there is, the largest ones, from the newest letter to the oldest; and some of the usual size."""
    walk = await _walk(queue, count)
    return {
        "first": await _median(lambda: queue.list()),
        "deep": await _median(lambda: queue.list(cursor=walk.middle)),
        "last": await _median(lambda: queue.list(cursor=walk.last)),
        "largest": statistics.median(walk.milliseconds),
        "slowest": max(walk.milliseconds),
        "growth": walk.growth,
    }


@dataclass(frozen=True, slots=True)
class _Walk:
    milliseconds: list[float]
    """What each page took."""
    middle: str
    last: str
    """Cursors of a page in the middle, and of the last one."""
    growth: float
    """The most memory the process ever had, by what it had had after the first pages."""


async def _walk(queue: DeadLetterQueue, count: int) -> _Walk:
    took: list[float] = []
    cursors: list[str] = []
    seen = 0
    first = 0.0
    async for page, milliseconds in _every_page(queue):
        took.append(milliseconds)
        seen += len(page.items)
        if page.cursor is not None:
            cursors.append(page.cursor)
        if len(took) == WARM_PAGES:
            first = most_mib()
    _expect(seen, count, "letters on all pages")
    return _Walk(took, cursors[len(cursors) // 2], cursors[-1], most_mib() / (first or most_mib()))


async def _every_page(queue: DeadLetterQueue) -> AsyncIterator[tuple[LetterPage, float]]:
    cursor: str | None = None
    while True:
        began = time.perf_counter()
        page = await queue.list(cursor=cursor, limit=LARGEST_PAGE)
        yield page, (time.perf_counter() - began) * 1_000
        if (cursor := page.cursor) is None:
            return


# --- filters --------------------------------------------------------------------------------------------------------


async def _filters(queue: DeadLetterQueue, count: int) -> Mapping[str, float]:
    """A page of the usual size by each filter, the groups, and what is asked most rarely."""
    found: dict[str, float] = {}
    for name, wanted in (await _filters_of(queue)).items():
        found[name] = await _median(lambda: queue.list(wanted))  # noqa: B023 - awaited here
    rare = await queue.list(LetterFilter(error_type=RARE_ERROR))
    _expect(len(rare.items), RARE_LETTERS, "rare letters")
    causes = _causes_of(queue)
    found["groups"] = await _median(lambda: causes())
    found["all_groups"] = await _median(lambda: causes(limit=LARGEST_PAGE))
    found["groups_of_handler"] = await _median(lambda: causes(LetterFilter(handler="search.handle_02")))
    groups = await causes(limit=LARGEST_PAGE)
    _expect(groups.letters, count, "letters in all groups")
    return found


def _causes_of(queue: Any) -> Any:
    """The method that counts letters by cause. Commits before 0.2.0 call it `groups`."""
    return getattr(queue, "causes", None) or queue.groups


def _stats_of(queue: Any) -> Any:
    """The method that gives the figures of a queue. Commits before 0.2.0 call it `standing`."""
    return getattr(queue, "stats", None) or queue.standing


async def _filters_of(queue: DeadLetterQueue) -> Mapping[str, LetterFilter]:
    """One of each kind, and some together."""
    newest = (await queue.list(limit=1)).items[0]
    groups = (await _causes_of(queue)(limit=LARGEST_PAGE)).items
    large, small = groups[0], next(group for group in reversed(groups) if group.error_type != RARE_ERROR)
    assert newest.failed_at is not None
    middle = large.first_at + (large.last_at - large.first_at) / 2
    return {
        "event_type": LetterFilter(event_type=large.event_type),
        "event_type_glob": LetterFilter(event_type="order.*"),
        "event_type_all": LetterFilter(event_type="*"),
        "handler": LetterFilter(handler=large.handler),
        "handler_small": LetterFilter(handler=small.handler, event_type=small.event_type),
        "group": LetterFilter(group=large.group),
        "reason": LetterFilter(reason="max_deliveries_exceeded"),
        "error_type": LetterFilter(error_type="ValueError"),
        "fingerprint": LetterFilter(fingerprint=large.fingerprint),
        "since": LetterFilter(since=middle),
        "until": LetterFilter(until=middle),
        "between": LetterFilter(since=middle, until=middle + timedelta(milliseconds=100)),
        "combined": LetterFilter(
            event_type="order.*", group=large.group, reason="non_retryable", error_type="ValueError", until=middle
        ),
        "few": LetterFilter(error_type=RARE_ERROR),
        "few_until": LetterFilter(error_type=RARE_ERROR, until=middle),
        "none": LetterFilter(error_type="NoSuchError"),
        "none_since": LetterFilter(handler=large.handler, since=_after(newest.failed_at)),
        "text": LetterFilter(q="no such text"),
    }


def _after(moment: datetime) -> datetime:
    return moment + timedelta(days=1)


# --- the index rebuilt --------------------------------------------------------------------------------------------


async def _index(queue: DeadLetterQueue, count: int) -> Mapping[str, float]:
    """Rebuilt by looks that each catch up with a part."""
    looks: list[float] = []
    began = time.perf_counter()
    standing = await queue.reindex()
    while standing.unindexed:
        look = time.perf_counter()
        standing = await _stats_of(queue)()
        looks.append((time.perf_counter() - look) * 1_000)
    seconds = time.perf_counter() - began
    _expect((await _causes_of(queue)()).letters, count, "letters in all groups")
    return {"seconds": seconds, "slowest": max(looks, default=0.0)}


# --- many moved -----------------------------------------------------------------------------------------------------


async def _move(queue: DeadLetterQueue, count: int) -> Mapping[str, float]:
    """Most letters are replayed, the rest discarded, and restored as far as the archive has them: each an operation,
    timed from its start until it has ended."""
    await _operation(queue, "replay", LetterFilter(error_type=RARE_ERROR))  # warm
    first = most_mib()
    replayed, replays = await _operation(queue, "replay", LetterFilter(reason="max_deliveries_exceeded"))
    discarded, discards = await _operation(queue, "discard", LetterFilter())
    _expect(replayed + discarded + RARE_LETTERS, count, "letters moved")
    growth = most_mib() / first
    _expect((await _stats_of(queue)()).length, 0, "letters left")
    restored, restores = await _operation(queue, "restore", LetterFilter())
    _expect((await _stats_of(queue)()).length, restored, "letters restored")
    return {"replays": replays, "discards": discards, "restores": restores, "growth": growth}


async def _operation(queue: DeadLetterQueue, kind: OperationKind, wanted: LetterFilter) -> tuple[int, float]:
    """How many letters it moved, and how many a second."""
    began = time.perf_counter()
    started = await queue.operations.start(kind, Selector(filter=wanted), actor="bench")
    ended = await queue.operations.run_until_ended(started.id)
    if ended.state != "completed" or ended.failed or ended.skipped:
        raise AssertionError(f"a bulk {kind} did not go as it should: {ended}")
    return ended.done, ended.done / (time.perf_counter() - began)


# --- measuring ------------------------------------------------------------------------------------------------------


async def _median(ask: Callable[[], Awaitable[object]]) -> float:
    """Milliseconds. The first time counts: an operator asks once."""
    took: list[float] = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        await ask()
        took.append((time.perf_counter() - began) * 1_000)
    return statistics.median(took)


def _expect(found: int, expected: int, what: str) -> None:
    if found != expected:
        raise AssertionError(f"{found:,} {what}, and {expected:,} expected")
