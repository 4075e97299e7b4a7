"""What a handler listens to, and which events that matches."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import UnionType
from typing import Any, TypeAlias, Union, get_args, get_origin

from rapids.events import Event, GenericEvent, get_event_class, same_class

__all__ = ["Pattern", "Target", "matches_pattern", "targets_of"]


@dataclass(frozen=True, slots=True)
class Pattern:
    """A glob over event types: `*` stands for one segment, `**` for any number of them, a lone `*` for everything."""

    text: str

    def matches(self, event_type: str) -> bool:
        return matches_pattern(self.text, event_type)


Target: TypeAlias = type[Event] | Pattern


def matches_pattern(pattern: str, event_type: str) -> bool:
    """Whether a glob pattern matches an event type. Segments are what stands between dots."""
    if pattern == "*":
        return True
    return _match(pattern.split("."), event_type.split("."))


def _match(patterns: list[str], segments: list[str]) -> bool:
    # One row of the usual table at a time: after[i] is whether what was read of the pattern matches segments[:i].
    # Unlike backtracking, this takes no longer for a hostile event type.
    after = [True] + [False] * len(segments)
    for pattern in patterns:
        if pattern == "**":
            first = after.index(True) if True in after else len(after)
            after = [at >= first for at in range(len(after))]
        else:
            matched = [was and fnmatchcase(segment, pattern) for was, segment in zip(after, segments, strict=False)]
            after = [False, *matched]
    return after[-1]


def targets_of(target: object) -> tuple[Target, ...]:
    """What `on` was given, as classes and patterns.

    Raises `TypeError` for anything but an event class, a union of them, or a pattern, `ValueError` for an empty one.
    """
    if isinstance(target, str):
        if not target or any(not segment for segment in target.split(".")):
            raise ValueError(f"a pattern must be segments with dots between them, such as 'order.*', not {target!r}")
        return (Pattern(target),)
    if get_origin(target) in (Union, UnionType):
        members: tuple[Any, ...] = get_args(target)
        return tuple(single for member in members for single in targets_of(member))
    if isinstance(target, type) and issubclass(target, Event):
        return (target,)
    raise TypeError(f"on() takes an event class, a union of event classes, or a pattern, not {target!r}")


def matches(target: Target, event_type: str) -> bool:
    """Whether events of this type are for the target. A type without a class makes `GenericEvent`s."""
    if isinstance(target, Pattern):
        return target.matches(event_type)
    cls = get_event_class(event_type) or GenericEvent
    return any(same_class(base, target) for base in cls.__mro__)
