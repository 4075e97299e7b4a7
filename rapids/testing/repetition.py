"""Repetition: a test's events are delivered again, to find handlers that are not idempotent."""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from rapids.events import Event
from rapids.rehearsal import Rehearsal
from rapids.testing.records import described

__all__ = [
    "EmitNotes",
    "Probe",
    "Repetition",
    "check_probe",
    "differences",
    "emitted_difference",
    "notes_of_emits",
    "raise_differences",
    "repetition",
    "state_difference",
    "state_of",
]

Repetition: TypeAlias = Literal["twice", "crash"] | None
"""`twice`: every event is delivered twice. `crash`: every event is delivered again, as after a crash of the process
between the effects of its handlers and the acknowledgement. None: every event is delivered once."""

Probe: TypeAlias = Callable[[], object] | Callable[[], Awaitable[object]]
"""A plain or async function of the test's: the state that a repetition must not change, to be compared by `==`."""

repetition: ContextVar[Repetition] = ContextVar("rapids_repetition", default=None)
"""What the options of pytest say."""

SHOWN = 500
"""How many characters of a state a message shows."""


@dataclass(slots=True)
class EmitNotes:
    """What recording emitters are to note in a delivery."""

    keeps: bool
    """Whether the emitters keep the events. Those of a repetition are only noted, so that a test finds each once."""
    events: list[Event] = field(default_factory=list[Event])


notes_of_emits: ContextVar[EmitNotes | None] = ContextVar("rapids_notes_of_emits", default=None)
"""Where recording emitters note what is emitted."""


def check_probe(probe: Probe | None) -> None:
    """Raise `TypeError` for anything but a function or None."""
    if probe is not None and not callable(probe):
        raise TypeError(f"probe must be a function without arguments, or None, not {probe!r}")


async def state_of(probe: Probe | None) -> object:
    """What the probe says now; None without one."""
    if probe is None:
        return None
    state = probe()
    return await state if inspect.isawaitable(state) else state


def state_difference(before: object, after: object) -> str | None:
    """What to say of a state that changed again; None if it did not."""
    if before == after:
        return None
    return f"changed the state again: {repr(before)[:SHOWN]} became {repr(after)[:SHOWN]}"


def emitted_difference(event: Event) -> str:
    """What to say of an event that was emitted by a repetition only."""
    return f"emitted once more, with another id: {described(event)}"


async def differences(
    rehearsal: Rehearsal,
    event: Event,
    handlers: Iterable[str],
    *,
    emitted: Sequence[Event],
    how: Repetition,
    probe: Probe | None,
) -> list[str]:
    """Deliver an event again to each of these handlers, which were done. Returns what differed, handler by handler.

    `emitted`: what was emitted at the first time.
    """
    known = {one.id for one in emitted}
    found: list[str] = []
    for name in handlers:
        before, notes = await state_of(probe), EmitNotes(keeps=False)
        token = notes_of_emits.set(notes)
        try:
            outcomes = await rehearsal.run(event, first=2 if how == "crash" else 1, only=name)
        finally:
            notes_of_emits.reset(token)
        said = [f"raised {outcome.error_text}" for outcome in outcomes if outcome.state == "dead"]
        said += [emitted_difference(one) for one in notes.events if one.id not in known]
        if (changed := state_difference(before, await state_of(probe))) is not None:
            said.append(changed)
        found += [f"{name}: {one}" for one in said]
    return found


def raise_differences(how: Repetition, what: str, found: Sequence[str]) -> None:
    """Raise `AssertionError` if anything differed."""
    __tracebackhide__ = True
    if not found:
        return
    why = {
        "twice": "was delivered twice",
        "crash": "was delivered again, as after a crash between the effects of its handlers and the acknowledgement",
    }[how or "twice"]
    lines = "\n".join(f"  {one}" for one in found)
    raise AssertionError(f"--rapids-{how}: {what} {why}, and the second time was not without effect:\n{lines}")
