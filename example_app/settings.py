"""The settings of a deployment."""

import os
from dataclasses import dataclass

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """The service's settings."""

    redis_url: str = "embedded:"
    """RAPIDS_REDIS_URL. The default starts a private Valkey, whose data is gone when the service stops."""
    stream: str = "example:orders"
    """EXAMPLE_STREAM. The keys of the orders begin with it too."""
    admin_token: str | None = None
    """The token of the admin. With None, Rapids reads RAPIDS_ADMIN_TOKEN; without that the admin stays closed."""

    @classmethod
    def from_environment(cls) -> "Settings":
        """The settings the environment gives, and the defaults for the rest."""
        given = {"redis_url": os.environ.get("RAPIDS_REDIS_URL", ""), "stream": os.environ.get("EXAMPLE_STREAM", "")}
        return cls(**{name: value.strip() for name, value in given.items() if value.strip()})
