"""The session of a browser: a cookie in exchange for the credentials, as good as these, and no longer."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
import redis as redis_sync
from fastapi.testclient import TestClient
from httpx2 import Response

from rapids.clients import open_client
from rapids.sessions import OFFER_SECONDS, SESSION_SECONDS, Sessions
from rapids_fastapi import AdminUser, TokenAuth
from rapids_fastapi.admin import failed_logins
from tests.fastapi.admin_paths import filled, guarded
from tests.fastapi.helpers import BEARER, STREAM, TOKEN, basic, client_for, put_letter

SESSION = "/rapids/api/session"
CAPABILITIES = "/rapids/api/capabilities"
JSON = {"Content-Type": "application/json"}


def log_in(client: TestClient, headers: Any = BEARER, **more: str) -> Response:
    """A login. The client keeps the cookie, and sends it from now on."""
    return client.post(SESSION, headers={**headers, **JSON, **more}, content=b"{}")


def cookie_of(answer: Response) -> str:
    return answer.headers["set-cookie"]


def test_a_login_opens_everything_that_its_credentials_open(redis_url: str) -> None:
    with client_for(redis_url, headers={}) as client:
        assert client.get(CAPABILITIES).status_code == 401
        begun = log_in(client, basic(TOKEN, "ann"))
        assert begun.status_code == 200
        assert begun.json()["name"] == client.get(CAPABILITIES).json()["user"]["name"] == "ann"
        assert "read" in begun.json()["permissions"]
        refused = {
            operation: answer.status_code
            for operation in guarded()
            if operation != ("DELETE", SESSION)
            and (answer := client.request(operation[0], filled(operation[1]), headers=JSON)).status_code in (401, 403)
        }
    assert refused == {}


def test_the_cookie_is_for_this_page_only(redis_url: str) -> None:
    with client_for(redis_url, headers={}) as client:
        plain = cookie_of(log_in(client))
        at_proxy = cookie_of(log_in(client, Origin="https://testserver"))
    assert all(part in plain for part in ("HttpOnly", "SameSite=strict", f"Max-Age={SESSION_SECONDS}"))
    assert "Path" not in plain, "the browser takes its own path, with the prefix that a proxy removes"
    assert ("Secure" in plain, "Secure" in at_proxy) == (False, True)


def test_redis_and_the_cookie_alone_say_nothing_about_the_token(redis_url: str, raw: redis_sync.Redis) -> None:
    with client_for(redis_url, headers={}) as client:
        log_in(client)
        secret = client.cookies["rapids_session"]
        [key] = raw.keys("*:session:*")  # type: ignore[misc]
        assert 0 < raw.ttl(key) <= SESSION_SECONDS  # type: ignore[operator]
    stored = redis_sync.Redis.from_url(redis_url).get(key)
    assert TOKEN.encode() not in stored  # type: ignore[operator]
    assert TOKEN not in secret
    assert secret not in key


def test_logging_out_ends_it_in_all_processes(redis_url: str, raw: redis_sync.Redis) -> None:
    with client_for(redis_url, headers={}) as client, client_for(redis_url, headers={}) as other:
        log_in(client)
        copied = {"Cookie": f"rapids_session={client.cookies['rapids_session']}"}
        assert other.get(CAPABILITIES, headers=copied).status_code == 200
        ended = client.delete(SESSION)
        assert (ended.status_code, "Max-Age=0" in cookie_of(ended)) == (204, True)
        assert other.get(CAPABILITIES, headers=copied).status_code == 401
    assert raw.keys("*:session:*") == []


def test_a_login_ends_the_session_that_the_browser_had(redis_url: str, raw: redis_sync.Redis) -> None:
    with client_for(redis_url, headers={}) as client:
        log_in(client)
        copied = {"Cookie": f"rapids_session={client.cookies['rapids_session']}"}
        assert log_in(client, basic("wrong")).status_code == 401
        assert client.get(CAPABILITIES).status_code == 200
        log_in(client)
        client.cookies.clear()
        assert client.get(CAPABILITIES, headers=copied).status_code == 401
    assert len(raw.keys("*:session:*")) == 1  # type: ignore[arg-type]


def test_of_several_sessions_none_is_taken(redis_url: str) -> None:
    """A sibling of the host can add a cookie of its own: nobody must act as the user of that one unknowingly."""
    with client_for(redis_url, headers={}) as client:
        secrets = list[str]()
        for name in ("ann", "mallory"):
            client.cookies.clear()
            log_in(client, basic(TOKEN, name))
            secrets.append(client.cookies["rapids_session"])
        client.cookies.clear()
        for order in (secrets, secrets[::-1]):
            both = {"Cookie": "; ".join(f"rapids_session={one}" for one in order)}
            assert client.get(CAPABILITIES, headers=both).status_code == 401
        refused = client.post(SESSION, headers={**BEARER, **JSON, **both}, content=b"{}")
        assert refused.status_code == 422
        assert "delete the cookies" in refused.json()["detail"]
        same = {"Cookie": "; ".join(f"rapids_session={secrets[0]}" for _ in range(2))}
        assert client.get(CAPABILITIES, headers=same).json()["user"]["name"] == "ann"


def test_a_changed_token_ends_it(redis_url: str) -> None:
    with client_for(redis_url, headers={}, admin_auth=TokenAuth("first-token")) as client:
        log_in(client, {"Authorization": "Bearer first-token"})
        copied = {"Cookie": f"rapids_session={client.cookies['rapids_session']}"}
    with client_for(redis_url, headers={}, admin_auth=TokenAuth("second-token")) as client:
        assert client.get(CAPABILITIES, headers=copied).status_code == 401


def test_an_own_callable_is_asked_again_each_time(redis_url: str) -> None:
    rights = {"Bearer of-ann": ["read", "discard"]}

    def auth(connection: Any) -> AdminUser | None:
        found = rights.get(connection.headers.get("authorization", ""))
        return None if found is None else AdminUser("ann", found)  # type: ignore[arg-type]

    letter = put_letter(redis_url)
    with client_for(redis_url, headers={}, admin_auth=auth) as client:
        assert log_in(client, {"Authorization": "Bearer of-bob"}).status_code == 401
        assert log_in(client, {"Authorization": "Bearer of-ann"}).status_code == 200
        rights["Bearer of-ann"] = ["read"]
        assert client.delete(f"/rapids/api/dead-letters/{letter}").status_code == 403
        rights.clear()
        assert client.get(CAPABILITIES).status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://evil.example"}, 403),
    ],
)
def test_a_page_of_another_origin_cannot_use_it(redis_url: str, headers: dict[str, str], status: int) -> None:
    letter = put_letter(redis_url)
    with client_for(redis_url, headers={}) as client:
        assert log_in(client, **headers).status_code == status
        log_in(client)
        assert client.delete(f"/rapids/api/dead-letters/{letter}", headers=headers).status_code == status


@pytest.mark.parametrize("secret", ["", "x", "é", "x" * 43, "../" * 14 + "x", "x" * 5_000])
def test_an_unknown_secret_is_no_wrong_password(redis_url: str, secret: str, caplog: pytest.LogCaptureFixture) -> None:
    """A session that has ended must not slow its user down."""
    with client_for(redis_url, headers={}) as client:
        cookie = {"Cookie": b"rapids_session=" + secret.encode()}
        assert client.get(CAPABILITIES, headers=cookie).status_code == 401
        assert client.get(CAPABILITIES, headers={**cookie, **BEARER}).status_code == 200
    assert "wrong credentials" not in caplog.text


def test_failed_logins_are_logged_and_slowed_down(
    redis_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failed_logins, "MAX_WAITING", 0)
    caplog.set_level(logging.INFO)
    with client_for(redis_url, headers={}) as client:
        log_in(client)
        for _ in range(failed_logins.FREE):
            assert log_in(client, basic("wrong")).status_code == 401
        assert log_in(client).status_code == 503
    assert caplog.text.count("admin: 'admin' logged in with a browser") == 1
    assert f"wrong credentials from testclient for {SESSION}" in caplog.text
    assert TOKEN not in caplog.text


def test_a_page_is_never_asked_by_the_browsers_own_dialog(redis_url: str) -> None:
    with client_for(redis_url, headers={}) as client:
        for headers in ({"X-Requested-With": "fetch"}, {"Accept": "text/event-stream"}, {"Sec-Fetch-Mode": "cors"}):
            answer = client.get(CAPABILITIES, headers=headers)
            assert answer.headers.get_list("www-authenticate") == ['Bearer realm="rapids"']
        navigation = client.get(CAPABILITIES, headers={"Sec-Fetch-Mode": "navigate"})
        assert len(navigation.headers.get_list("www-authenticate")) == 2


def test_without_credentials_there_is_nothing_to_keep(redis_url: str, raw: redis_sync.Redis) -> None:
    with client_for(redis_url, headers={}, admin_auth=lambda _: AdminUser("ann", ["read"])) as client:
        assert log_in(client, {}).status_code == 422
        assert client.delete(SESSION).status_code == 204
    assert raw.keys("*:session:*") == []


def test_long_credentials_are_not_kept(redis_url: str, raw: redis_sync.Redis) -> None:
    """Somebody who may log in must not fill Redis."""
    with client_for(redis_url, headers={}) as client:
        assert log_in(client, basic(TOKEN, "a" * 8_000)).status_code == 422
        assert log_in(client, basic(TOKEN, "a" * 4_000)).status_code == 200
    assert len(raw.keys("*:session:*")) == 1  # type: ignore[arg-type]


async def offered(redis_url: str, credentials: bytes) -> str:
    async with open_client(redis_url) as redis:
        return await Sessions(redis, STREAM).offer(credentials)


async def test_an_offer_is_one_login(redis_url: str, raw: redis_sync.Redis) -> None:
    """Of several at the same time, too. Only its code says what it is for, and its code is no session."""
    code = await offered(redis_url, basic(TOKEN, "ann")["Authorization"])
    [key] = raw.keys("*:session:*")  # type: ignore[misc]
    assert 0 < raw.ttl(key) <= OFFER_SECONDS  # type: ignore[operator]
    assert code not in key
    async with open_client(redis_url) as redis:
        sessions = Sessions(redis, STREAM)
        assert await sessions.credentials(code) is None
        assert await sessions.take(await sessions.begin(b"Bearer x")) is None
        other = await sessions.offer(b"Bearer x")
        assert sorted(map(str, await asyncio.gather(*(sessions.take(other) for _ in range(9))))) == [
            *["None"] * 8,
            "b'Bearer x'",
        ]
        with pytest.raises(ValueError, match="at most 8,192 bytes, not 9,000"):
            await sessions.offer(b"x" * 9_000)


def test_an_offer_logs_a_browser_in_once(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """At the login only: a request elsewhere is refused, and leaves the offer as it is."""
    offer = {"Authorization": f"Offer {asyncio.run(offered(redis_url, basic(TOKEN, 'ann')['Authorization']))}"}
    with client_for(redis_url, headers={}) as client:
        assert client.get(CAPABILITIES, headers=offer).status_code == 401
        assert log_in(client, offer).json()["name"] == "ann"
        assert client.get(CAPABILITIES).json()["user"]["name"] == "ann"
        client.cookies.clear()
        for used in (offer, {"Authorization": "Offer é".encode()}, {"Authorization": "Offer"}):
            assert log_in(client, used).status_code == 401
        assert client.get(CAPABILITIES).status_code == 401
    assert f"wrong credentials from testclient for {SESSION}" in caplog.text


def test_an_offer_opens_no_more_than_its_credentials(redis_url: str) -> None:
    """Another site cannot use it, and a token that was changed makes it worthless."""
    codes = [
        asyncio.run(offered(redis_url, credentials)) for credentials in (b"Bearer changed", b"Bearer " + TOKEN.encode())
    ]
    with client_for(redis_url, headers={}) as client:
        assert log_in(client, {"Authorization": f"Offer {codes[0]}"}).status_code == 401
        assert log_in(client, {"Authorization": f"Offer {codes[1]}"}, Origin="http://evil.example").status_code == 403


def test_an_outage_of_redis_is_told_as_one(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unavailable(*_: Any) -> None:
        raise redis_sync.ConnectionError("refused")

    with client_for(redis_url, headers={}) as client:
        log_in(client)
        monkeypatch.setattr(Sessions, "credentials", unavailable)
        answer = client.get(CAPABILITIES)
    assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (503, "redis-unavailable")
