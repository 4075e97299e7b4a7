"""The names of all keys that Rapids keeps for a stream.

All of them are in the stream's own slot, since Redis Cluster requires it of the keys of one script. One key belongs to
no stream: `announced_routers`.
"""

from dataclasses import dataclass

from rapids._core.checks import hash_tag

__all__ = [
    "BESIDE",
    "IN_SCRIPTS",
    "NOBODY",
    "PARKED",
    "WAITING",
    "Source",
    "announced_routers",
    "audit_log",
    "beside",
    "default_dlq",
    "gauges_reader",
    "is_default_dlq",
    "letter_index",
    "letters_archive",
    "letters_archived",
    "letters_failed_again",
    "letters_restored",
    "operating",
    "operation",
    "operation_errors",
    "operation_replays",
    "operations",
    "origin_of",
    "probe",
    "replay_stream",
    "session",
]

WAITING = b"rapids:waiting"
"""The consumer that holds entries until they are due, so that a search for abandoned entries never finds them."""

PARKED = b"rapids:parked"
"""The consumer that holds entries that are not run again."""

NOBODY = b""
"""In place of a consumer: that of pending entries which a consumer released by XNACK. Redis 8.8 has that command."""

BESIDE = ":rapids:"
"""What is in the names of all keys that are kept for a stream, after the stream's own name."""

DLQ = ":dlq"

IN_SCRIPTS = {
    "WAITING": WAITING.decode(),
    "PARKED": PARKED.decode(),
    "NOBODY": NOBODY.decode(),
    "IDS": "rapids:ids",
    "BESIDE": BESIDE,
    "REPLAY_STREAM": f"{BESIDE}replay:",
    "FINGERPRINTS": ":fingerprints",
    "ERRORS": ":errors",
    "REPLAYS": ":replays",
    "PARKED_OF": "parked:",
}
"""Names and parts of key names, by the placeholders that scripts use for them."""


def _tagged(stream: str) -> str:
    return stream if hash_tag(stream) else f"{{{stream}}}"


def _key(stream: str, part: str) -> str:
    return f"{_tagged(stream)}{BESIDE}{part}"


def beside(key: str) -> tuple[str, str]:
    """The two halves of a key's name: that of the stream for which it is kept, and what it is; ("", "") for others."""
    tagged, found, part = key.partition(BESIDE)
    if not found:
        return "", ""
    return (tagged[1:-1] if tagged.startswith("{") and tagged.endswith("}") else tagged), part


def announced_routers() -> str:
    """Sorted set with a TTL, one for all streams: the routers that run or ran lately, by when they last said so
    (milliseconds, the server's clock)."""
    return "rapids:routers"


def default_dlq(stream: str) -> str:
    """The default dead-letter stream of a stream."""
    return f"{_tagged(stream)}{DLQ}"


def is_default_dlq(stream: str) -> bool:
    """Whether the name is one that `default_dlq` gives."""
    return stream.endswith(DLQ)


def replay_stream(stream: str, group: str) -> str:
    """The stream for replays of one group, so that no other group reads them."""
    return _key(stream, f"replay:{group}")


def origin_of(replay_stream: str) -> tuple[str, str]:
    """The stream and the group of a stream for replays."""
    stream, part = beside(replay_stream)
    return stream, part.partition(":")[2]


def letters_archive(dlq: str) -> str:
    """Stream with a TTL: replayed and discarded letters by the time of the change, with their history."""
    return _key(dlq, "archive")


def letters_failed_again(dlq: str) -> str:
    """Hash with a TTL: from a replayed letter's id to the ids of the letters that its replay left."""
    return _key(dlq, "failed-again")


def audit_log(stream: str) -> str:
    """Stream with a TTL and a maximum length: who changed what, and why."""
    return _key(stream, "audit")


def letter_index(dlq: str) -> str:
    """Hash: how far the letters are indexed. With a colon and a suffix: `fingerprints` (hash: name to description) and,
    for each fingerprint's name, a stream whose entry ids are those of its letters."""
    return _key(dlq, "index")


def letters_archived(dlq: str) -> str:
    """Sorted set with a TTL: the ids of archived letters by their places in the archive (microseconds)."""
    return _key(dlq, "archived")


def letters_restored(dlq: str) -> str:
    """Restored letters, which have a new entry id, by the milliseconds in that id."""
    return _key(dlq, "restored")


def operation(dlq: str, operation_id: str) -> str:
    """Hash with a TTL: an operation on many letters. Its errors are in `operation_errors`."""
    return _key(dlq, f"operation:{operation_id}")


