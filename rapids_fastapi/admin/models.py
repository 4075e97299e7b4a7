"""What the models of requests and answers have in common: docstrings of attributes are the descriptions in OpenAPI.

An answer that shows what the core knows has no model here: the frozen dataclasses of `rapids` are the models. Only what
is redacted, or combined with more, has one of its own, in the module of its resource.
"""

from typing import Annotated, Any, ClassVar, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["MAX_NAME", "MAX_REASON", "Answer", "Reason", "Request", "example"]

MAX_NAME = 512
"""Characters of the name of a stream, a group, a consumer or a dead-letter queue."""

MAX_REASON = 1_000

Reason: TypeAlias = Annotated[str, Field(max_length=MAX_REASON)]


class Request(BaseModel):
    """A request's body, or a part of it. Unknown fields are refused."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Answer(BaseModel):
    """An answer's body, or a part of it. It may be made from an object that has the same attributes."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True,
        from_attributes=True,
        use_attribute_docstrings=True,
    )


def example(**fields: Any) -> ConfigDict:
    """The configuration of a request's model with this example."""
    return ConfigDict(json_schema_extra={"example": fields})
