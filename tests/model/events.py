"""The model's events, each of which carries what its handlers are to do with it."""

from __future__ import annotations

from typing import Literal, TypeAlias

from hypothesis import strategies as st

from rapids import BaseEvent

STREAM = "mo:events"
LETTERS = "mo-letters"
"""The group with a dead-letter stream."""
PARKS = "mo-parks"
"""The group without one."""
GROUPS = (LETTERS, PARKS)
DLQ = "mo:dlq"

CLAIM_MIN_IDLE_MS = 300
MAX_DELIVERIES = 3

Deed: TypeAlias = Literal["succeed", "fail", "retry_after", "refuse", "slow", "hang", "crash", "die_after"]
"""What a handler does on one delivery. `hang` ends only with its process (or the run of the model), `crash` ends its
process in the middle, `die_after` when it has finished, before that is settled."""

Script: TypeAlias = dict[str, list[Deed]]
"""For each handler what it does on the first delivery, on the second, ...; the last goes for all that follow."""


class MoTask(BaseEvent):
    number: int
    script: Script


class MoNote(BaseEvent):
    number: int
    script: Script


class MoIgnored(BaseEvent):
    """No handler has it."""

    number: int
    script: Script


KINDS: tuple[type[MoTask | MoNote | MoIgnored], ...] = (MoTask, MoNote, MoIgnored)
HANDLERS: dict[str, tuple[str, ...]] = {
    MoTask.event_type: ("first", "second", "third"),
    MoNote.event_type: ("second",),
    MoIgnored.event_type: (),
}
"""The handlers that match, in order of registration."""

deeds: st.SearchStrategy[Deed] = st.sampled_from(
    [*["succeed"] * 6, *["fail"] * 5, *["retry_after"] * 2, *["slow", "hang", "refuse"], *["crash"] * 2, "die_after"]
)
scripts = st.fixed_dictionaries({name: st.tuples(deeds, deeds).map(list) for name in HANDLERS["mo.task"]})


def deed_of(script: Script, handler: str, delivery: int) -> Deed:
    """The last deed of a script is repeated, but a postponement, which could go on forever, ends in a failure."""
    deeds = script[handler]
    deed = deeds[min(delivery, len(deeds)) - 1]
    return "fail" if deed == "retry_after" and delivery > len(deeds) else deed
