"""Base classes of the models of requests and answers. Docstrings of attributes are their descriptions in OpenAPI.

The frozen dataclasses of `rapids` are response models as they are. Only a redacted or combined answer has a model of
its own, in the module of its resource.
"""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, TypeAlias

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from pydantic_core.core_schema import list_schema
from starlette.concurrency import run_in_threadpool

from rapids_fastapi.admin.problems import RapidsProblem

__all__ = ["MAX_NAME", "MAX_REASON", "Answer", "Model", "Reason", "Request", "example", "made_in_a_thread"]

MAX_NAME = 512
"""Characters of the name of a stream, a group, a consumer or a dead-letter queue."""

MAX_REASON = 1_000

Reason: TypeAlias = Annotated[str, Field(max_length=MAX_REASON)]


class Model(BaseModel):
    """In OpenAPI, its name begins with `Rapids`, so that the application's own models keep their names."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Rename the class. Only now: Pydantic has found its source by its own name, and the docstrings in it."""
        name = f"Rapids{cls.__name__.removeprefix('Rapids')}"
        for attribute in ("__name__", "__qualname__"):
            setattr(cls, attribute, name)
        return handler(source)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The schema without titles, which only repeat names."""
        # This puts the schema of problems in the document. FastAPI does so only for what is application/json.
        handler(list_schema(RapidsProblem.__pydantic_core_schema__))
        schema = handler(core_schema)
        found = handler.resolve_ref_schema(schema)
        for described in (found, *found.get("properties", {}).values()):
            described.pop("title", None)
        return schema


class Request(Model):
    """The body of a request, or a part of it. Unknown fields are refused."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Answer(Model):
    """The body of an answer, or a part of it. Pydantic can make it from an object with the same attributes."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True,
        from_attributes=True,
        use_attribute_docstrings=True,
    )


async def made_in_a_thread(make: Callable[[], Answer]) -> Response:
    """A large answer. FastAPI would write it in the event loop, where all requests of the application wait for it."""
    shown = await run_in_threadpool(lambda: make().model_dump_json(by_alias=True))
    return Response(shown, media_type="application/json")


def example(**fields: Any) -> ConfigDict:
    """The configuration of a model with an example for OpenAPI."""
    return ConfigDict(json_schema_extra={"example": fields})
