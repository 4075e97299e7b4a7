"""Sessions of a browser: the credentials of a login, sealed in Redis under a secret that only the browser has."""

import re
import secrets
from hashlib import sha256, shake_256

from redis.asyncio import Redis, RedisCluster

from rapids._core.checks import stream_name
from rapids._storage.client.connections import SharedPool, call
from rapids._storage.keys import session

__all__ = ["SESSION_SECONDS", "Sessions"]

SESSION_SECONDS = 12 * 3600
"""Seconds after which a session ends by itself."""

_SECRET_BYTES = 32
_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")
"""What `secrets.token_urlsafe` makes of `_SECRET_BYTES` bytes."""


class Sessions:
    """Sessions that all processes with one stream share, each kept for 12 hours.

    A session has the credentials of its login, not the rights that they gave: who reads them checks them again, so that
    a changed token or a withdrawn right counts at once. In Redis, they are sealed with a key stream made of the
    session's secret (SHAKE256, https://doi.org/10.6028/NIST.FIPS.202), which is random and is used once. Neither what
    Redis has nor what the browser has is enough to read them.

    Raises `ValueError` or `TypeError` for a stream that cannot be one.
    """

    def __init__(self, redis: Redis | RedisCluster, stream: str) -> None:
        self._stream = stream_name("stream", stream)
        self._commands = SharedPool(redis, stream)

    async def begin(self, credentials: bytes) -> str:
        """Begin a session with these credentials, and return its secret, 43 characters.

        Raises `redis.exceptions.RedisError` if Redis is unavailable.
        """
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        await call(self._commands, "SET", self._key(secret), _sealed(credentials, secret), "EX", SESSION_SECONDS)
        return secret

    async def credentials(self, secret: str) -> bytes | None:
        """The credentials of a session, or None if it has ended or never existed.

        Raises `redis.exceptions.RedisError` if Redis is unavailable.
        """
        if not _SECRET.fullmatch(secret):
            return None
        stored = await call(self._commands, "GET", self._key(secret))
        return _sealed(stored, secret) if isinstance(stored, bytes) else None

    async def end(self, secret: str) -> None:
        """End a session in all processes, if there is one.

        Raises `redis.exceptions.RedisError` if Redis is unavailable.
        """
        if _SECRET.fullmatch(secret):
            await call(self._commands, "DEL", self._key(secret))

    def _key(self, secret: str) -> str:
        return session(self._stream, sha256(secret.encode()).hexdigest())


def _sealed(text: bytes, secret: str) -> bytes:
    """The text sealed with the secret's key stream; of a sealed text, the text."""
    key_stream = shake_256(b"rapids session" + secret.encode()).digest(len(text))
    return bytes(one ^ other for one, other in zip(text, key_stream, strict=True))
