"""JSON Schemas of frozen dataclasses, with class and attribute docstrings as descriptions."""

from dataclasses import is_dataclass
from inspect import cleandoc
from typing import Any, TypeVar

from pydantic import ConfigDict, GetCoreSchemaHandler, with_config
from pydantic_core import CoreSchema

__all__ = ["with_json_schema"]

_PREFIX = "Rapids"
"""The names of all schemas begin with it: in an OpenAPI document, the application's own models keep their names."""

Class = TypeVar("Class", bound=type)


def _describe(schema: dict[str, Any], cls: type) -> None:
    """Add what Pydantic omits: the class's docstring before 2.13, and docstrings of inherited attributes.

    Titles, which only repeat names, are removed. A field that is None by default is not required,
    although it is always present: FastAPI omits null in examples.
    """
    from pydantic import TypeAdapter  # most processes make no schema

    properties = schema["properties"]
    for described in (schema, *properties.values()):
        described.pop("title", None)
    schema["required"] = [name for name in schema["required"] if properties[name].get("default", "") is not None]
    if cls.__doc__:
        schema.setdefault("description", cleandoc(cls.__doc__))
    for base in (base for base in cls.__bases__ if is_dataclass(base)):
        inherited = TypeAdapter[Any](base).json_schema(mode="serialization")["properties"]
        for name, described in inherited.items():
            if "description" in described:
                properties[name].setdefault("description", described["description"])


@classmethod
def _named(cls: type, source: type, handler: GetCoreSchemaHandler) -> CoreSchema:
    """The class's schema under a name with the prefix."""
    schema = handler.resolve_ref_schema(handler(source))
    return {**schema, "ref": f"{_PREFIX}{cls.__name__.removeprefix(_PREFIX)}:{id(cls)}"}  # type: ignore[typeddict-item]


_configured = with_config(
    ConfigDict(
        use_attribute_docstrings=True,
        # A field with a default is also in every response.
        json_schema_serialization_defaults_required=True,
        json_schema_extra=_describe,
    )
)


def with_json_schema(cls: Class) -> Class:
    """For a dataclass that is also an HTTP response."""
    cls.__get_pydantic_core_schema__ = _named
    return _configured(cls)
