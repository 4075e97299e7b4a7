"""A dead letter, what was done to it, and the outcomes of its replays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeAlias, cast

import orjson
from pydantic import Field

from rapids._core.attempt_log import Attempt
from rapids._core.entry_id import order
from rapids._core.json_schema import with_json_schema
from rapids._storage import letters
from rapids._storage.archive import Archived
from rapids._storage.client.connections import Commands
from rapids._wire.entry_format import Fields
from rapids._wire.fingerprints import fingerprint_name
from rapids._wire.letter_format import LetterRead, claimed_id, letter_values
from rapids.dead_letters.edit import Difference, read_differences
from rapids.dead_letters.parse_check import ParseCheck, check_parsing

__all__ = [
    "ArchivePage",
    "DeadLetter",
    "LetterChange",
    "LetterPage",
    "Replay",
    "ReplayOutcome",
    "Scope",
    "State",
    "read_archived",
    "read_history",
    "read_letters",
]

State: TypeAlias = Literal["dead", "replayed", "discarded"]
Scope: TypeAlias = Literal["handler", "group", "everyone"]

_STATE_AFTER: dict[str, State] = {"replayed": "replayed", "discarded": "discarded", "restored": "dead"}


@dataclass(frozen=True, slots=True)
class LetterChange:
    """What somebody did to a letter."""

    action: str
    """`replayed`, `discarded` or `restored`."""
    at: datetime
    actor: str
    reason: str
    stream: str
    """For a replay, the stream the event was appended to."""
    entry_id: str
    """The id of the entry the change made: the replay's, or the restored letter's."""
    scope: str = ""
    """For a replay: `handler`, `group` or `everyone`."""
    operation: str = ""
    """The id of the operation that did it, empty for none."""
    data: str = ""
    """For a replay with changed data: these data, as JSON."""
    diff: tuple[Difference, ...] = ()
    """Where they differ from the letter's."""

    @classmethod
    def read(cls, stored: Mapping[str, object]) -> "LetterChange":
        """From an object of the stored history; what it lacks is empty."""
        names = ("action", "actor", "reason", "stream", "entry_id", "scope", "operation", "data")
        ms = str(stored.get("at", ""))
        return cls(
            at=datetime.fromtimestamp((int(ms) if ms.isdecimal() and len(ms) < 15 else 0) / 1000, UTC),
            diff=read_differences(str(stored.get("diff", ""))),
            **{name: str(stored.get(name, "")) for name in names},
        )


def read_history(stored: bytes) -> tuple[LetterChange, ...]:
    """What was done to a letter, from the stored history; empty if that cannot be read."""
    try:
        changes: Any = orjson.loads(stored)
    except orjson.JSONDecodeError:
        return ()
    if not isinstance(changes, list):
        return ()
    rows = cast(list[Any], changes)
    return tuple(LetterChange.read(cast(dict[str, Any], row)) for row in rows if isinstance(row, dict))


