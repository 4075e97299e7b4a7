"""What the source looks like: every module is read and parsed once."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = [
    "PACKAGES",
    "ROOT",
    "Module",
    "Share",
    "base_names_used_twice",
    "calls_with_unpacked_tuples",
    "helpers_with_one_caller",
    "key_names_outside",
    "modules",
    "names_in_ing",
    "nodes",
    "replaced_words_in_names",
    "scripts",
    "small_modules_with_one_importer",
    "wire_names_outside",
]

ROOT = Path(__file__).parents[2]
PACKAGES = ("rapids", "rapids_fastapi")

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True, eq=False)
class Module:
    """One module of the packages."""

    name: str
    """With the package: `rapids.emitter`; a package's own module has the package's name."""
    path: str
    """Below the repository's folder, with slashes."""
    lines: int
    tree: ast.Module

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]

    @property
    def is_package(self) -> bool:
        return self.path.endswith("__init__.py")

    @property
    def base_name(self) -> str:
        return self.name.rpartition(".")[2]


@cache
def modules() -> tuple[Module, ...]:
    """Every module of both packages."""
    paths = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return tuple(parsed(path) for path in paths)


def parsed(path: Path) -> Module:
    parts = path.relative_to(ROOT).with_suffix("").parts
    text = path.read_text(encoding="utf-8")
    name = ".".join(parts).removesuffix(".__init__")
    return Module(name, path.relative_to(ROOT).as_posix(), len(text.splitlines()), ast.parse(text))


@cache
def nodes(tree: ast.Module) -> tuple[ast.AST, ...]:
    """Every node of a tree."""
    return tuple(ast.walk(tree))


# --- names ----------------------------------------------------------------------------------------------------------


def base_names_used_twice() -> list[str]:
    """Base names of two modules or more. The admin has one module for each resource, which may share its name."""
    counted = Counter(module.base_name for module in modules() if not module.is_package and not is_resource(module))
    return sorted(name for name, count in counted.items() if count > 1)


def is_resource(module: Module) -> bool:
    return any(
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "APIRouter"
        for node in nodes(module.tree)
    ) and module.name.startswith("rapids_fastapi.admin.")


NOUNS_IN_ING = {"encoding", "listing", "paging", "testing"}
"""Nouns of the field itself."""


def names_in_ing() -> list[str]:
    return [
        module.name for module in modules() if module.base_name.endswith("ing") and module.base_name not in NOUNS_IN_ING
    ]


@cache
def replaced_words() -> frozenset[str]:
    """The words that the glossary replaces."""
    lines = (ROOT / "tests" / "house" / "words.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(line.partition("->")[0] for line in lines)


def replaced_words_in_names() -> list[str]:
    """Names with a word that the glossary replaces. codespell does not look inside of `snake_case` names."""
    return [
        f"{module.path}: {name}"
        for module in modules()
        for name in sorted(set(given_names(module)))
        if not replaced_words().isdisjoint(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().split("_"))
    ]


def given_names(module: Module) -> Iterator[str]:
    for node in nodes(module.tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name
            case _:
                pass


# --- private helpers ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Share:
    """How many of how many."""

    part: int
    whole: int

    @property
    def percent(self) -> float:
        return 100 * self.part / self.whole if self.whole else 0.0


def helpers_with_one_caller(*packages: str) -> Share:
    """Private functions and methods that their module names exactly once, of all functions."""
    functions = one = 0
    for module in modules():
        if module.package in packages:
            names = [node.name for node in nodes(module.tree) if isinstance(node, FUNCTIONS)]
            used = Counter(uses(module))
            functions += len(names)
            one += sum(used[name] == 1 for name in names if is_private(name))
    return Share(one, functions)


def uses(module: Module) -> Iterator[str]:
    for node in nodes(module.tree):
        match node:
            case ast.Name(id=name, ctx=ast.Load()) | ast.Attribute(attr=name):
                yield name
            case _:
                pass


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


# --- imports --------------------------------------------------------------------------------------------------------


@cache
def importers() -> Mapping[str, frozenset[str]]:
    """Each module's importers, packages that pass a name on included."""
    known = {module.name for module in modules()}
    found: dict[str, set[str]] = defaultdict(set)
    for module in modules():
        for name in imported(module):
            if name in known and name != module.name:
                found[name].add(module.name)
    return {name: frozenset(found[name]) for name in known}


def imported(module: Module) -> Iterator[str]:
    """The modules it imports, or imports names from. A package that a module is imported from is not meant."""
    known = {module.name for module in modules()}
    for node in nodes(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in known else node.module


def small_modules_with_one_importer(limit: int) -> list[str]:
    """Modules shorter than `limit` lines that only one module imports. Packages are left out."""
    return [
        f"{module.name} ({module.lines} lines): {importer}"
        for module in modules()
        if module.lines < limit and not module.is_package and len(importers()[module.name]) == 1
        for importer in importers()[module.name]
    ]


# --- calls and texts ------------------------------------------------------------------------------------------------


def calls_with_unpacked_tuples() -> list[str]:
    """Calls with `*(a, b)`: keywords say what is what."""
    return [
        f"{module.path}:{node.lineno}"
        for module in modules()
        for node in nodes(module.tree)
        if isinstance(node, ast.Call)
        for argument in node.args
        if isinstance(argument, ast.Starred) and isinstance(argument.value, ast.Tuple)
    ]


def texts(module: Module) -> Iterator[tuple[int, str]]:
    """The texts in its code, parts of formatted ones included, docstrings and annotations left out."""
    silent = {id(node.value) for node in nodes(module.tree) if isinstance(node, ast.Expr)}
    for node in nodes(module.tree):
        if isinstance(node, ast.Constant) and id(node) not in silent:
            if isinstance(node.value, str):
                yield node.lineno, node.value
            elif isinstance(node.value, bytes):
                yield node.lineno, node.value.decode(errors="replace")


def wire_names_outside(*packages: str) -> list[str]:
    """Names of fields on the wire, as bytes, outside of the packages that know them."""
    names = {line.split(": ", 1)[1].split(" = ")[0] for line in pin("wire_format") if " = b" in line}
    return [
        f"{module.path}:{node.lineno}: {node.value.decode(errors='replace')}"
        for module in modules()
        if not module.name.startswith(packages)
        for node in nodes(module.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, bytes)
        if node.value.decode(errors="replace") in names or node.value.startswith((b"rapids:history", b"rapids:letter"))
    ]


def key_names_outside(home: str) -> list[str]:
    """Names of keys, or parts of them, in the core outside of the module that names keys, and in scripts."""
    parts = "|".join(sorted({found[1] for line in pin("key_names") if (found := re.search(r"rapids:([a-z-]+)", line))}))
    part = re.compile(rf"rapids:({parts})\b|^:(dlq|rapids|errors|fingerprints)$")
    in_python = [
        f"{module.path}:{line}: {text}"
        for module in modules()
        if module.package == "rapids" and module.base_name != home
        for line, text in texts(module)
        if part.search(text)
    ]
    in_lua = [
        f"{path.relative_to(ROOT).as_posix()}:{number}: {text}"
        for path in scripts()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for text in re.findall(r"'([^']*)'", line.partition("--")[0])
        if part.search(text)
    ]
    return in_python + in_lua


def pin(name: str) -> list[str]:
    return (ROOT / "tests" / "pins" / f"{name}.txt").read_text(encoding="utf-8").splitlines()


@cache
def scripts() -> tuple[Path, ...]:
    """Every Lua script."""
    return tuple(sorted((ROOT / "rapids").rglob("*.lua")))
