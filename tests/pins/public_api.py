"""Every public name with its signature, one line each.

Annotations stand as the source has them, defaults as they are when the code runs. A line names no module that defines
something, only public modules that export it, so that code can move without a change here.
"""

from __future__ import annotations

import ast
import enum
import importlib
import inspect
import sys
import textwrap
import typing
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from types import FunctionType, MappingProxyType, ModuleType
from typing import Any, cast

from pydantic import BaseModel

__all__ = ["lines"]

OWN = ("rapids", "rapids_fastapi")

MODULES = (
    "rapids",
    "rapids.audit",
    "rapids.background",
    "rapids.backoff",
    "rapids.clients",
    "rapids.control",
    "rapids.correlation",
    "rapids.counters",
    "rapids.dead_letters",
    "rapids.delivery",
    "rapids.embedded",
    "rapids.catalog",
    "rapids.contracts",
    "rapids.emitter",
    "rapids.environment",
    "rapids.events",
    "rapids.exceptions",
    "rapids.health",
    "rapids.hooks",
    "rapids.inspection",
    "rapids.logs",
    "rapids.metrics",
    "rapids.observers",
    "rapids.readiness",
    "rapids.redaction",
    "rapids.rehearsal",
    "rapids.router",
    "rapids.testing",
    "rapids.tracker",
    "rapids_fastapi",
)
"""The import paths that the documentation prints, and those a user sees in the package."""

OF_ITS_OWN = {"rapids_fastapi.Emits"}
"""Names that stand for something else in another module: a type checker takes both for the same, FastAPI does not."""

SPECIAL_METHODS = {
    f"__{name}__"
    for name in (
        "init",
        "call",
        "enter",
        "exit",
        "aenter",
        "aexit",
        "iter",
        "aiter",
        "await",
        "bool",
        "len",
        "contains",
    )
}
FUNCTION_NODES = (ast.FunctionDef, ast.AsyncFunctionDef)
VISIBLE_DECORATORS = {"asynccontextmanager", "contextmanager", "property", "classmethod", "staticmethod"}


def lines() -> list[str]:
    """The exports of each public module, then each exported thing once."""
    exported: dict[str, Any] = {}
    exports: list[str] = []
    for path in MODULES:
        module = importlib.import_module(path)
        for name in sorted(exported_names(module)):
            thing = getattr(module, name)
            exports.append(f"{path}.{name}")
            if exports[-1] in OF_ITS_OWN:
                name = exports[-1]
            if exported.setdefault(name, thing) is not thing:
                raise AssertionError(f"{path}.{name} is not what another module exports by this name")
    classes = {thing for thing in exported.values() if isinstance(thing, type)}
    described = [line for name in sorted(exported) for line in described_thing(name, exported[name], classes)]
    return [*exports, *described]


def exported_names(module: ModuleType) -> set[str]:
    """`__all__`, or else what the module imports as a name of its own."""
    if names := getattr(module, "__all__", None):
        return set(names)
    imports = [node for node in parsed(module.__name__).body if isinstance(node, ast.ImportFrom)]
    return {alias.asname for node in imports for alias in node.names if alias.asname == alias.name and alias.asname}


def described_thing(name: str, thing: Any, exported: set[type]) -> Iterator[str]:
    match thing:
        case type():
            yield from described_class(name, thing, exported)
        case _ if inspect.isfunction(inspect.unwrap(thing)):
            yield from described_function(name, thing)
        case _:
            yield from described_value(name, thing)


# --- functions ------------------------------------------------------------------------------------------------------


def described_function(name: str, function: Any) -> Iterator[str]:
    """Its signature, or those of its overloads."""
    for one in typing.get_overloads(inspect.unwrap(function)) or [function]:
        yield f"{name}{signature(one)}"


