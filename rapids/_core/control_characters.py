"""Control characters in texts for the log, written as escapes: such a text cannot forge a line."""

import re

__all__ = ["are_in", "escaped", "indented"]

_control = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def are_in(text: str) -> bool:
    """Whether the text has control characters."""
    return _control.search(text) is not None


def escaped(text: str) -> str:
    """The text with control characters written as escapes."""
    return _control.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def indented(text: str) -> str:
    """The lines of a text, such as a traceback, indented, each with its control characters escaped."""
    return "\n".join(f"  {escaped(line)}" for line in text.split("\n"))
