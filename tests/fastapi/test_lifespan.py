from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.testclient import TestClient
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from rapids import BaseEvent, EventEmitter, EventRouter
from rapids.exceptions import NotConfiguredError, RapidsError, RedisUnavailableError
from rapids_fastapi import EmitterDep, Rapids, get_emitter, plugin, rapids_admin
from tests.fastapi.helpers import entries, until
from tests.support import eventually, free_port, idle_router


class FaLifeNoted(BaseEvent):
    n: int


def rapids_tasks() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("rapids")]


async def test_it_runs_routers_and_emits_while_the_block_lasts(redis_url: str) -> None:
    seen: list[int] = []
    router = EventRouter(stream="fa:life", group="g")

    @router.on(FaLifeNoted)
    async def note(event: FaLifeNoted) -> None:
        seen.append(event.n)

    rapids = Rapids(routers=[router], url=redis_url)
    async with rapids.lifespan():
        assert router.running
        assert "rapids-router:g@fa:life" in rapids_tasks()
        await rapids.emitter.emit(FaLifeNoted(n=1))
        await eventually(lambda: seen == [1])
    assert not router.running
    assert rapids_tasks() == []


async def test_a_write_whose_caller_was_cancelled_is_waited_for_before_the_client_is_closed(
    redis: Redis, redis_url: str
) -> None:
    rapids = Rapids(emitter=EventEmitter(stream="fa:drained"), url=redis_url)
    async with rapids.lifespan():
        await rapids.emitter.emit(FaLifeNoted(n=0))
        await redis.client_pause(300, all=False)
        emitting = asyncio.create_task(rapids.emitter.emit(FaLifeNoted(n=1)))
        await eventually(lambda: "rapids:fa:drained:writer" in rapids_tasks())
        emitting.cancel()
    assert rapids_tasks() == []
    assert await redis.xlen("fa:drained") == 2


