"""The house rules a linter does not know."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import rapids
import rapids_fastapi
from tests.docs.pages import pages
from tests.house import source
from tests.house import tree as code_map
from tests.house.limits import HELPERS, LIMITS

ROOT = Path(__file__).parent.parent
PACKAGES = ("rapids", "rapids_fastapi", "example_app")
MAX_LINES = 400

OURS = {
    ".gitignore",
    ".pre-commit-config.yaml",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "mkdocs.yml",
    "noxfile.py",
    "pyproject.toml",
}
FOLDERS = (*PACKAGES, "tests", ".ci", ".github", "docs")
GENERATED = {"__pycache__", ".pytest_cache", ".hypothesis", "node_modules"}


def files() -> list[Path]:
    """Every file of the project, as the repository has them."""
    inside = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    return [*(ROOT / name for name in OURS), *(path for path in inside if not GENERATED.intersection(path.parts))]


def modules(*folders: str) -> list[Path]:
    return [path for path in files() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in folders]


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def lines_with(pattern: str, paths: list[Path]) -> list[str]:
    """Where the pattern is found, as file:line."""
    return [
        f"{named(path)}:{number}"
        for path in paths
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if re.search(pattern, line)
    ]


# --- size and unused code --------------------------------------------------------------------------------------------


def test_no_module_is_longer_than_it_may_be() -> None:
    lengths = {named(path): len(path.read_text().splitlines()) for path in modules(*PACKAGES)}

    assert len(lengths) > 40, "the modules were not found"
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_nothing_is_left_to_do() -> None:
    assert lines_with(r"\b(TODO|FIXME|XXX|HACK)\b", files()) == []


def test_no_test_is_skipped_or_expected_to_fail() -> None:
    assert lines_with(r"\b(importorskip|skipif|xfail|pytest\.skip|mark\.skip|unittest\.skip)", modules(*FOLDERS)) == []


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    paths = r"(?<![\w.}])/(work|root|home|Users|opt|mnt)/\w|[A-Z]:\\\\?Users"
    registries = r"index-url|file:///|(pypi\.org|pythonhosted\.org|npmjs\.org)/(simple|packages)|/simple/"
    assert lines_with(f"{paths}|{registries}", files()) == []


# --- limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_holds(name: str) -> None:
    limit = LIMITS[name]
    against = limit.find()
    shown = "\n".join(map(str, against))
    assert not against, f"{limit.rule}. Against it are:\n{shown}"


@pytest.mark.parametrize("package", HELPERS)
def test_few_private_helpers_have_one_caller(package: str) -> None:
    share = source.helpers_with_one_caller(package)
    assert share.whole > 100, "the functions were not found"
    assert round(share.percent, 1) <= HELPERS[package], share


@pytest.mark.parametrize(
    ("name", "texts", "found"),
    [
        ("base_names", ["", "", ""], 1),
        ("base_names", ["", ""], 0),
        ("words", ["def tell_told(): ...", "class DoorKey: ...", "self.anew = told = 1"], 4),  # codespell:ignore
        ("words", ["def is_outdoor(tolds): told"], 0),  # codespell:ignore
        ("unpacked_tuples", ["f(*(a, b))", "f(*a, b)"], 1),
        ("wire_names", ["f(b'letter_id', 'letter_id', b'x')", "b'rapids:history'"], 2),
        ("key_names", ["k = f'{stream}:rapids:due:{group}'", "'rapids:due'\nlog = 'rapids: due'"], 1),
        ("small_modules", ["from rapids import two", "x = 1"], 1),
        ("small_modules", ["from rapids import two", "x = 1", "import rapids.two"], 0),
    ],
)
def test_a_violation_of_a_limit_is_found(
    name: str, texts: list[str], found: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("rapids.one", "rapids.two", "rapids.part.one")
    modules = [
        source.Module(name, f"{name}.py", len(text.splitlines()), ast.parse(text))
        for name, text in zip(names, texts, strict=False)
    ]
    monkeypatch.setattr(source, "modules", lambda: modules)
    monkeypatch.setattr(source, "scripts", lambda: ())
    monkeypatch.setattr(source, "importers", source.importers.__wrapped__)

    assert len(LIMITS[name].find()) == found


# --- private names of others ----------------------------------------------------------------------------------------


PUBLIC_ALL_THE_SAME = {"_current_frames", "_exit", "_replace", "_thread"}
"""sys._current_frames, os._exit, a named tuple's _replace and the module _thread are documented."""


