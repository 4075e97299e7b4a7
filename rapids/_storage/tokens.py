"""What a process writes into the key by which it holds a consumer name: who it is, and since when."""

import re
import time
from uuid import uuid4

__all__ = ["made_at", "new"]


def new() -> str:
    """A token no other process has."""
    return f"{uuid4().hex}@{time.time_ns() // 1_000_000}"


def made_at(token: bytes) -> int | None:
    """When a token was made (milliseconds since 1970, by its process's clock); None where it does not say."""
    told = re.fullmatch(rb"[0-9a-f]{32}@([0-9]{1,16})", token)
    return int(told[1]) if told else None