async def test_the_environments_address_is_read_at_start(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rapids = Rapids(emitter=EventEmitter(stream="fa:life"))
    monkeypatch.setenv("RAPIDS_REDIS_URL", redis_url)
    async with rapids.lifespan():
        await rapids.emitter.emit(FaLifeNoted(n=1))
    assert len(entries(redis_url, "fa:life")) == 1


async def test_a_client_of_the_user_is_used_and_not_closed(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[object] = []
    with monkeypatch.context() as patched:
        patched.setattr(Redis, "aclose", lambda client: closed.append(client))
        async with Rapids(emitter=EventEmitter(stream="fa:life"), redis=redis).lifespan() as state:
            assert state["rapids"].redis is redis
    assert redis not in closed
    assert await redis.ping()


async def test_our_own_client_is_closed(redis_url: str, redis: Redis) -> None:
    before = len(await redis.client_list())
    async with Rapids(routers=[idle_router(stream="fa:life")], url=redis_url).lifespan():
        assert len(await redis.client_list()) > before
    await eventually(lambda: _count_is(redis, before))


async def _count_is(redis: Redis, count: int) -> bool:
    return len(await redis.client_list()) == count


async def test_an_emitter_that_has_a_client_keeps_it(redis: Redis) -> None:
    emitter = EventEmitter(redis, stream="fa:life")
    rapids = Rapids(emitter=emitter, url="unix:///nowhere.sock", connect_timeout=2)
    with pytest.raises(RedisUnavailableError):
        async with rapids.lifespan():
            pass
    await emitter.emit(FaLifeNoted(n=1))


def test_one_application_starts_three_times_on_three_loops(redis_url: str) -> None:
    seen: list[int] = []
    router = EventRouter(stream="fa:life", group="g")

    @router.on(FaLifeNoted)
    async def note(event: FaLifeNoted) -> None:
        seen.append(event.n)

    app = FastAPI(lifespan=Rapids(routers=[router], url=redis_url).lifespan)
    app.include_router(rapids_admin)

    @app.post("/{n}")
    async def emit(n: int, emitter: EmitterDep) -> str:
        return await emitter.emit(FaLifeNoted(n=n))

    loops = set[int]()
    for n in (1, 2, 3):
        with TestClient(app) as client:
            assert client.post(f"/{n}").status_code == 200
            assert client.get("/rapids/health/ready").status_code == 200
            until(lambda n=n: seen == list(range(1, n + 1)))
            loops.add(n)
    assert loops == {1, 2, 3}


def test_embedded_starts_three_times_too(monkeypatch: pytest.MonkeyPatch) -> None:
    app = FastAPI(lifespan=Rapids(url="embedded:", emitter=EventEmitter(stream="fa:life")).lifespan)

    @app.post("/")
    async def emit(emitter: EmitterDep) -> str:
        return await emitter.emit(FaLifeNoted(n=1))

    for _ in range(3):
        with TestClient(app) as client:
            assert client.post("/").status_code == 200


async def test_it_does_not_run_twice_at_once(redis_url: str) -> None:
    rapids = Rapids(url=redis_url)
    async with rapids.lifespan():
        with pytest.raises(NotConfiguredError, match="running already"):
            async with rapids.lifespan():
                pass


class TestInsideAnApplication:
    def test_a_lifespan_of_ones_own(self, redis_url: str) -> None:
        rapids = Rapids(url=redis_url, emitter=EventEmitter(stream="fa:life"))

        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
            async with rapids.lifespan(app) as state:
                yield {**state, "mine": 7}

        app = FastAPI(lifespan=lifespan)

        @app.post("/")
        async def emit(request: Request, emitter: EmitterDep) -> int:
            await emitter.emit(FaLifeNoted(n=1))
            return request.state.mine

        with TestClient(app) as client:
            assert client.post("/").json() == 7

    def test_a_mounted_application_sees_it(self, redis_url: str) -> None:
        app = FastAPI(lifespan=Rapids(url=redis_url, emitter=EventEmitter(stream="fa:life")).lifespan)
        inner = FastAPI()

        @inner.post("/")
        async def emit(emitter: EmitterDep) -> str:
            return await emitter.emit(FaLifeNoted(n=1))

        inner.include_router(rapids_admin)
        app.mount("/inner", inner)
        with TestClient(app) as client:
            assert client.post("/inner/").status_code == 200
            assert client.get("/inner/rapids/health/ready").status_code == 200
        assert len(entries(redis_url, "fa:life")) == 1

    def test_plain_starlette(self, redis_url: str) -> None:
        async def emit(request: Request) -> JSONResponse:
            return JSONResponse(await get_emitter(request).emit(FaLifeNoted(n=1)))

        rapids = Rapids(url=redis_url, emitter=EventEmitter(stream="fa:life"))
        app = Starlette(routes=[Route("/", emit, methods=["POST"])], lifespan=rapids.lifespan)
        with TestClient(app) as client:
            assert client.post("/").status_code == 200
        assert len(entries(redis_url, "fa:life")) == 1

    def test_without_the_lifespan_the_error_says_what_to_add(self, redis_url: str) -> None:
        rapids = Rapids(url=redis_url)

        @asynccontextmanager
        async def forgetful(app: FastAPI) -> AsyncIterator[None]:
            async with rapids.lifespan(app):
                yield

        for app, says in (
            (FastAPI(), r"lifespan=rapids\.lifespan"),
            (FastAPI(lifespan=forgetful), "must yield it: `async with"),
        ):

            @app.post("/")
            async def emit(emitter: EmitterDep) -> None:
                raise AssertionError("never called")

            with (
                TestClient(app) as client,
                pytest.raises(NotConfiguredError, match=says) as error,
            ):
                client.post("/")
            assert isinstance(error.value, RapidsError)
            assert "yield state" in str(error.value)


class TestStartFails:
    async def test_one_line_without_the_password(self, caplog: pytest.LogCaptureFixture) -> None:
        url = f"redis://me:hunter2@127.0.0.1:{free_port()}/0"
        with pytest.raises(RedisUnavailableError) as error:
            async with Rapids(url=url).lifespan():
                pass
        text = str(error.value)
        assert text.startswith("cannot reach Redis at redis://me:***@127.0.0.1:")
        assert "\n" not in text
        assert "hunter2" not in text
        assert error.value.__cause__ is None
        assert error.value.__suppress_context__
        assert [(r.name, r.levelno, r.getMessage()) for r in caplog.records] == [("rapids", logging.CRITICAL, text)]

    async def test_a_server_that_does_not_answer_is_an_error(self) -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
            with pytest.raises(RedisUnavailableError, match=r"no answer within 0\.2 s"):
                async with Rapids(url=url, connect_timeout=0.2).lifespan():
                    pass

    async def test_the_users_own_client_is_checked_too_and_stays_open(self) -> None:
        client = Redis(port=free_port())
        with pytest.raises(RedisUnavailableError, match=r"the client given as Rapids\(redis=\.\.\.\)"):
            async with Rapids(redis=client).lifespan():
                pass
        await client.aclose()

    async def test_a_router_without_handlers_is_an_error(self, redis_url: str, redis: Redis) -> None:
        rapids = Rapids(routers=[EventRouter(stream="fa:life", group="empty")], url=redis_url)
        says = r"group 'empty' on stream 'fa:life' has no handlers.* imported"
        with pytest.raises(NotConfiguredError, match=says) as error:
            async with rapids.lifespan():
                pass
        assert rapids_tasks() == []
        shown = [frame.filename for frame in traceback.extract_tb(error.value.__traceback__)]
        assert shown == [__file__, contextlib.__file__, plugin.__file__], "servers print it, and the message says all"

    async def test_what_was_started_is_stopped(self, redis_url: str, redis: Redis) -> None:
        await redis.set("fa:broken", "not a stream")
        good, bad = idle_router(stream="fa:life"), idle_router(stream="fa:broken")
        before = len(await redis.client_list())
        rapids = Rapids(routers=[good, bad], url=redis_url, emitter=EventEmitter())
        with pytest.raises(Exception, match="WRONGTYPE") as error:
            async with rapids.lifespan():
                pass
        assert not isinstance(error.value, ExceptionGroup)
        assert not good.running
        assert rapids_tasks() == []
        await eventually(lambda: _count_is(redis, before))
        await redis.delete("fa:broken")
        async with rapids.lifespan():
            assert good.running
            assert bad.running

    async def test_cancelled_while_starting(self, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        router = idle_router(stream="fa:life")
        reached = asyncio.Event()

        async def never() -> None:
            reached.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(router, "wait_started", never)

        async def run() -> None:
            async with Rapids(routers=[router], url=redis_url).lifespan():
                raise AssertionError("never started")

        task = asyncio.create_task(run())
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert rapids_tasks() == []
        assert not router.running


class TestStop:
    async def test_cancelled_while_running(self, redis_url: str) -> None:
        router = idle_router(stream="fa:life")
        started = asyncio.Event()

        async def run() -> None:
            async with Rapids(routers=[router], url=redis_url).lifespan():
                started.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(run())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not router.running
        assert rapids_tasks() == []

    async def test_an_error_in_the_block_passes_through(self, redis_url: str) -> None:
        router = idle_router(stream="fa:life")
        with pytest.raises(KeyError, match="mine"):
            async with Rapids(routers=[router], url=redis_url).lifespan():
                raise KeyError("mine")
        assert not router.running

    async def test_routers_stop_together_and_let_handlers_finish(self, redis_url: str) -> None:
        done: list[str] = []
        at_work = {"a": asyncio.Event(), "b": asyncio.Event()}
        both_stopping = asyncio.Barrier(2)
        routers = [idle_router(stream="fa:life", group=group) for group in "ab"]
        for router in routers:

            @router.on(FaLifeNoted)
            async def note(event: FaLifeNoted, group: str = router.group) -> None:
                at_work[group].set()
                await release.wait()
                # Each waits for the other: if they were stopped one after another, both would wait forever.
                await both_stopping.wait()
                done.append(group)

        release = asyncio.Event()
        rapids = Rapids(routers=routers, url=redis_url)
        async with rapids.lifespan():
            await rapids.emitter.emit(FaLifeNoted(n=1))
            for event in at_work.values():
                await event.wait()
            asyncio.get_running_loop().call_later(0.05, release.set)
        assert sorted(done) == ["a", "b"]


def test_threads_may_run_applications_of_their_own(redis_url: str) -> None:
    failures: list[BaseException] = []

    def application(n: int) -> FastAPI:
        app = FastAPI(lifespan=Rapids(routers=[idle_router(stream=f"fa:{n}")], url=redis_url).lifespan)
        app.include_router(rapids_admin)
        # Before the threads: FastAPI prepares a route at its first use, and silences its own warnings
        # for all threads at that time, so that one thread may record those of another.
        app.openapi()
        return app

    def serve(app: FastAPI) -> None:
        try:
            with TestClient(app) as client:
                assert client.get("/rapids/health/ready").status_code == 200
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=serve, args=(application(n),)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


async def test_a_router_made_with_a_client_of_its_own_keeps_it(redis: Redis, redis_url: str) -> None:
    async with Redis.from_url(redis_url, client_name="the-routers-own") as own:
        router = idle_router(own, stream="fa:own", group="keeps")
        rapids = Rapids(routers=[router], emitter=EventEmitter(stream="fa:own"), url=redis_url)
        for _ in range(2):
            async with rapids.lifespan():
                names = {client["name"] for client in await redis.client_list()}
                assert "the-routers-own" in names


async def test_handlers_can_have_the_client_while_the_lifespan_runs(redis_url: str) -> None:
    rapids = Rapids(url=redis_url)
    with pytest.raises(NotConfiguredError, match="while its lifespan runs"):
        _ = rapids.redis
    async with rapids.lifespan():
        assert await rapids.redis.ping()
    with pytest.raises(NotConfiguredError):
        _ = rapids.redis


def test_a_client_of_the_users_serves_on_one_event_loop_after_another(redis_url: str) -> None:
    rapids = Rapids(redis=Redis.from_url(redis_url), routers=[idle_router(stream="fa:loops")])

    async def live() -> None:
        async with rapids.lifespan():
            await rapids.emitter.emit(FaLifeNoted(n=1))

    for _ in range(3):
        asyncio.run(live())


async def test_two_rapids_in_one_application_are_refused_and_both_are_named(redis_url: str) -> None:
    app = FastAPI()
    router = EventRouter(stream="fa:shop", group="billing")

    @router.on("*")
    async def ignore(event: Any) -> None: ...

    shop = Rapids(url=redis_url, routers=[router])
    mail = Rapids(url=redis_url, emitter=EventEmitter(stream="fa:mail"))
    for _ in range(2):
        async with shop.lifespan(app):
            with pytest.raises(NotConfiguredError, match="runs two Rapids") as raised:
                async with mail.lifespan(app):
                    pass
            for part in ("emitter to 'fa:shop'", "'billing' on 'fa:shop'", "emitter to 'fa:mail' and no routers"):
                assert part in str(raised.value)
            async with mail.lifespan(FastAPI()):  # another application may have it
                pass


def test_a_router_with_a_rapids_of_its_own_does_not_replace_the_applications(redis_url: str) -> None:
    app = FastAPI(lifespan=Rapids(url=redis_url, emitter=EventEmitter(stream="fa:shop")).lifespan)
    app.include_router(APIRouter(lifespan=Rapids(url=redis_url, emitter=EventEmitter(stream="fa:mail")).lifespan))
    with pytest.raises(NotConfiguredError, match="runs two Rapids"), TestClient(app):
        pass


@pytest.mark.parametrize(
    "url", ["redis://h:port", "redis://h?bogus=1", "redis://h?socket_timeout=soon", "redis://h:99999"]
)
def test_an_address_that_cannot_be_used_is_refused_where_it_is_given(url: str) -> None:
    with pytest.raises(ValueError, match=r"url: .* cannot be used: .*; it must be one of"):
        Rapids(url=url)