OWN_PACKAGES = {path.name for path in (ROOT / "rapids").glob("_*/")}
"""Packages of ours that users must not build on."""


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


@cache
def trees() -> dict[str, ast.Module]:
    example = {named(path): ast.parse(path.read_text()) for path in modules("example_app")}
    return {module.path: module.tree for module in source.modules()} | example


def defined_names(tree: ast.Module) -> Iterator[str]:
    """Private names a module gives to its own modules, classes and instances, and to nothing else."""
    for node in source.nodes(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.Attribute(value=ast.Name(id="self" | "cls"), ctx=ast.Store()):
                yield node.attr
            case ast.Module() | ast.Constant():
                pass
            case ast.Name(ctx=ast.Store()):
                yield node.id


def private_uses(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Each use of a private name through an object, by attribute or `getattr`, and each import of one."""
    for node in source.nodes(tree):
        match node:
            case ast.Attribute() if is_private(node.attr):
                yield node.lineno, node.attr
            case ast.Call(func=ast.Name(id="getattr" | "setattr" | "hasattr"), args=[_, ast.Constant(value=name), *_]):
                if is_private(str(name)):
                    yield node.lineno, str(name)
            case ast.Import() | ast.ImportFrom():
                module = getattr(node, "module", None) or ""
                for part in (*module.split("."), *(part for alias in node.names for part in alias.name.split("."))):
                    if is_private(part) and part not in OWN_PACKAGES:
                        yield node.lineno, part


def test_no_private_name_of_another_package_is_used() -> None:
    """A private name is ours if our source defines it: a name of redis-py, FastAPI, Starlette or Pydantic is not."""
    ours = {name for tree in trees().values() for name in defined_names(tree)}
    foreign = [
        f"{path}:{line}: {name}"
        for path, tree in trees().items()
        for line, name in private_uses(tree)
        if name not in ours | PUBLIC_ALL_THE_SAME
    ]
    assert foreign == []


def test_no_private_name_is_imported() -> None:
    imported = [
        f"{path}:{node.lineno}: {alias.name}"
        for path, tree in trees().items()
        for node in source.nodes(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if is_private(name := alias.name.split(".")[-1]) and name not in PUBLIC_ALL_THE_SAME
    ]
    assert imported == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("client._pool", ["_pool"]),
        ("self._foreign", ["_foreign"]),
        ("getattr(client, '_pool')", ["_pool"]),
        ("from redis._parsers import Parser", ["_parsers"]),
        ("from pydantic import _internal", ["_internal"]),
        ("import starlette._utils", ["_utils"]),
        ("client._own = 1", ["_own"]),
        ("model.__pydantic_validator__", []),
        ("def f(self):\n self._own = 1\n return self._own", []),
        ("def _own(): ...\nmodule._own", []),
    ],
)
def test_the_search_for_private_names_finds_them(source: str, found: list[str]) -> None:
    tree = ast.parse(source)
    assert [name for _, name in private_uses(tree) if name not in set(defined_names(tree))] == found


def test_the_plug_in_and_the_example_import_only_public_names() -> None:
    hidden = [
        f"{path}:{line}: {name}"
        for path, tree in trees().items()
        if not path.startswith("rapids/")
        for line, name in names_of_the_core(tree)
        if not is_public_name(name)
    ]
    assert hidden == []


def names_of_the_core(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Modules of `rapids` and names in them that a module imports, each with its module."""
    for node in source.nodes(tree):
        match node:
            case ast.Import():
                names = [alias.name for alias in node.names]
            case ast.ImportFrom(module=str(module)):
                names = [f"{module}.{alias.name}" for alias in node.names]
            case _:
                names = []
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "rapids")


def is_public_name(name: str) -> bool:
    """A module without an underscore on its path, or a name that such a module exports."""
    if "._" in name:
        return False
    module, _, last = name.rpartition(".")
    is_module = name in {module.name for module in source.modules()}
    return is_module or last in getattr(importlib.import_module(module), "__all__", ())


@pytest.mark.parametrize(
    ("text", "is_public"),
    [
        ("from rapids import EventRouter, audit", True),
        ("import rapids.audit", True),
        ("from rapids.audit import AuditLog", True),
        ("from rapids.audit import LISTING", False),
        ("from rapids._core.paging import Listing", False),
        ("from rapids import _core", False),
        ("import rapids._core.paging", False),
    ],
)
def test_the_search_for_names_of_the_core_recognizes_public_ones(text: str, is_public: bool) -> None:
    assert all(is_public_name(name) for _, name in names_of_the_core(ast.parse(text))) == is_public


# --- public names ---------------------------------------------------------------------------------------------------


def public_names(package: ModuleType) -> dict[str, Any]:
    """`__all__`, or else what the package imports as a name of its own."""
    tree = ast.parse(inspect.getsource(package))
    imported = [
        alias.asname
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    ]
    return {name: getattr(package, name) for name in getattr(package, "__all__", imported) if name}


PUBLIC = [(package, name) for package in (rapids, rapids_fastapi) for name in public_names(package)]


def has_docstring(thing: Any) -> bool:
    """One of its own: an inherited one is about something else."""
    return bool(vars(thing).get("__doc__") if isinstance(thing, type) else thing.__doc__)


@cache
def described_aliases() -> set[str]:
    """Names assigned at the top of a module that have a string of their own right below."""
    return {
        target.id
        for tree in trees().values()
        for above, below in pairwise(tree.body)
        if isinstance(above, ast.Assign | ast.AnnAssign)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        for target in (above.targets if isinstance(above, ast.Assign) else [above.target])
        if isinstance(target, ast.Name)
    }


@pytest.mark.parametrize(("package", "name"), PUBLIC, ids=lambda value: getattr(value, "__name__", value))
def test_a_public_name_is_there_and_documented(package: ModuleType, name: str) -> None:
    thing = getattr(package, name)

    if isinstance(thing, type) or inspect.isroutine(thing):
        assert has_docstring(thing)
    else:  # an alias or an object: described where it is defined, or in the guide
        assert name in described_aliases() or any(re.search(rf"\b{name}\b", page.read_text()) for page in pages())


@pytest.mark.parametrize(("package", "name"), PUBLIC, ids=lambda value: getattr(value, "__name__", value))
def test_a_public_method_is_documented(package: ModuleType, name: str) -> None:
    thing = getattr(package, name)
    if isinstance(thing, type):
        inherited = {name for base in thing.__mro__[1:] for name in vars(base)}
        own = {name: value for name, value in vars(thing).items() if not name.startswith("_") and name not in inherited}
        methods = [name for name, value in own.items() if inspect.isroutine(value) or isinstance(value, property)]
        assert [name for name in methods if not own[name].__doc__] == []


def test_every_public_name_is_exported_once() -> None:
    assert len(rapids.__all__) == len(set(rapids.__all__))


# --- dependencies ---------------------------------------------------------------------------------------------------


def requirements() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [requirement for extra in project["optional-dependencies"].values() for requirement in extra]
    return [name for name in [*project["dependencies"], *extras] if not name.startswith(project["name"])]


@pytest.mark.parametrize("requirement", requirements())
def test_a_dependency_says_from_which_version_on(requirement: str) -> None:
    assert re.search(r"[>=]=\s*\d", requirement)


# --- the map of the code ----------------------------------------------------------------------------------------------


def test_the_map_of_the_code_names_every_module_as_it_describes_itself() -> None:
    page = code_map.PAGE.read_text()
    assert code_map.with_tree(page) == page, "run `make format`, which writes the tree in docs/architecture.md again"


def test_no_test_waits_only_five_seconds_for_an_answer() -> None:
    """httpx gives up after 5 s unless a call says otherwise, which a busy machine needs for a request now and then."""
    calls = {"get", "post", "put", "patch", "delete", "head", "options", "request", "stream", "Client", "AsyncClient"}
    found = [
        f"{named(path)}:{call.lineno}"
        for path in modules("tests", "example_app")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and ast.unparse(call.func.value) == "httpx"
        and call.func.attr in calls
        and not {"timeout", "transport"}.intersection(keyword.arg for keyword in call.keywords)
    ]
    assert not found
