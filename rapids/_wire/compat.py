"""Letters of rapids-streams, which lack fields that an event needs. This module goes in 2.0.

Nothing else exists only because processes of rapids-streams may share a stream and a group. That consumers may ignore
due times or settle entries of others is also true of an operator with `redis-cli`: `claim.lua` and `forget_settled.lua`
stay.
"""

from collections.abc import Mapping

from rapids._core.entry_id import moment_or_last, time_of
from rapids._wire.entry_format import EVENT_FIELDS, Fields, first_values

__all__ = ["completed", "is_complete", "with_defaults"]


def is_complete(letter: Fields) -> bool:
    """Whether a letter has every field of its event. Those of rapids-streams have no `schema_version`."""
    return set(EVENT_FIELDS) <= set(letter[::2])


def completed(letter: Fields, entry: Fields) -> Fields:
    """A letter with the missing fields of its event added from the entry that failed, if `entry` is that entry."""
    known, of_entry = first_values(letter), first_values(entry)
    if any(name in known and known[name] != of_entry.get(name) for name in (b"event_type", b"data", b"id")):
        return letter
    missing = [name for name in EVENT_FIELDS if name not in known and name in of_entry]
    return [*letter, *(part for name in missing for part in (name, of_entry[name]))]


def with_defaults(letter: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """A letter's values, with an id, a time and a version for its event if they are still missing."""
    entry_id = letter.get(b"original_msg_id", b"")
    timestamp = (time_of(entry_id) or moment_or_last(0)).isoformat().encode()
    return {b"schema_version": b"1", b"metadata": b"{}", b"id": entry_id, b"timestamp": timestamp, **letter}
