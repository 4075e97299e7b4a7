"""Base classes of the models of requests and answers. Docstrings of attributes are their descriptions in OpenAPI.

The frozen dataclasses of `rapids` are response models as they are. Only a redacted or combined answer has a model of
its own, in the module of its resource.
"""

from typing import Annotated, Any, ClassVar, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["MAX_NAME", "MAX_REASON", "Answer", "Reason", "Request", "example"]

MAX_NAME = 512
"""Characters of the name of a stream, a group, a consumer or a dead-letter queue."""

MAX_REASON = 1_000

Reason: TypeAlias = Annotated[str, Field(max_length=MAX_REASON)]


class Request(BaseModel):
    """The body of a request, or a part of it. Unknown fields are refused."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Answer(BaseModel):
    """The body of an answer, or a part of it. Pydantic can make it from an object with the same attributes."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True,
        from_attributes=True,
        use_attribute_docstrings=True,
    )


def example(**fields: Any) -> ConfigDict:
    """The configuration of a request model, with an example for OpenAPI."""
    return ConfigDict(json_schema_extra={"example": fields})
