"""The Lua scripts, each a file beside this one."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

__all__ = ["Script", "load"]


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text and the SHA-1 by which the server knows it (EVALSHA)."""

    source: bytes
    sha: str


@cache
def load(name: str) -> Script:
    """The script in `<name>.lua`."""
    source = files(__name__).joinpath(f"{name}.lua").read_bytes()
    return Script(source, hashlib.sha1(source, usedforsecurity=False).hexdigest())
