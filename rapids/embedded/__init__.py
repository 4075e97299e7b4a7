"""The embedded server: a private Valkey server from a wheel, for development, demos and tests."""

from rapids.embedded.ownership import EmbeddedServerError, EmbeddedServerMissingError
from rapids.embedded.server import EmbeddedServer, embedded_server, is_embedded_url, open_embedded

__all__ = [
    "EmbeddedServer",
    "EmbeddedServerError",
    "EmbeddedServerMissingError",
    "embedded_server",
    "is_embedded_url",
    "open_embedded",
]