@with_json_schema
@dataclass(frozen=True, slots=True)
class ReplayOutcome:
    """The outcome of a replay."""

    at: datetime
    scope: str
    stream: str
    """The stream to which the event was appended, as the entry `entry_id`."""
    entry_id: str
    outcome: Literal["undelivered", "pending", "failed_again", "handled", "sent", "unknown"]
    """`undelivered`: the group has not read it yet; `pending`: its handlers run, wait or are parked;
    `failed_again`: `letters` say how; `handled`: it was settled and left no letter; `sent`: to everyone, whose
    deliveries cannot be distinguished from others; `unknown`: the stream of the group's replays was deleted."""
    letters: tuple[str, ...] = ()
    """The ids of the dead letters that it left: at most about a thousand characters of them."""
    is_inferred: Annotated[bool, Field(serialization_alias="inferred")] = False
    """Whether the outcome follows only from the entry's acknowledgement, as for `handled`: no success is recorded."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A handler's failed delivery. Texts are hostile input: show them as data only."""

    id: str
    """The letter's own id; it keeps it when it is discarded, restored or replayed."""
    state: State
    stream: str
    """The stream the event was in."""
    group: str
    handler: str
    """The handler that failed; empty if no handler ran."""
    entry_id: str
    """The event's entry in `stream`."""
    reason: str
    error: str
    error_type: str
    traceback: str
    deliveries: int
    consumer: str
    failed_at: datetime | None
    event_type: str
    data: bytes
    """The event's own fields: JSON, if it was well-formed."""
    event_id: str
    timestamp: str
    correlation_id: str
    causation_id: str
    metadata: bytes
    schema_version: str
    replay_of: str | None
    """The letter whose replay failed here, if it was one."""
    replay_count: int
    history: tuple[LetterChange, ...] = ()
    """What was done to it, oldest first, as far back as the retention goes. Only `get` fills it in."""
    replays: tuple[ReplayOutcome, ...] = ()
    """The outcome of its last replay. Only `get` fills it in. A letter that was replayed stays replayed."""
    position: str = ""
    """Where the error came from, and part of the fingerprint: `module:line function` of the innermost frame of
    the user's code, else of the innermost one. Empty without a traceback, and in letters of other versions."""
    stored: Fields = field(default=(), repr=False, compare=False)
    """The letter as Redis has it: a name, its value, the next name, and so on."""

    @property
    def fingerprint(self) -> str:
        """What it has in common with others of one cause: group, handler, event type, reason, error type and position,
        as 16 hexadecimal digits. `DeadLetterQueue.causes` counts by it."""
        return fingerprint_name(self.stored)

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The handler's failed attempts, oldest first, the last one included: the first five and the last fifteen of
        many. Deliveries without a recorded outcome are among them: see `Attempt.recorded`.

        Empty for letters of other versions, and without what an older version of Rapids recorded.
        """
        return LetterRead.of(self.stored).attempts().kept

    @property
    def attempts_left_out(self) -> int:
        """How many attempts are left out between the fifth and the sixth of `attempts`."""
        return LetterRead.of(self.stored).attempts().left_out

    def check_parsing(self) -> ParseCheck:
        """Whether its event, as stored, would be parsed by the class registered now, as a worker parses it.

        It does no I/O, but runs the validators and migrations of that class. For a payload of megabytes this can take
        nearly a second: then call it in a thread.
        """
        return check_parsing(self.stored)

    @classmethod
    def read(cls, letter_id: str, fields: Fields, history: Sequence[LetterChange] = ()) -> "DeadLetter":
        """A letter from its fields, of this version or another. The id that they claim is not trusted."""
        return cls(
            id=letter_id,
            state=_STATE_AFTER.get(history[-1].action, "dead") if history else "dead",
            history=tuple(history),
            stored=fields,
            **letter_values(fields),
        )


@dataclass(frozen=True, slots=True)
class LetterPage:
    """Letters, newest first."""

    items: tuple[DeadLetter, ...]
    cursor: str | None
    """Where the next page starts; None after the last one. A page may be short, even empty, and have a next one."""
    total: int
    """How many letters match, if `total_exact`; else how many letters of the stream may match at most."""
    total_exact: bool
    """Whether `total` is exact. It is on an only page. On others it is not with `q`, `since` or `until`, or if letters
    are not indexed yet."""
    scanned: int
    """Letters looked at for this page."""


@dataclass(frozen=True, slots=True)
class ArchivePage:
    """Replayed and discarded letters, the one that was moved last first."""

    items: tuple[DeadLetter, ...]
    cursor: str | None
    """Where the next page starts; None after the last one. A page may be short, even empty, and have a next one."""
    scanned: int
    """Letters looked at for this page."""


@with_json_schema
@dataclass(frozen=True, slots=True)
class Replay:
    """A replay: the entry that delivers the event again."""

    letter_id: str
    scope: Scope
    stream: str
    entry_id: str
    diff: tuple[Difference, ...] = ()
    """Where the event's data differ from the letter's, if they were changed."""


async def read_letters(
    commands: Commands, dlq: str, rows: Sequence[tuple[bytes, Fields]]
) -> Sequence[tuple[str, DeadLetter]]:
    """Letters with their entry ids. A letter's id is its entry's, unless it was restored under a new one."""
    claimed = [claimed_id(fields) for _, fields in rows]
    foreign = {claim for (entry_id, _), claim in zip(rows, claimed, strict=True) if claim not in (b"", entry_id)}
    restored: dict[bytes, int | None] = {}
    if foreign:
        names = sorted(foreign)
        times = await letters.restored_at(commands, dlq, names)
        restored = dict(zip(names, times, strict=True))
    read: list[tuple[str, DeadLetter]] = []
    for (raw_id, fields), claim in zip(rows, claimed, strict=True):
        entry_id = raw_id.decode()
        was_restored = restored.get(claim) == order(entry_id)[0]
        read.append((entry_id, DeadLetter.read(claim.decode() if was_restored else entry_id, fields)))
    return read


def read_archived(archived: Archived) -> DeadLetter:
    """A letter of the archive, with its history."""
    return DeadLetter.read(archived.letter_id, archived.fields, read_history(archived.history))
