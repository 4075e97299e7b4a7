"""The names of everything Rapids keeps beside a stream.

All of it lies in the stream's own slot, so that one script over the stream and its keys is legal on Redis Cluster.
"""

from dataclasses import dataclass

from rapids._core.settings import hash_tag

__all__ = [
    "IN_SCRIPTS",
    "PARKED",
    "WAITING",
    "Source",
    "audit_log",
    "default_dlq",
    "letter_index",
    "letters_archive",
    "letters_archived",
    "letters_failed_again",
    "letters_restored",
    "operating",
    "operation",
    "operation_errors",
    "operations",
    "replay_stream",
]

WAITING = b"rapids:waiting"
"""The consumer that holds entries until they are due, so that looking for abandoned ones never meets them."""

PARKED = b"rapids:parked"
"""The consumer that holds entries nobody will run again."""

IN_SCRIPTS = {
    "WAITING": WAITING.decode(),
    "PARKED": PARKED.decode(),
    "REPLAY_STREAM": ":rapids:replay:",
    "FINGERPRINTS": ":fingerprints",
    "ERRORS": ":errors",
}
"""Names, and what names of keys end with or contain, by what the scripts call them."""


def _tagged(stream: str) -> str:
    return stream if hash_tag(stream) else f"{{{stream}}}"


def _beside(stream: str, part: str) -> str:
    return f"{_tagged(stream)}:rapids:{part}"


def default_dlq(stream: str) -> str:
    """The dead-letter stream of a stream that was given none."""
    return f"{_tagged(stream)}:dlq"


def replay_stream(stream: str, group: str) -> str:
    """Where replays for one group go, so that no other group meets them."""
    return _beside(stream, f"replay:{group}")


def letters_archive(dlq: str) -> str:
    """Stream with a TTL: letters that were replayed or discarded, by the time of that, with what was done to them."""
    return _beside(dlq, "archive")


def letters_failed_again(dlq: str) -> str:
    """Hash with a TTL: a replayed letter's id to the ids of those that its replay became."""
    return _beside(dlq, "failed-again")


def audit_log(stream: str) -> str:
    """Stream with a TTL, capped: who changed what, and why."""
    return _beside(stream, "audit")


def letter_index(dlq: str) -> str:
    """Hash: how far the letters are indexed. Behind a colon, `fingerprints` (hash: name to what it stands for) and, for
    each of these, a stream whose entry ids are those of its letters."""
    return _beside(dlq, "index")


def letters_archived(dlq: str) -> str:
    """Sorted set with a TTL: the ids of archived letters by their places in the archive (microseconds)."""
    return _beside(dlq, "archived")


def letters_restored(dlq: str) -> str:
    """Letters that came back under a new entry id, by that id's milliseconds."""
    return _beside(dlq, "restored")


def operation(dlq: str, operation_id: str) -> str:
    """Hash with a TTL: an operation on many letters. Its errors are in `operation_errors`."""
    return _beside(dlq, f"operation:{operation_id}")


def operation_errors(dlq: str, operation_id: str) -> str:
    """List with a TTL: the errors of an operation."""
    return f"{operation(dlq, operation_id)}{IN_SCRIPTS['ERRORS']}"


def operations(dlq: str) -> str:
    """Sorted set with a TTL: the ids of operations by their creation (microseconds)."""
    return _beside(dlq, "operations")


def operating(dlq: str, kind: str) -> str:
    """String with a TTL: the operation of this kind that has not ended."""
    return _beside(dlq, f"operating:{kind}")


def consumers_by_group(stream: str) -> str:
    """What the keys for consumer names of all groups begin with; then come the group, a colon and the name."""
    return _beside(stream, "consumer:")


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A stream as one group reads it, and the keys in which the group keeps what it knows of its entries.

    Compared by identity: a worker makes its two once, and looks things up by them for every entry.
    """

    stream: str
    group: str
    is_replay: bool = False
    """Whether this is the group's own replay stream, whose entries are deleted once they are settled."""

    @property
    def ledger(self) -> str:
        """Hash: entry id to ledger. An entry has one only after a handler failed, and until it is settled."""
        return _beside(self.stream, f"ledger:{self.group}")

    @property
    def due(self) -> str:
        """Sorted set: the ids of waiting entries by the time they are due (milliseconds, the server's clock)."""
        return _beside(self.stream, f"due:{self.group}")

    @property
    def parked(self) -> str:
        """Hash: parked entry id to why it is parked."""
        return _beside(self.stream, f"parked:{self.group}")

    @property
    def trimming(self) -> str:
        """String with a TTL: the stream was trimmed lately of what all groups have settled."""
        return _beside(self.stream, "trimming")

    @property
    def made_again(self) -> str:
        """String with a TTL: when the group was lost and made again (milliseconds, the server's clock)."""
        return _beside(self.stream, f"made-again:{self.group}")

    @property
    def exclusive(self) -> str:
        """String with a TTL: the process that is the group's only active consumer."""
        return _beside(self.stream, f"exclusive:{self.group}")

    @property
    def paused(self) -> str:
        """Hash, there while the group is paused: actor, reason, and since when (milliseconds, the server's clock)."""
        return _beside(self.stream, f"paused:{self.group}")

    def consumer(self, name: str) -> str:
        """String with a TTL: the process that goes by this consumer name."""
        return f"{consumers_by_group(self.stream)}{self.group}:{name}"

    def replays(self) -> "Source":
        """The group's replay stream beside this stream."""
        return Source(replay_stream(self.stream, self.group), self.group, is_replay=True)
