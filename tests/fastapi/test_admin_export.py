"""Exports of dead letters: all that match, redacted, one in each line, with few of them in memory."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
import redis as redis_sync
from fastapi.testclient import TestClient
from redis.exceptions import ConnectionError
from starlette.requests import ClientDisconnect

from rapids import DeadLetterQueue
from rapids.audit import AuditLog
from rapids.redaction import MASK
from rapids_fastapi import AdminUser
from rapids_fastapi.admin import export
from tests.fastapi.helpers import BEARER, DLQ, TOKEN, admin_app, basic, client_for, put_letter, rapids_with, until
from tests.fastapi.served_admin import DLQ as SERVED_DLQ
from tests.fastapi.served_admin import OPERATOR, app_on, letter_fields, serving
from tests.support import NO_TLS

LETTERS = "/rapids/api/dead-letters"
EXPORT = f"{LETTERS}/export"


def lines(response: Any) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].partition(";")[0] == "application/x-ndjson"
    assert not response.content or response.content.endswith(b"\n")
    return [json.loads(line) for line in response.content.splitlines()]


def ids(exported: list[dict[str, Any]]) -> list[str]:
    return [line["id"] for line in exported]


class TestLines:
    def test_all_of_them_newest_first(self, client: TestClient, redis_url: str) -> None:
        put = [put_letter(redis_url, data=json.dumps({"n": n})) for n in range(250)]
        response = client.get(EXPORT)
        exported = lines(response)
        assert ids(exported) == put[::-1]
        assert exported[0]["payload"]["value"] == {"n": 249}
        assert response.headers["content-disposition"] == 'attachment; filename="dead-letters.ndjson"'
        detail = client.get(f"{LETTERS}/{put[0]}").json()
        assert exported[-1].items() <= detail.items()

    def test_without_letters_there_are_no_lines(self, client: TestClient) -> None:
        assert lines(client.get(EXPORT)) == []

    def test_only_those_that_match(self, client: TestClient, redis_url: str) -> None:
        put = [put_letter(redis_url, handler="ab"[n % 2], data=json.dumps({"n": n})) for n in range(30)]
        assert ids(lines(client.get(EXPORT, params={"handler": "a"}))) == put[::2][::-1]
        assert ids(lines(client.get(EXPORT, params={"q": '"n":7'}))) == [put[7]]
        assert lines(client.get(EXPORT, params={"until": "2001-01-01"})) == []
        assert client.get(EXPORT, params={"cursor": "1-1"}).status_code == 422
        assert client.get(EXPORT, params={"max_items": 0}).status_code == 422

    def test_payloads_are_whole_and_redacted(self, client: TestClient, redis_url: str) -> None:
        data = json.dumps({"password": "hunter2", "text": "x" * 50_000})
        put_letter(redis_url, data=data, error="no hunter2", traceback="hunter2", metadata='{"token": "tok-7"}')
        response = client.get(EXPORT)
        (line,) = lines(response)
        assert line["payload"]["value"] == {"password": MASK, "text": "x" * 50_000}
        assert line["error"] == f"no {MASK}"
        assert "hunter2" not in response.text
        assert "tok-7" not in response.text

    def test_after_max_items_the_last_line_has_the_cursor(self, client: TestClient, redis_url: str) -> None:
        put = [put_letter(redis_url) for _ in range(25)]
        seen: list[str] = []
        cursor = ""
        while True:
            *letters, last = lines(client.get(EXPORT, params={"max_items": 12, "cursor": cursor}))
            if "id" in last:
                seen += ids([*letters, last])
                break
            assert set(last) == {"next_cursor"}
            assert len(letters) == 12
            seen += ids(letters)
            cursor = last["next_cursor"]
        assert seen == put[::-1]
        assert len(lines(client.get(EXPORT, params={"max_items": 25}))) == 25

    def test_text_with_line_breaks_stays_on_its_line(self, client: TestClient, redis_url: str) -> None:
        hostile = "a\nb\r\n\u2028\u2029\x85{}\x00</script>"
        put_letter(redis_url, error=hostile, handler=hostile, data=json.dumps({hostile: hostile}))
        (line,) = lines(client.get(EXPORT))
        assert (line["error"], line["handler"], line["payload"]["value"]) == (hostile, hostile, {hostile: hostile})


class TestOutages:
    def test_an_outage_during_the_export_is_in_the_last_line(
        self, redis_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put = [put_letter(redis_url) for _ in range(40)]
        ask, asked = DeadLetterQueue.list, 0

        async def interrupted(queue: DeadLetterQueue, *args: Any, **options: Any) -> Any:
            nonlocal asked
            asked += 1
            if asked == 3:
                raise ConnectionError("gone")
            return await ask(queue, *args, **options)

        with client_for(redis_url) as client:
            monkeypatch.setattr(DeadLetterQueue, "list", interrupted)
            *letters, last = lines(client.get(EXPORT))
            assert last["type"] == "urn:rapids:problem:redis-unavailable"
            assert (last["status"], last["instance"]) == (503, EXPORT)
            assert "id" not in last
            rest = lines(client.get(EXPORT, params={"cursor": last["next_cursor"]}))
        assert 0 < len(letters) < 40
        assert ids([*letters, *rest]) == put[::-1]

    @pytest.mark.parametrize("left", [AdminUser("ann", ["replay"]), None], ids=["permission", "user"])
    def test_who_loses_the_permission_during_the_export_gets_no_more(
        self, redis_url: str, monkeypatch: pytest.MonkeyPatch, left: AdminUser | None
    ) -> None:
        monkeypatch.setattr(export, "CHECK_PAUSE", 0.0)
        users = [AdminUser("ann", ["read"]), AdminUser("ann", ["read"]), left]
        put = [put_letter(redis_url, data=json.dumps({"n": n})) for n in range(30)]
        with client_for(redis_url, admin_auth=lambda connection: users.pop(0)) as client:
            *exported, last = lines(client.get(EXPORT))
        assert ids(exported) == put[::-1][:15], "the first page of 5 letters and the second one of 10"
        assert (last["status"], last["permission"]) == (403, "read")
        assert last["next_cursor"]

    def test_an_outage_at_the_beginning_is_an_ordinary_problem(
        self, redis_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def gone(queue: DeadLetterQueue, *args: Any, **options: Any) -> Any:
            raise ConnectionError("gone")

        monkeypatch.setattr(DeadLetterQueue, "list", gone)
        with client_for(redis_url) as client:
            response = client.get(EXPORT)
        assert response.status_code == 503
        assert response.json()["type"] == "urn:rapids:problem:redis-unavailable"


class TestAudit:
    @staticmethod
    def trace(client: TestClient) -> list[tuple[str, str, dict[str, str]]]:
        entries = client.get("/rapids/api/audit").json()["items"][::-1]
        assert {entry["stream"] for entry in entries} == {DLQ}
        return [(entry["actor"], entry["action"], entry["details"]) for entry in entries]

    def test_who_exported_what_and_how_much(self, redis_url: str) -> None:
        for n in range(30):
            put_letter(redis_url, handler="ab"[n % 2])
        with client_for(redis_url, headers=basic(TOKEN, name="ann")) as client:
            client.get(EXPORT, params={"handler": "a", "since": "2026-01-01", "max_items": 20})
            client.get(EXPORT, params={"max_items": 7})
            assert client.get(EXPORT, params={"max_items": 0}).status_code == 422
            wanted = {"handler": "a", "since": "2026-01-01T00:00:00+00:00"}
            assert self.trace(client) == [
                ("ann", "export_started", {"filter": json.dumps(wanted), "max_items": "20"}),
                ("ann", "export_ended", {"letters": "15", "end": "complete"}),
                ("ann", "export_started", {"filter": "{}", "max_items": "7"}),
                ("ann", "export_ended", {"letters": "7", "end": "max_items"}),
            ]

    def test_a_text_that_was_searched_is_not_shown(self, client: TestClient) -> None:
        client.get(EXPORT, params={"q": "hunter2", "handler": "a"})
        details = self.trace(client)[0][2]
        assert json.loads(details["filter"]) == {"handler": "a", "q": MASK}

    def test_nothing_is_sent_that_is_not_in_the_log(self, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        async def gone(*args: Any, **options: Any) -> None:
            raise ConnectionError("gone")

        put_letter(redis_url)
        with client_for(redis_url) as client:
            monkeypatch.setattr(AuditLog, "add", gone)
            response = client.get(EXPORT)
        assert (response.status_code, response.json()["type"]) == (503, "urn:rapids:problem:redis-unavailable")

    @pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
    async def test_an_export_whose_client_left_is_recorded_with_what_was_sent(
        self, redis_url: str, spec_version: str
    ) -> None:
        """With 2.4, a server raises an error in `send`; before, it says so in `receive`."""
        for _ in range(60):
            put_letter(redis_url)
        app, gone, bodies = admin_app(rapids_with(redis_url)), asyncio.Event(), 0
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"spec_version": spec_version},
            "method": "GET",
            "path": EXPORT,
            "raw_path": EXPORT.encode(),
            "query_string": b"",
            "headers": [(name.lower().encode(), value) for name, value in BEARER.items()],
            "http_version": "1.1",
            "scheme": "http",
        }

        async def receive() -> dict[str, Any]:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            nonlocal bodies
            if message["type"] == "http.response.body" and (bodies := bodies + 1) > 1:
                gone.set()
                if spec_version == "2.4":
                    raise OSError("the client has left")
                await asyncio.sleep(60)  # it is cancelled

        async with app.router.lifespan_context(app) as state:
            with suppress(ClientDisconnect):
                await app({**scope, "state": dict(state)}, receive, send)
            ended, started = (await AuditLog(state["rapids"].redis, DLQ).list()).items
        assert (started.action, ended.action) == ("export_started", "export_ended")
        assert ended.details == {"letters": "5", "end": "interrupted"}


LARGE, MANY = 1_000_000, 60


@pytest.fixture
def large(redis_url: str) -> Iterator[str]:
    """A served application with 60 MB of dead letters."""
    data = json.dumps({"text": "x" * LARGE})
    with redis_sync.Redis.from_url(redis_url) as raw:
        for _ in range(MANY):
            raw.xadd(SERVED_DLQ, letter_fields(data=data))
    with serving(app_on(redis_url)) as base:
        yield base


def test_few_letters_are_in_memory_at_a_time(large: str) -> None:
    tracemalloc.start()
    try:
        with httpx.stream("GET", f"{large}{EXPORT}", headers=OPERATOR, timeout=60, verify=NO_TLS) as response:
            size = sum(map(len, response.iter_raw()))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size > LARGE * MANY
    assert most < 25 * LARGE, "a page of five letters, being in memory in three forms"


def test_the_export_stops_when_the_client_disconnects(large: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ask, asked = DeadLetterQueue.list, 0

    async def counted(queue: DeadLetterQueue, *args: Any, **options: Any) -> Any:
        nonlocal asked
        asked += 1
        return await ask(queue, *args, **options)

    monkeypatch.setattr(DeadLetterQueue, "list", counted)
    with httpx.stream("GET", f"{large}{EXPORT}", headers=OPERATOR, timeout=60, verify=NO_TLS) as response:
        next(response.iter_raw())
    before = asked
    # The next request is answered, and the export does not read the queue any more.
    until(lambda: httpx.get(f"{large}{LETTERS}/stats", headers=OPERATOR, timeout=60, verify=NO_TLS).status_code == 200)
    assert asked <= before + 1
    assert asked < MANY // 5
