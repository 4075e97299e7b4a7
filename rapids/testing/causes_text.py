"""Causes as text: what was emitted, indented under what caused it, and what became of each in every group."""

from collections.abc import Mapping, Sequence

from rapids.inspection import PendingEntry
from rapids.testing.records import described
from rapids.tracker import TrackedEntry

__all__ = ["EntryStates", "causes_text", "pending_lines"]

EntryStates = Mapping[tuple[str, str], Sequence[str]]
"""Lines about an entry, by stream and entry id: what became of it in each group."""

SHOWN = 100
"""How many entries the text has."""

DEEPEST = 40
"""Causes from which on the text is indented no further."""


def causes_text(entries: Sequence[TrackedEntry], states: EntryStates) -> str:
    """All entries as a forest: under each event, those that it caused."""
    by_event: dict[str, int] = {}
    for at, entry in enumerate(entries):
        if entry.event is not None:
            by_event.setdefault(entry.event.id, at)
    causes = [None if entry.event is None else entry.event.causation_id for entry in entries]
    parents = [None if cause is None else by_event.get(cause) for cause in causes]
    children: dict[int | None, list[int]] = {}
    for at, parent in enumerate(parents):
        children.setdefault(None if parent == at else parent, []).append(at)
    lines: list[str] = []
    shown = set[int]()
    left = [(at, 0) for at in (*children.get(None, ()), *range(len(entries)))][::-1]
    while left:  # not by recursion: a chain of causes may be long
        at, depth = left.pop()
        if at in shown:  # under its cause already; or the causes form a cycle
            continue
        if len(shown) >= SHOWN:
            lines.append(f"and {len(entries) - len(shown)} more events")
            break
        shown.add(at)
        entry, indent = entries[at], "  " * min(depth, DEEPEST)
        event = entry.event
        kind = "an entry that cannot be read" if event is None else f"{event.routing_key}: {described(event)}"
        lines.append(f"{indent}{kind} [{entry.entry_id} in {entry.stream!r}]")
        lines.extend(f"{indent}    {state}" for state in states.get((entry.stream, entry.entry_id), ()))
        left += [(child, depth + 1) for child in reversed(children.get(at, ()))]
    return "\n".join(lines) or "(nothing was emitted)"


def pending_lines(group: str, entry: PendingEntry) -> Sequence[str]:
    """What a group has not settled of an entry, or has parked, and the last error of each handler."""
    deliveries = "1 delivery" if entry.deliveries == 1 else f"{entry.deliveries} deliveries"
    if entry.state == "parked":
        why = "; ".join(f"{one.handler!r}, {one.reason}: {one.error}" for one in entry.failures)
        return (f"{group}: parked in {why}",)
    names = " and ".join(map(repr, entry.handlers))
    lines = [f"{group}: NOT SETTLED, {entry.state}{f' for {names}' if names else ''}, {deliveries}"]
    for of_handler in entry.attempts:
        last = of_handler.attempts[-1]
        lines.append(f"    {of_handler.handler}, delivery {last.delivery}: {last.error_type}: {last.error}")
    return lines
