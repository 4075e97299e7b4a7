"""JSON Schemas of frozen dataclasses, with class and attribute docstrings as descriptions."""

from dataclasses import is_dataclass
from inspect import cleandoc
from typing import Any

from pydantic import ConfigDict, with_config

__all__ = ["with_json_schema"]


def _describe(schema: dict[str, Any], cls: type) -> None:
    """Add what Pydantic omits: the class's docstring before 2.13, and docstrings of inherited attributes.

    A field that is None by default is not required, although it is always present: FastAPI omits null in examples.
    """
    from pydantic import TypeAdapter  # most processes make no schema

    properties = schema["properties"]
    schema["required"] = [name for name in schema["required"] if properties[name].get("default", "") is not None]
    if cls.__doc__:
        schema.setdefault("description", cleandoc(cls.__doc__))
    for base in (base for base in cls.__bases__ if is_dataclass(base)):
        inherited = TypeAdapter[Any](base).json_schema(mode="serialization")["properties"]
        for name, described in inherited.items():
            if "description" in described:
                properties[name].setdefault("description", described["description"])


with_json_schema = with_config(
    ConfigDict(
        use_attribute_docstrings=True,
        # A field with a default is also in every response.
        json_schema_serialization_defaults_required=True,
        json_schema_extra=_describe,
    )
)
"""For a dataclass that is also an HTTP response."""
