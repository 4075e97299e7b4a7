"""The shape of OpenAPI: operations, parameters, answers and schemas, without texts and examples.

It holds for every version of FastAPI and Pydantic that we allow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tests.fastapi.admin_paths import document

__all__ = ["lines"]


def lines() -> list[str]:
    return [*operations(document()["paths"]), *schemas(document()["components"])]


def operations(paths: Mapping[str, Any]) -> Iterator[str]:
    for path, methods in sorted(paths.items()):
        for method, operation in sorted(methods.items()):
            title = f"{method.upper()} {path}"
            yield f"{title} = {operation['operationId']}"
            for parameter in operation.get("parameters", ()):
                required = " [required]" if parameter.get("required") else ""
                yield f"{title} {parameter['in']} {parameter['name']}: {shape(parameter['schema'])}{required}"
            for kind, media in operation.get("requestBody", {}).get("content", {}).items():
                yield f"{title} body {kind}: {shape(media.get('schema', {}))}"
            for status, answer in sorted(operation["responses"].items()):
                for kind, media in answer.get("content", {"-": {}}).items():
                    yield f"{title} {status} {kind}: {shape(media.get('schema', {}))}"


def schemas(components: Mapping[str, Any]) -> Iterator[str]:
    for name, scheme in sorted(components.get("securitySchemes", {}).items()):
        yield f"security {name} = {scheme['type']} {scheme.get('scheme', '')}"
    for name, schema in sorted(components["schemas"].items()):
        if "properties" not in schema:
            yield f"schema {name}: {shape(schema)}"
            continue
        for field, described in schema["properties"].items():
            required = " [required]" if field in schema.get("required", ()) else ""
            yield f"schema {name}.{field}: {shape(described)}{required}"


def shape(schema: Mapping[str, Any]) -> str:
    """A schema's type in one line."""
    if reference := schema.get("$ref"):
        return reference.rpartition("/")[2]
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return " | ".join(shape(one) for one in schema[several])
    if "enum" in schema or "const" in schema:
        return " | ".join(repr(value) for value in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type", "any")
    if kind == "array":
        return f"array of {shape(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return f"object of {shape(schema['additionalProperties'])}"
    return f"{kind} ({schema['format']})" if "format" in schema else str(kind)
