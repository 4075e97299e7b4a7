"""The five promises of delivery (DESIGN.md, section 5), each as a check of one run that has come to its end.

A check is as strict as what was done to the run allows: a repetition is excused only where that very delivery was
pending for a process when it was killed, where the whole group was destroyed, or where the event loop that all
processes of the model share was blocked for so long that leases lapsed. A loss is excused only by a trim, and then it
must have been reported, or by the destruction of a group whose entry no living process knows.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from redis.asyncio import Redis

from rapids._core.outcomes import Ledger
from rapids._storage.keys import PARKED, Source, letters_archive
from tests.model.events import CLAIM_MIN_IDLE_MS, DLQ, LETTERS, STREAM
from tests.model.world import Destroyed, Gone, Run, Work, World, order
from tests.worker.helpers import as_text

LEASE = CLAIM_MIN_IDLE_MS / 1000
NEVER = float("inf")


@dataclass(frozen=True, order=True)
class Letter:
    """A dead letter as it was written, wherever it is now."""

    letter_id: str
    group: str
    handler: str
    entry_id: str
    replay_of: str


@dataclass(frozen=True)
class Evidence:
    """What is in Redis when all is done."""

    letters: list[Letter]
    parked: dict[str, dict[str, frozenset[str]]]
    """For each group, the parked entries and the handlers that gave up on them."""

    @classmethod
    async def gather(cls, redis: Redis, groups: list[str]) -> Evidence:
        return cls(await _letters(redis), {group: await _parked(redis, group) for group in groups})


async def _letters(redis: Redis) -> list[Letter]:
    found = [fields for _, fields in await redis.xrange(DLQ)]
    found += [fields for _, fields in await redis.xrange(letters_archive(DLQ))]  # restored ones are not in it any more
    names = (b"letter_id", b"original_group", b"handler", b"original_msg_id", b"replay_of")
    return [Letter(*(fields[name].decode() for name in names)) for fields in found]


async def _parked(redis: Redis, group: str) -> dict[str, frozenset[str]]:
    source = Source(STREAM, group)
    rows: list[dict[str, Any]] = await redis.xpending_range(STREAM, group, "-", "+", 1_000, PARKED.decode())
    ids = [as_text(row["message_id"]) for row in rows]
    return {entry_id: Ledger.load(await redis.hget(source.ledger, entry_id)).gave_up for entry_id in ids}


class Promises:
    """Checks one run."""

    def __init__(self, world: World, evidence: Evidence) -> None:
        self._world = world
        self._evidence = evidence
        self._runs: defaultdict[Work, list[Run]] = defaultdict(list)
        for run in sorted(world.runs, key=lambda run: run.began):
            self._runs[run.work].append(run)

    def check(self) -> None:
        self.nothing_is_lost()
        self.nothing_else_runs()
        self.only_what_failed_is_repeated()
        self.a_letter_exists_once()
        self.order_is_kept()

    # --- 1: nothing is lost -----------------------------------------------------------------------------------------

    def nothing_is_lost(self) -> None:
        letters = {(letter.group, letter.handler, letter.entry_id, letter.replay_of) for letter in self._letters()}
        for group, parked in self._evidence.parked.items():
            for entry_id, (_, handlers) in self._world.appended.items():
                for handler in handlers:
                    kept = (group, handler, entry_id, "") in letters or handler in parked.get(entry_id, ())
                    done = self._is_done(Work(group, STREAM, entry_id, handler))
                    why = f"{group} lost {entry_id} for {handler!r}"
                    assert kept or done or self._may_be_lost(group, entry_id), why
        for entry_id, (group, letter_id, handlers) in self._world.replays.items():
            stream = Source(STREAM, group).replays().stream
            for handler in handlers:
                kept = any(letter[:2] == (group, handler) and letter[3] == letter_id for letter in letters)
                done = self._is_done(Work(group, stream, entry_id, handler))
                assert kept or done, f"{group} lost the replay {entry_id} of {letter_id} for {handler!r}"

    def _is_done(self, work: Work) -> bool:
        return any(run.result == "done" for run in self._runs.get(work, ()))

    def _may_be_lost(self, group: str, entry_id: str) -> bool:
        destroyed = self._destroyed(group, entry_id)
        if any(entry_id in one.forgotten for one in destroyed):
            return True
        for trim in self._world.trimmed:
            if entry_id in trim.entry_ids:
                unread = entry_id not in trim.given.get(group, ()) or bool(destroyed)
                return unread or entry_id in self._world.reported_lost or self._report_lost(group, trim.at)
        return False

    def _report_lost(self, group: str, trimmed_at: float) -> bool:
        """Whether what was found to be trimmed may have been in an answer that was never read."""
        ended = [gone.at for gone in self._world.killed if gone.group == group] + self._world.interrupted
        return any(at > trimmed_at for at in ended)

    def _destroyed(self, group: str, entry_id: str) -> list[Destroyed]:
        """The destructions of the group since the entry was there."""
        mine = [one for one in self._world.destroyed if one.group == group]
        return [one for one in mine if order(entry_id) <= order(one.last_id)]

    def nothing_else_runs(self) -> None:
        """Each run was owed: a replay to one handler runs that one, an unreadable entry none."""
        for work in self._runs:
            replay = self._world.replays.get(work.entry_id) if work.stream != STREAM else None
            owed = replay[2] if replay else self._world.appended[work.entry_id][1]
            assert work.handler in owed, f"ran though nothing asked for it: {work}"

    # --- 2 and 3: only what failed is repeated; duplicates are bounded ----------------------------------------------

    def only_what_failed_is_repeated(self) -> None:
        for runs in self._runs.values():
            for at, run in enumerate(runs):
                for later in runs[at + 1 :]:
                    over = run.result in ("failed", "interrupted") and run.ended <= later.began
                    assert over or self._may_repeat(run, later.began), f"repeated:\n{run}\n{later}"

    def _may_repeat(self, run: Run, until: float) -> bool:
        if any(gone.process == run.process and self._was_pending(run, gone) for gone in self._world.killed):
            return True
        if any(run.began <= one.at <= until for one in self._destroyed(run.group, run.entry_id)):
            return True
        return any(start <= until and end >= run.began - LEASE for start, end in self._world.stalls)

    def _was_pending(self, run: Run, gone: Gone) -> bool:
        """Whether the delivery was not settled when its process was killed. A recreated group counts from zero."""
        counts = {
            count for stream, entry_id, count in gone.deliveries if (stream, entry_id) == (run.stream, run.entry_id)
        }
        return run.delivery in counts or (bool(counts) and bool(self._destroyed(run.group, run.entry_id)))

    # --- 4: a dead letter exists exactly once -----------------------------------------------------------------------

    def a_letter_exists_once(self) -> None:
        places: defaultdict[str, int] = defaultdict(int)
        for letter in self._evidence.letters:
            places[letter.letter_id] += 1
        assert all(number == 1 for number in places.values()), f"letters in two places: {dict(places)}"
        by_work: defaultdict[tuple[str, str, str, str], list[Letter]] = defaultdict(list)
        for letter in self._letters():
            by_work[letter.group, letter.handler, letter.entry_id, letter.replay_of].append(letter)
            self._check_owed(letter)
        for (group, _, entry_id, _), same in by_work.items():
            assert len(same) == 1 or self._destroyed(group, entry_id), f"more than one letter: {same}"

    def _letters(self) -> list[Letter]:
        return self._evidence.letters

    def _check_owed(self, letter: Letter) -> None:
        """A letter is about work that was owed and never finished, unless its end was not known any more."""
        assert letter.group == LETTERS, f"a letter of a group without dead letters: {letter}"
        if not letter.replay_of:
            owed, stream, entry_id = self._world.appended[letter.entry_id][1], STREAM, letter.entry_id
        else:
            ((entry_id, owed),) = [
                (entry_id, handlers)
                for entry_id, (_, letter_id, handlers) in self._world.replays.items()
                if letter_id == letter.replay_of
            ]
            stream = Source(STREAM, letter.group).replays().stream
        assert letter.handler in owed, f"a letter about nothing owed: {letter}"
        for run in self._runs.get(Work(letter.group, stream, entry_id, letter.handler), ()):
            again = self._may_repeat(run, NEVER) or self._destroyed(letter.group, letter.entry_id)
            assert run.result != "done" or again, f"a letter for what is done: {letter}\n{run}"

    # --- 5: order ---------------------------------------------------------------------------------------------------

    def order_is_kept(self) -> None:
        """First deliveries to one process are in stream order, and so are the handlers of one delivery."""
        by_process: defaultdict[int, list[Run]] = defaultdict(list)
        for run in self._world.runs:
            if run.stream == STREAM and run.delivery == 1 and not self._given_out_again(run):
                by_process[run.process].append(run)
        for runs in by_process.values():
            for one, next_ in pairwise(runs):
                in_order = (order(one.entry_id), one.handler) <= (order(next_.entry_id), next_.handler)
                assert in_order, f"out of order:\n{one}\n{next_}"

    def _given_out_again(self, run: Run) -> bool:
        """Whether it may be a second first delivery: released when a process stopped, or of a recreated group."""
        since = self._world.appended[run.entry_id][0]
        stopped = any(
            group == run.group and end >= since and start <= run.began for group, start, end in self._world.stops
        )
        return stopped or any(one.at <= run.began for one in self._destroyed(run.group, run.entry_id))
