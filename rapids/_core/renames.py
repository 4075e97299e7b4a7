"""Handlers that were renamed: what is stored under an old name counts for the handler that has the new one."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from rapids._core.attempt_log import NO_ATTEMPTS, AttemptLog
from rapids._core.outcomes import Ledger, Wait

__all__ = ["Renames", "former_names", "no_handler"]


class Renames:
    """What the handlers of a group were called before, and are called now.

    `renamed` is from old names to new ones, which may have been renamed again; it was checked to go in no circle.
    `names` are those of the handlers there are.

    Raises `ValueError` where an old name leads to no handler, or is the name of one that is still there.
    """

    def __init__(self, renamed: Mapping[str, str], names: Iterable[str]) -> None:
        known = tuple(names)
        for old in renamed:
            if old in known:
                raise ValueError(
                    "renamed_handlers must be from names that no handler of the router has any more, "
                    f"not from {old!r}, which one has"
                )
        self._now = {old: _last(renamed, old) for old in renamed}
        for old, new in self._now.items():
            if new not in known:
                raise ValueError(
                    f"renamed_handlers must be to names of the router's handlers ({', '.join(map(repr, known))}), "
                    f"not from {old!r} to {new!r}"
                )

    def now(self, name: str) -> str:
        """What a handler of this name is called now."""
        return self._now.get(name, name)

    def in_ledger(self, ledger: Ledger) -> Ledger:
        """A ledger as it would be, had the handlers had their names of today when it was written."""
        if not self._now:
            return ledger
        done, dead, gave_up = (frozenset(map(self.now, names)) for names in (ledger.done, ledger.dead, ledger.gave_up))
        return replace(
            ledger,
            done=done,
            dead=dead,
            gave_up=gave_up,
            waits=self._waits(ledger.waits),
            attempts=self._attempts(ledger.attempts),
        )

    def _waits(self, waits: Iterable[Wait]) -> tuple[Wait, ...]:
        """One for each handler. Where processes with the old name and with the new one left two, it is the one that has
        spent more."""
        now: dict[str, Wait] = {}
        for wait in sorted(waits, key=lambda one: (one.spent, one.due_ms or 0)):
            name = self.now(wait.handler)
            now[name] = replace(wait, handler=name)
        return tuple(now[name] for name in sorted(now))

    def _attempts(self, attempts: Iterable[tuple[str, AttemptLog]]) -> tuple[tuple[str, AttemptLog], ...]:
        """Those under all names a handler had, the old ones first."""
        now: dict[str, AttemptLog] = {}
        for name, log in sorted(attempts, key=lambda one: one[0] not in self._now):
            now[self.now(name)] = now.get(self.now(name), NO_ATTEMPTS).then(log)
        return tuple((name, now[name]) for name in sorted(now))


def former_names(renamed: Mapping[str, str], name: str) -> tuple[str, ...]:
    """What the handler that has this name was called before."""
    return tuple(old for old in renamed if _last(renamed, old) == name)


def no_handler(name: str) -> str:
    """What to say where something is for a handler that is not there."""
    return (
        f"the group has no handler {name!r}; if it was renamed, EventRouter(renamed_handlers={{{name!r}: ...}}) tells "
        "what it is called now"
    )


def _last(renamed: Mapping[str, str], name: str) -> str:
    while name in renamed:
        name = renamed[name]
    return name
