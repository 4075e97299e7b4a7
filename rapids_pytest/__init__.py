"""The pytest plug-in of Rapids: options and fixtures that begin with `rapids_`. Nothing happens unless they are used.

It is a package of its own, since pytest imports every plug-in before anything else: a run of tests that do not use it
must not import Rapids, Redis and Pydantic, and a measurement of coverage must see these imports.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from rapids.testing import RecordingEmitter

__all__ = ["rapids_emitter", "rapids_environment", "rapids_server", "rapids_url"]

URL_VARIABLE = "RAPIDS_REDIS_URL"


@pytest.fixture(scope="session")
def rapids_server() -> Iterator[str]:
    """The address of an embedded server for all tests of this process. Needs the extra `embedded`.

    To test on a server of your own, override this fixture in `conftest.py`. It is emptied before tests.
    """
    from rapids.embedded import EmbeddedServer

    with EmbeddedServer() as server:
        yield server.url


@pytest.fixture
def rapids_url(rapids_server: str) -> str:
    """The address of the server, which is empty when the test begins."""
    from redis import Redis

    with Redis.from_url(rapids_server) as redis:  # pyright: ignore[reportUnknownMemberType] - its options are untyped
        redis.flushall()  # pyright: ignore[reportUnknownMemberType]
    return rapids_server


@pytest.fixture
def rapids_environment(rapids_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the empty server, which is also in `RAPIDS_REDIS_URL` during the test."""
    monkeypatch.setenv(URL_VARIABLE, rapids_url)
    return rapids_url


@pytest.fixture
def rapids_emitter() -> "RecordingEmitter":
    """An emitter that keeps what is emitted, and needs no server."""
    from rapids.testing import RecordingEmitter

    return RecordingEmitter()
