"""Changed data with what was hidden in them put back: a mask that is left where it was shown keeps what is stored."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

from rapids._core.parse_problem import ParseProblem
from rapids.dead_letters.diffs import canonical
from rapids_fastapi.admin.redaction import MASK, Redactor

__all__ = ["ABSENT", "Keeper"]

Location: TypeAlias = tuple[str | int, ...]

ABSENT = object()
"""Stands for what is not stored."""


@dataclass(frozen=True, slots=True)
class Keeper:
    """Puts back what is stored, and notes where it cannot tell what that is."""

    redactor: Redactor
    problems: list[ParseProblem] = field(default_factory=list[ParseProblem])

    def kept(self, sent: object, stored: object, location: Location = ()) -> Any:
        """`sent` as it was meant. What was stored at the same place is `stored`, or `ABSENT`.

        `sent` is not nested deeper than the redactor goes.
        """
        if isinstance(sent, dict):
            return self._object(cast("dict[str, object]", sent), stored, location)
        if isinstance(sent, list):
            return self._list(cast("list[object]", sent), stored, location)
        return sent

    def _object(self, sent: Mapping[str, object], stored: object, location: Location) -> dict[str, object]:
        known: Mapping[str, object] = cast("dict[str, object]", stored) if isinstance(stored, dict) else {}
        return {name: self._member(name, value, known.get(name, ABSENT), location) for name, value in sent.items()}

    def _member(self, name: str, sent: object, stored: object, location: Location) -> object:
        location = (*location, name)
        if not self.redactor.hides(name):
            return self.kept(sent, stored, location)
        if sent != MASK:  # a new value: what is in the stored one was not shown, and is not there to be kept
            return self.kept(sent, ABSENT, location)
        if stored is ABSENT:
            self._refuse(location, "nothing that was hidden is stored here")
        return stored

    def _list(self, sent: Sequence[object], stored: object, location: Location) -> list[object]:
        if not any(self._has_mask(member) for member in sent):
            return list(sent)
        known = cast("list[object]", stored) if isinstance(stored, list) else []
        partners = self._partners(sent, known)
        return [
            self._in_list(member, partner, (*location, at))
            for at, (member, partner) in enumerate(zip(sent, partners, strict=True))
        ]

    def _in_list(self, sent: object, partner: object, location: Location) -> object:
        if partner is ABSENT and self._has_mask(sent):
            self._refuse(location, "the list was changed, so what was hidden here is not clear")
            return sent
        return self.kept(sent, partner, location)

    def _partners(self, sent: Sequence[object], stored: Sequence[object]) -> Iterator[object]:
        """For each member of a list, the stored one it was.

        By place, as long as none was added, removed or moved; else the only one that looked the same when shown.
        """
        places: dict[str, list[int]] = {}
        for at, member in enumerate(stored):
            places.setdefault(self._looks(member), []).append(at)
        found = [places.get(canonical(member), []) for member in sent]
        in_place = len(sent) == len(stored) and all(at in where for at, where in enumerate(found) if where)
        for at, where in enumerate(found):
            if in_place:
                yield stored[at]
            else:
                yield stored[where[0]] if len(where) == 1 else ABSENT

    def _looks(self, stored: object) -> str:
        return canonical(self.redactor.value(stored, set()))

    def _has_mask(self, value: object) -> bool:
        if isinstance(value, list):
            return any(map(self._has_mask, cast("list[object]", value)))
        if not isinstance(value, dict):
            return False
        members = cast("dict[str, object]", value).items()
        return any((member == MASK and self.redactor.hides(name)) or self._has_mask(member) for name, member in members)

    def _refuse(self, location: Location, why: str) -> None:
        self.problems.append(ParseProblem(location, f"{why}: write out the value that is meant", "hidden_value"))
