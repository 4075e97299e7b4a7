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


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that find handlers which are not idempotent."""
    group = parser.getgroup("rapids", "Rapids")
    group.addoption(
        "--rapids-twice",
        action="store_true",
        help="deliver() and tracked() of rapids.testing deliver each event twice, and report what differed",
    )
    group.addoption(
        "--rapids-crash",
        action="store_true",
        help="they deliver each event again, as after a crash before its acknowledgement, and report what differed",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Tell `rapids.testing` of the options, if one is given."""
    twice, crash = config.getoption("--rapids-twice"), config.getoption("--rapids-crash")
    if twice and crash:
        raise pytest.UsageError("--rapids-twice and --rapids-crash cannot be combined: run the tests once with each")
    if twice or crash:
        from rapids.testing.repetition import repetition

        repetition.set("twice" if twice else "crash")


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
    from rapids.testing.tracked_block import FIXTURE_VARIABLE

    monkeypatch.setenv(URL_VARIABLE, rapids_url)
    monkeypatch.setenv(FIXTURE_VARIABLE, rapids_url)
    return rapids_url


@pytest.fixture
def rapids_emitter() -> "RecordingEmitter":
    """An emitter that keeps what is emitted, and needs no server."""
    from rapids.testing import RecordingEmitter

    return RecordingEmitter()
