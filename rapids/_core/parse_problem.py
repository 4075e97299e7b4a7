"""What is wrong with an event, and where in it."""

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["ParseProblem", "json_pointer", "pointer_parts"]


@dataclass(frozen=True, slots=True)
class ParseProblem:
    """One thing that is wrong with an event. Its texts are hostile input, as the letter's are."""

    location: tuple[str | int, ...]
    """Names of fields and places in lists; empty for the event as a whole. The first 32, then `…`, of a longer one."""
    message: str
    """At most 500 characters. Pydantic's own messages repeat no input; those of your validators may."""
    type: str
    """What kind: Pydantic's name for it (`missing`), or the name of the class of another error."""

    @property
    def pointer(self) -> str:
        """The location as a JSON Pointer (RFC 6901)."""
        return json_pointer(self.location)


def json_pointer(location: Iterable[str | int]) -> str:
    """A location as a JSON Pointer (https://www.rfc-editor.org/rfc/rfc6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in location)


def pointer_parts(pointer: str) -> tuple[str, ...]:
    """The parts of a JSON Pointer: names, and places in lists as text."""
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])
