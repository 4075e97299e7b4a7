"""Requests without the lifespan's state: the error says what to do. And dependencies that collect events."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from rapids import BaseEvent, EventEmitter
from rapids.exceptions import NotConfiguredError
from rapids_fastapi import CorrelationMiddleware, EmitterDep, OnSuccessEmitterDep, Rapids
from tests.fastapi.helpers import entries

STREAM = "fa:misuse"


class FaMisuseNoted(BaseEvent):
    n: int


class TestWithoutLifespanState:
    """What the error says to do."""

    @pytest.fixture
    def app(self, redis_url: str) -> FastAPI:
        app = FastAPI(lifespan=Rapids(url=redis_url).lifespan)

        @app.post("/")
        async def emit(emitter: EmitterDep) -> None: ...

        return app

    async def test_httpx_does_not_run_the_lifespan(self, app: FastAPI) -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
            with pytest.raises(NotConfiguredError, match=r"ASGITransport does not run it.*manager\.app"):
                await client.post("/")

    async def test_the_lifespan_runs_but_requests_have_no_state(self, app: FastAPI) -> None:
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client,
        ):
            with pytest.raises(NotConfiguredError, match=r"^Rapids is running, but .*must yield it.*app=manager\.app"):
                await client.post("/")


@pytest.mark.parametrize("scope", ["function", "request"])
def test_a_dependency_of_any_scope_may_collect_events(redis_url: str, scope: Any) -> None:
    """FastAPI refuses a dependency that ends after one that it takes (`DependencyScopeError`)."""

    async def unit_of_work(events: OnSuccessEmitterDep) -> AsyncIterator[None]:
        events.emit(FaMisuseNoted(n=1))
        yield

    app = FastAPI(lifespan=Rapids(url=redis_url, emitter=EventEmitter(stream=STREAM)).lifespan)
    app.add_middleware(CorrelationMiddleware)

    @app.post("/")
    async def place(work: Annotated[None, Depends(unit_of_work, scope=scope)]) -> None: ...

    with TestClient(app) as client:
        assert client.post("/").status_code == 200
    assert [entry["event_type"] for entry in entries(redis_url, STREAM)] == [FaMisuseNoted.event_type]
