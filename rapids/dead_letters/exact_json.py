"""JSON whose numbers keep their digits: a price of 48.90 stays 48.90, whatever else of a letter is changed."""

import json
from typing import Any, cast

from pydantic_core import from_json, to_json

__all__ = ["ExactFloat", "read_exact", "write_exact"]


class ExactFloat(float):
    """A number with a fraction or an exponent, and its digits as they stood in JSON.

    Raises `ValueError` for a text that is no number.
    """

    __slots__ = ("digits",)

    digits: str

    def __new__(cls, digits: str) -> "ExactFloat":
        """The number that JSON writes like that."""
        number = super().__new__(cls, digits)
        number.digits = digits
        return number


def read_exact(raw: bytes | str) -> Any:
    """A JSON value whose numbers `write_exact` writes with the same digits. Raises `ValueError`."""
    from_json(raw)  # it also refuses deep nesting and halves of surrogate pairs
    return json.loads(raw, parse_float=ExactFloat)


def write_exact(value: object) -> bytes:
    """The JSON of a value. Raises what `pydantic_core.to_json` raises, which writes everything that is not exact."""
    if isinstance(value, ExactFloat):
        return value.digits.encode()
    if type(value) is list:
        return b"[" + b",".join(map(write_exact, cast("list[object]", value))) + b"]"
    if type(value) is dict:
        members = cast("dict[object, object]", value)
        if all(type(name) is str for name in members):
            return b"{" + b",".join(to_json(one) + b":" + write_exact(member) for one, member in members.items()) + b"}"
    return to_json(value)
