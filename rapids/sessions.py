"""Sessions of a browser: the credentials of a login, sealed in Redis under a secret that only the browser has."""

import re
import secrets
from hashlib import sha256, shake_256

from redis.asyncio import Redis, RedisCluster

from rapids._core.checks import stream_name
from rapids._storage.client.connections import SharedPool, call
from rapids._storage.keys import session

__all__ = ["MAX_CREDENTIALS", "OFFER_SECONDS", "SESSION_SECONDS", "Sessions"]

SESSION_SECONDS = 12 * 3600
"""Seconds after which a session ends by itself."""

OFFER_SECONDS = 600
"""Seconds after which an offer that nobody took ends by itself."""

MAX_CREDENTIALS = 8 * 1024
"""Bytes. Redis keeps them for hours, so that somebody who may log in must not fill it with long ones."""

_SECRET_BYTES = 32
_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")
"""What `secrets.token_urlsafe` makes of `_SECRET_BYTES` bytes."""

_SESSION, _OFFER = b"session", b"offer"
"""What a secret is for."""


class Sessions:
    """Sessions that all processes with one stream share, each kept for 12 hours.

    A session has the credentials of its login, not the rights that they gave: who reads them checks them again, so that
    a changed token or a withdrawn right counts at once. In Redis, they are sealed with a key stream made of the
    session's secret (SHAKE256, https://doi.org/10.6028/NIST.FIPS.202), which is random and is used once. Neither what
    Redis has nor what the browser has is enough to read them. An offer is the same for one login.

    Raises `ValueError` or `TypeError` for a stream that cannot be one.
    """

    def __init__(self, redis: Redis | RedisCluster, stream: str) -> None:
        self._stream = stream_name("stream", stream)
        self._commands = SharedPool(redis, stream)

    async def begin(self, credentials: bytes) -> str:
        """Begin a session with these credentials, and return its secret, 43 characters.

        Raises `redis.exceptions.RedisError` if Redis is unavailable.
        """
        return await self._keep(credentials, _SESSION, SESSION_SECONDS)

    async def credentials(self, secret: str) -> bytes | None:
        """The credentials of a session, or None if it has ended or never existed.

        Raises `redis.exceptions.RedisError` if Redis is unavailable.
        """
        return await self._kept(secret, _SESSION)

    async def end(self, secret: str) -> None:
        """End a session in all processes, if there is one.

        Raises `redis.exceptions.RedisError` if Redis is unavailable.
        """
        if _SECRET.fullmatch(secret):
            await call(self._commands, "DEL", self._key(secret, _SESSION))

    async def offer(self, credentials: bytes) -> str:
        """Offer one login with these credentials, such as `b"Bearer ..."`, and return its code, 43 characters.

        The dashboard logs in with it at `/rapids/#login=CODE`, once, within 10 minutes (`OFFER_SECONDS`). A browser
        sends what follows `#` to no server (https://www.rfc-editor.org/rfc/rfc3986#section-3.5), so that no log keeps
        it. Who has the code first is logged in: give it only to whom you would give the credentials.

        Raises `ValueError` for credentials of more than 8 KiB (`MAX_CREDENTIALS`), and `redis.exceptions.RedisError` if
        Redis is unavailable.
        """
        if len(credentials) > MAX_CREDENTIALS:
            raise ValueError(f"credentials must be at most {MAX_CREDENTIALS:,} bytes, not {len(credentials):,}")
        return await self._keep(credentials, _OFFER, OFFER_SECONDS)

    async def take(self, code: str) -> bytes | None:
        """The credentials of an offer, which ends with it, or None if it has ended or never existed.

        Raises `redis.exceptions.RedisError` if Redis is unavailable.
        """
        credentials = await self._kept(code, _OFFER)
        # Of all who read it, one deletes it.
        if credentials is None or not await call(self._commands, "DEL", self._key(code, _OFFER)):
            return None
        return credentials

    async def _keep(self, credentials: bytes, use: bytes, seconds: int) -> str:
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        await call(self._commands, "SET", self._key(secret, use), _sealed(credentials, secret, use), "EX", seconds)
        return secret

    async def _kept(self, secret: str, use: bytes) -> bytes | None:
        if not _SECRET.fullmatch(secret):
            return None
        stored = await call(self._commands, "GET", self._key(secret, use))
        return _sealed(stored, secret, use) if isinstance(stored, bytes) else None

    def _key(self, secret: str, use: bytes) -> str:
        # A code opens no session, and a session's secret is no code.
        return session(self._stream, sha256(use + secret.encode()).hexdigest())


def _sealed(text: bytes, secret: str, use: bytes) -> bytes:
    """The text sealed with the secret's key stream; of a sealed text, the text."""
    key_stream = shake_256(b"rapids " + use + secret.encode()).digest(len(text))
    return bytes(one ^ other for one, other in zip(text, key_stream, strict=True))
