"""The Lua scripts, one file for each in this folder. Shared code is in `lib/` and included by name."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import orjson

from rapids._storage.keys import IN_SCRIPTS

__all__ = ["Script", "assemble", "load", "options"]

_INCLUDE = re.compile(r"-- include: (lib/\w+\.lua)")
"""A line that includes the text of another file. A file that is included twice appears once, at its first place."""

_NAME = re.compile(r"\$([A-Z_]+)")
"""A placeholder for a name that `keys.py` defines for the scripts."""

_POSITION = re.compile(r"@?user_script:(\d+)")
"""The position of an error as servers report it: a line of the text that was sent."""


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text, and the SHA-1 by which the server identifies it (EVALSHA)."""

    source: bytes
    sha: str
    lines: tuple[str, ...] = ()
    """For each line of the text, the file it came from and the line there, such as `settle.lua:12`."""

    def located(self, message: str) -> str:
        """A server's error message with positions in files instead of positions in the text."""
        return _POSITION.sub(self._position, message)

    def _position(self, found: re.Match[str]) -> str:
        line = int(found[1])
        return self.lines[line - 1] if 1 <= line <= len(self.lines) else found[0]


@cache
def load(name: str) -> Script:
    """The script in `<name>.lua`. Raises `ValueError` for an include line that names no file of `lib/`."""
    return assemble(f"{name}.lua", _text(f"{name}.lua"))


def options(**values: Any) -> bytes:
    """Named options of a script, as one argument: what JSON can hold. Names that may be any bytes are arguments."""
    return orjson.dumps(values)


def assemble(file: str, text: str) -> Script:
    """A script made of its text and the files it includes. Raises `ValueError` for a file that is not in `lib/`."""
    lines = list(_lines(file, text, set()))
    source = "".join(f"{text}\n" for _, text in lines).encode()
    sha = hashlib.sha1(source, usedforsecurity=False).hexdigest()
    return Script(source, sha, tuple(position for position, _ in lines))


def _lines(file: str, text: str, included: set[str]) -> Iterator[tuple[str, str]]:
    """The position and the text of each line of a file, and of the files it includes."""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith("-- include"):
            yield f"{file}:{number}", line
            continue
        include = _INCLUDE.fullmatch(line)
        if include is None or not files(__name__).joinpath(include[1]).is_file():
            raise ValueError(f"{file}:{number} includes a file that is not there: {line}")
        if include[1] not in included:
            included.add(include[1])
            yield from _lines(include[1], _text(include[1]), included)


def _text(file: str) -> str:
    text = files(__name__).joinpath(file).read_text(encoding="utf-8")
    return _NAME.sub(lambda name: IN_SCRIPTS[name[1]], text)
