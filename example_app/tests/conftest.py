"""The service, running on the server of `rapids.testing`."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from example_app.app import create_app
from example_app.demo.serving import listening, serving
from example_app.settings import Settings
from rapids.clients import RedisClient, open_client
from tests.conftest import private_temp, pytest_collection_modifyitems
from tests.support import NO_TLS

__all__ = ["private_temp", "pytest_collection_modifyitems"]

TOKEN = "a token for tests"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The person who runs the tests may have set these for the demo."""
    for name in ("RAPIDS_REDIS_URL", "RAPIDS_ADMIN_TOKEN", "EXAMPLE_STREAM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def redis_url(rapids_url: str) -> str:
    return rapids_url


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[RedisClient]:
    async with open_client(redis_url) as client:
        yield client


@pytest.fixture
def settings(redis_url: str) -> Settings:
    return Settings(redis_url=redis_url, stream="test:orders", admin_token=TOKEN)


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the service, which runs as it does in production: in uvicorn, with its router."""
    async with (
        serving(app, listening(0)) as address,
        httpx.AsyncClient(base_url=address, trust_env=False, timeout=60, verify=NO_TLS) as client,
    ):
        yield client