def operation_errors(dlq: str, operation_id: str) -> str:
    """List with a TTL: the errors of an operation."""
    return f"{operation(dlq, operation_id)}{IN_SCRIPTS['ERRORS']}"


def operation_replays(dlq: str, operation_id: str) -> str:
    """Hash with a TTL: from the ids of letters that a canary's step has replayed to the entries and streams of their
    replays, until the outcomes of these are known."""
    return f"{operation(dlq, operation_id)}{IN_SCRIPTS['REPLAYS']}"


def operations(dlq: str) -> str:
    """Sorted set with a TTL: the ids of operations by their creation (microseconds)."""
    return _key(dlq, "operations")


def operating(dlq: str, kind: str) -> str:
    """String with a TTL: the operation of this kind that has not ended."""
    return _key(dlq, f"operating:{kind}")


def gauges_reader(dlq: str) -> str:
    """String with a TTL: the token of the process that reads the gauges of a dead-letter stream."""
    return _key(dlq, "gauges")


def session(stream: str, digest: str) -> str:
    """String with a TTL: the sealed credentials of a browser's session, by a digest of the session's secret."""
    return _key(stream, f"session:{digest}")


def probe(stream: str) -> str:
    """A key that never exists: commands are tried on it to find out what a user may do."""
    return _key(stream, "probe")


def consumers_by_group(stream: str) -> str:
    """The prefix of the keys for consumer names of all groups; the group, a colon and the name follow."""
    return _key(stream, "consumer:")


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A stream as one group reads it, and the keys in which the group keeps data about the stream's entries.

    Compared by identity: a worker creates its two sources once, and uses them as keys of mappings for every entry.
    """

    stream: str
    group: str
    is_replay: bool = False
    """Whether this is the group's own replay stream, whose entries are deleted when they are settled."""

    @property
    def ledger(self) -> str:
        """Hash: from entry id to ledger. An entry has a ledger from a handler's first failure until it is settled."""
        return _key(self.stream, f"ledger:{self.group}")

    @property
    def due(self) -> str:
        """Sorted set: the ids of waiting entries by the time they are due (milliseconds, the server's clock)."""
        return _key(self.stream, f"due:{self.group}")

    @property
    def parked(self) -> str:
        """Hash: from the id of a parked entry to the reason why it is parked."""
        return _key(self.stream, f"{IN_SCRIPTS['PARKED_OF']}{self.group}")

    @property
    def trimming(self) -> str:
        """String with a TTL: exists if entries that all groups have settled were recently trimmed."""
        return _key(self.stream, "trimming")

    @property
    def recreated(self) -> str:
        """String with a TTL: when the group was lost and recreated (milliseconds, the server's clock)."""
        return _key(self.stream, f"made-again:{self.group}")

    @property
    def restoring(self) -> str:
        """Hash that exists while a lost group gets its waiting and parked entries back: how far that is, for each of
        the two consumers that hold them."""
        return _key(self.stream, f"restoring:{self.group}")

    @property
    def exclusive(self) -> str:
        """String with a TTL: the token of the active consumer's term, while that consumer lives."""
        return _key(self.stream, f"exclusive:{self.group}")

    @property
    def term(self) -> str:
        """String with a TTL: the token of the latest term, also after its consumer died."""
        return _key(self.stream, f"term:{self.group}")

    @property
    def paused(self) -> str:
        """Hash that exists while the group is paused: actor, reason, and start (milliseconds, the server's clock)."""
        return _key(self.stream, f"paused:{self.group}")

    @property
    def gauges_reader(self) -> str:
        """String with a TTL: the token of the process that reads the gauges of the group."""
        return _key(self.stream, f"gauges:{self.group}")

    @property
    def rates(self) -> str:
        """String with a TTL: what the group's workers did in each ten seconds of the last hour (binary records)."""
        return _key(self.stream, f"rates:{self.group}")

    def consumer(self, name: str) -> str:
        """String with a TTL: the token of the process that has this consumer name."""
        return f"{consumers_by_group(self.stream)}{self.group}:{name}"

    def handlers(self, name: str) -> str:
        """String with a TTL: the handlers of this consumer, for the comparison with others (JSON)."""
        return _key(self.stream, f"handlers:{self.group}:{name}")

    def replays(self) -> "Source":
        """The group's replay stream of this stream."""
        return Source(replay_stream(self.stream, self.group), self.group, is_replay=True)
