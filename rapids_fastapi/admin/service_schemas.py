"""What goes over HTTP of the admin itself: what it can do, who asks, whether the process is well."""

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from rapids_fastapi.admin.auth import Permission
from rapids_fastapi.admin.schemas import Scope

__all__ = ["Capabilities", "Health", "Queue", "User"]

_USER = {"name": "ann", "permissions": ["read", "replay"]}
_QUEUE = {"name": "{orders}:dlq", "groups": ["payments"]}


def _shown(example: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"example": example})


class User(BaseModel):
    """Who asks."""

    model_config: ClassVar[ConfigDict] = _shown(_USER)

    name: str
    permissions: list[Permission]


class Queue(BaseModel):
    """A dead-letter queue, and the groups of this process that write to it."""

    model_config: ClassVar[ConfigDict] = _shown(_QUEUE)

    name: str
    groups: list[str]


class Capabilities(BaseModel):
    """What this admin can do, and what the one who asks may."""

    model_config: ClassVar[ConfigDict] = _shown(
        {
            "version": "0.2.0",
            "user": _USER,
            "dead_letter_queues": [_QUEUE],
            "streams": ["orders"],
            "replay_scopes": ["handler", "group", "everyone"],
            "max_page": 200,
            "max_body": 65536,
        }
    )

    version: str
    user: User
    dead_letter_queues: list[Queue]
    streams: list[str]
    replay_scopes: list[Scope]
    max_page: int
    max_body: int = Field(description="Bytes of a request's body.")


class Health(BaseModel):
    """One word."""

    model_config: ClassVar[ConfigDict] = _shown({"status": "ok"})

    status: Literal["ok"]