def signature(function: Any) -> str:
    node = source_of(function)
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        raise AssertionError(f"no source of {function}")
    parameters = inspect.signature(inspect.unwrap(function)).parameters
    annotations = {one.arg: one.annotation for one in ast.walk(node.args) if isinstance(one, ast.arg)}
    parts: list[str] = []
    for before, parameter in zip([None, *parameters.values()], parameters.values(), strict=False):
        if parameter.kind is parameter.KEYWORD_ONLY and (before is None or before.kind < parameter.VAR_POSITIONAL):
            parts.append("*")
        if before and before.kind is parameter.POSITIONAL_ONLY and parameter.kind is not parameter.POSITIONAL_ONLY:
            parts.append("/")
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        annotation = annotations.get(parameter.name)
        text = f"{stars}{parameter.name}" + (f": {written(annotation)}" if annotation else "")
        parts.append(text if parameter.default is parameter.empty else f"{text} = {value_text(parameter.default)}")
    returns = f" -> {written(node.returns)}" if node.returns else ""
    text = f"({', '.join(parts)}){returns}"
    kinds = [name for one in node.decorator_list if (name := ast.unparse(one)) in VISIBLE_DECORATORS]
    kinds += ["async"] if isinstance(node, ast.AsyncFunctionDef) else []
    return f"{text} [{', '.join(kinds)}]" if kinds else text


# --- classes --------------------------------------------------------------------------------------------------------


def described_class(name: str, cls: type, exported: set[type]) -> Iterator[str]:
    """Its bases, then its fields in order, then the rest of its members by name."""
    yield f"class {name}({', '.join(bases(cls, exported))})"
    members = {
        **dict(field_lines(cls)),
        **{f"{at}": f": {text}" if text else "" for at, text in sorted(attributes(cls).items())},
        **dict(sorted(method_lines(cls))),
    }
    for member, text in members.items():
        yield from (f"{name}.{member}{one}" for one in text.split("\n"))


def bases(cls: type, exported: set[type]) -> list[str]:
    """The direct bases by name; for a private one of ours, its own."""
    names: list[str] = []
    for base in cls.__bases__:
        if base is not object:
            names += bases(base, exported) if is_own(base) and base not in exported else [base.__name__]
    return list(dict.fromkeys(names))


def field_lines(cls: type) -> Iterator[tuple[str, str]]:
    annotations = annotations_of(cls)
    if issubclass(cls, enum.Enum):
        yield from ((member.name, f" = {member.value!r}") for member in cls)
    elif is_dataclass(cls):
        for field in fields(cls):
            if not field.name.startswith("_"):
                kind = " [keyword only]" if field.kw_only else "" if field.init else " [not an argument]"
                yield field.name, f": {annotations[field.name]}{default_of(field)}{kind}"
    elif issubclass(cls, BaseModel):
        for name, info in cls.model_fields.items():
            default = "" if info.is_required() else " = ..." if info.default_factory else f" = {info.default!r}"
            yield name, f": {annotations[name]}{default}"
    elif issubclass(cls, tuple):
        defaults = getattr(cls, "_field_defaults", {})
        for name in getattr(cls, "_fields", ()):
            yield name, f": {annotations[name]}" + (f" = {value_text(defaults[name])}" if name in defaults else "")
    elif typing.is_typeddict(cls):
        required = cast(Any, cls).__required_keys__
        yield from (
            (name, f": {text}{'' if name in required else ' [optional]'}") for name, text in annotations.items()
        )


def default_of(field: Field[Any]) -> str:
    if field.default_factory is not MISSING:
        return " = ..."
    return "" if field.default is MISSING else f" = {value_text(field.default)}"


def attributes(cls: type) -> dict[str, str]:
    """Public attributes that the class annotates or its methods set, by name, with the annotation if there is one."""
    known = {name for name, _ in field_lines(cls)}
    found: dict[str, str] = dict(annotations_of(cls))
    for node in (inner for own in own_classes(cls) for inner in ast.walk(class_node(own))):
        match node:
            case ast.AnnAssign(target=ast.Attribute(value=ast.Name(id="self"), attr=name), annotation=annotation):
                found[name] = written(annotation)
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                found.setdefault(name, "")
            case _:
                pass
    return {name: text for name, text in found.items() if name not in known and not name.startswith("_")}


