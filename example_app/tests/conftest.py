"""The project's server fixtures, and the service running on them."""

from collections.abc import AsyncIterator

import httpx
import pytest

from example_app.app import create_app
from example_app.demo.serving import listening, serving
from example_app.settings import Settings
from tests.conftest import private_temp, pytest_collection_modifyitems, redis, redis_address, redis_url, servers

__all__ = ["private_temp", "pytest_collection_modifyitems", "redis", "redis_address", "redis_url", "servers"]

TOKEN = "a token for tests"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The person who runs the tests may have set these for the demo."""
    for name in ("RAPIDS_REDIS_URL", "RAPIDS_ADMIN_TOKEN", "EXAMPLE_STREAM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def settings(redis_url: str) -> Settings:
    return Settings(redis_url=redis_url, stream="test:orders", admin_token=TOKEN)


@pytest.fixture
async def http(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the service, which runs as it does in production: in uvicorn, with its router."""
    async with (
        serving(create_app(settings), listening(0)) as address,
        httpx.AsyncClient(base_url=address, trust_env=False, timeout=60) as client,
    ):
        yield client
