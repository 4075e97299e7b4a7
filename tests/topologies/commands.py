"""Which commands Rapids sends, read from its source: what an ACL user must be allowed, and nothing else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import rapids._storage

STORAGE = Path(rapids._storage.__file__).parent
IN_LUA = re.compile(r"(?:redis\.p?call\(|\{)'([A-Z]+)'(?:, *'([A-Z]+)')?")


def commands_sent(known: set[str]) -> set[str]:
    """As ACL rules name them, `xadd` or `xinfo|stream`. `known`: what the server has, named in the same way."""
    called = [words for path in STORAGE.rglob("*.py") for words in _in_python(path.read_text())]
    called += [found for path in STORAGE.rglob("*.lua") for found in IN_LUA.findall(path.read_text())]
    both = {("|".join(words).lower(), words[0].lower()) for words in called}
    return {whole if whole in known else first for whole, first in both if first in known}


def _in_python(source: str) -> Iterator[tuple[str, str]]:
    """The first two words of each sequence of arguments that begins with a word in capitals."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                pass
            case ast.Call(args=parts):
                parts = parts[1:]  # after the connection
            case _:
                continue
        words = [_word(part) for part in parts[:2]]
        if words and words[0]:
            yield words[0], (*words, "")[1]


def _word(node: ast.expr) -> str:
    value = node.value if isinstance(node, ast.Constant) else ""
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return text if re.fullmatch("[A-Z]+", text) else ""