def method_lines(cls: type) -> Iterator[tuple[str, str]]:
    """Public methods, properties and constants, and the special methods that the source defines."""
    seen: set[str] = set()
    for own in own_classes(cls):
        for name, value in vars(own).items():
            if name in seen:
                continue
            function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
            if inspect.isfunction(inspect.unwrap(function)):
                seen.add(name)
                if is_shown(name, own) and source_of(function) is not None:
                    overloads = typing.get_overloads(inspect.unwrap(function)) or [function]
                    yield name, "\n".join(signature(one) for one in overloads)
            elif not name.startswith("_") and is_constant(cls, name, value):
                seen.add(name)
                yield name, f" = {value_text(value)}"


def is_shown(name: str, own: type) -> bool:
    if name in SPECIAL_METHODS:  # not those that dataclasses, enumerations and named tuples generate
        return any(isinstance(node, FUNCTION_NODES) and node.name == name for node in class_node(own).body)
    return not name.startswith("_")


def is_constant(cls: type, name: str, value: object) -> bool:
    if issubclass(cls, enum.Enum) or is_dataclass(cls) or issubclass(cls, BaseModel):
        return False
    return not hasattr(value, "__get__") and name not in getattr(cls, "_fields", ())


def own_classes(cls: type) -> list[type]:
    return [one for one in cls.__mro__ if is_own(one)]


def is_own(cls: type) -> bool:
    return cls.__module__.split(".")[0] in OWN


def annotations_of(cls: type) -> dict[str, str]:
    """Annotations in the class body, those of bases first."""
    return {
        node.target.id: written(node.annotation)
        for own in reversed(own_classes(cls))
        for node in class_node(own).body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


# --- other values ---------------------------------------------------------------------------------------------------


def described_value(name: str, thing: Any) -> Iterator[str]:
    """A mapping or text by its value; anything else, such as an alias, as the source has it."""
    if isinstance(thing, MappingProxyType | dict):
        items = cast("dict[object, object]", thing)
        yield from (f"{name}[{key!r}] = {value!r}" for key, value in items.items())
    elif isinstance(thing, str | int | float | bytes):
        yield f"{name} = {thing!r}"
    else:
        yield f"{name} = {assigned_to(name, thing)}"


def assigned_to(name: str, thing: Any) -> str:
    for path, module in sorted(sys.modules.items()):
        if path.split(".")[0] in OWN and getattr(module, name, None) is thing:
            for node in parsed(path).body:
                match node:
                    case (
                        ast.Assign(targets=[ast.Name(id=target)], value=value)
                        | ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value)
                    ) if target == name and not isinstance(value, ast.Call):
                        return written(value)
                    case _:
                        pass
    return type(thing).__name__


def value_text(value: object) -> str:
    match value:
        case enum.Enum():
            return f"{type(value).__name__}.{value.name}"
        case None | bool() | int() | float() | str() | bytes():
            return repr(value)
        case tuple():
            items = cast("tuple[object, ...]", value)
            return f"({', '.join(map(value_text, items))})"
        case type() | FunctionType():
            return value.__name__
        case _:
            return f"{type(value).__name__}(...)"


# --- source ---------------------------------------------------------------------------------------------------------


@cache
def parsed(module: str) -> ast.Module:
    return ast.parse(inspect.getsource(importlib.import_module(module)))


@cache
def class_node(cls: type) -> ast.ClassDef:
    body: list[ast.stmt] = list(parsed(cls.__module__).body)
    for part in cls.__qualname__.split("."):
        found = next(node for node in body if isinstance(node, ast.ClassDef) and node.name == part)
        body = list(found.body)
    return found


def source_of(function: Any) -> ast.stmt | None:
    """The definition of a function; None for one that was generated, as a dataclass' are."""
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function)))).body[0]
    except (OSError, TypeError):
        return None


class Plain(ast.NodeTransformer):
    """Annotations without quotes and without the names of modules."""

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        if isinstance(node.value, str) and all(part.isidentifier() for part in node.value.split("[")[0].split(".")):
            try:
                return cast(ast.expr, self.visit(ast.parse(node.value, mode="eval").body))
            except SyntaxError:
                return node
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        is_literal = isinstance(node.value, ast.Name) and node.value.id in {"Literal", "Annotated"}
        return node if is_literal else cast(ast.expr, self.generic_visit(node))

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        return ast.Name(node.attr)


def written(node: ast.expr) -> str:
    return ast.unparse(Plain().visit(node))
