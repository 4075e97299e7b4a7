"""The Lua scripts, each a file beside this one."""

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

__all__ = ["Script", "load"]

_WITH = re.compile(rb"^-- with (\w+)$", re.MULTILINE)
"""A line of a script that stands for the functions of another file, which several scripts use."""


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text and the SHA-1 by which the server knows it (EVALSHA)."""

    source: bytes
    sha: str


@cache
def load(name: str) -> Script:
    """The script in `<name>.lua`."""
    source = _whole(name, set())
    return Script(source, hashlib.sha1(source, usedforsecurity=False).hexdigest())


def _whole(name: str, included: set[str]) -> bytes:
    """The text with that of the files it names, each where it is named first."""

    def text_of(found: re.Match[bytes]) -> bytes:
        part = found[1].decode()
        if part in included:
            return b""
        included.add(part)
        return _whole(part, included)

    return _WITH.sub(text_of, _text(name))


def _text(name: str) -> bytes:
    return files(__name__).joinpath(f"{name}.lua").read_bytes()
