from __future__ import annotations

import traceback
from typing import Any

import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.sentinel import SentinelConnectionPool

from rapids import EventEmitter, EventRouter
from rapids.clients import check_url, masked, open_client
from rapids.exceptions import NotConfiguredError
from rapids_fastapi import AdminUser, Rapids, TokenAuth, allow_anyone
from tests.fastapi.helpers import client_for


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost:6379/0",
        "REDISS://user:pass@host",
        "unix:///tmp/x.sock?db=1",
        "redis+sentinel://a:26379,b,[::1]:26380/mymaster/2?sentinel_password=x",
        "rediss+sentinel://a/mymaster?ssl_ca_certs=ca.pem",
        "redis+cluster://user:pw@a:7000,b,[::1]:7001/0?socket_timeout=3",
        "rediss+cluster://a?ssl_cert_reqs=none",
        "embedded:",
        "embedded:some/dir",
    ],
)
def test_every_kind_of_address_is_accepted(url: str) -> None:
    assert check_url("url", url) == url
    Rapids(url=url)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://localhost", "url must be one of redis://"),
        ("localhost:6379", "url must be one of redis://"),
        ("", "url must be one of redis://"),
        ("redis+cluster://a:1,b:2/1", r"must be redis\+cluster://"),
        ("redis+cluster://a:1?db=1", r"must be redis\+cluster://"),
        ("redis+cluster://", "must be one of"),
        ("redis+cluster://a:65536", "url: 'a:65536' must be host:port"),
        ("redis+cluster://a:1?socket_timeout=soon", "url: .* cannot be used"),
        ("redis+cluster://a:b:c", "must be host:port"),
        ("redis+cluster://a:1?nonsense=1", "cannot be used"),
        ("redis+sentinel://a:1", "host:port/service"),
        ("redis+sentinel:///service", "host:port/service"),
        ("redis+sentinel://a:1/service/x", "host:port/service"),
        ("redis+sentinel://a:b:c/service", "must be host:port"),
        ("redis+sentinel://a:0/service", "url: 'a:0' must be host:port"),
        ("redis+sentinel://a:1/service?nonsense=1", "url: .* cannot be used"),
        ("redis+sentinel://a:1/service?sentinel_nonsense=1", "url: .* cannot be used"),
        ("redis+sentinel://a:1/service?socket_timeout=soon", "url: .* cannot be used"),
        ("embedded://host/dir", "embedded:path/to/dir"),
    ],
)
def test_an_invalid_address_is_refused_and_the_allowed_ones_are_named(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as error:
        Rapids(url=url)
    assert str(error.value).count("unix://") <= 1  # the allowed ones are named once


@pytest.mark.parametrize(
    "url",
    [
        "redis+cluster://me:hunter2@a:1/5",
        *(f"{kind}://me:hun{sign}ter2@a:1" for kind in ("redis", "redis+cluster", "redis+sentinel") for sign in "/?#"),
        "me:hunter2@a:1",
        "redis:/me:hunter2@a:1",
    ],
)
def test_the_error_of_a_refused_address_does_not_show_its_password(url: str) -> None:
    """Also not if it ends the host too early: then the parser quotes it as a port."""
    with pytest.raises(ValueError) as error:
        Rapids(url=url)
    shown = "".join(traceback.format_exception(error.value))
    assert "hun" not in shown
    assert "ter2" not in shown


@pytest.mark.parametrize(
    ("query", "limit"), [("", 5.0), ("?socket_timeout=9&sentinel_socket_timeout=9", 9.0)], ids=["default", "given"]
)
@pytest.mark.parametrize("url", ["redis://a", "unix:///a", "redis+sentinel://a/primary", "redis+cluster://a"])
async def test_clients_have_an_answer_timeout_with_any_redis_py(url: str, query: str, limit: float) -> None:
    async with open_client(url + (query if "sentinel" in url else query.partition("&")[0])) as client:
        if isinstance(client, RedisCluster):
            assert client.get_connection_kwargs()["socket_timeout"] == limit
            return
        pools: list[Any] = [client.connection_pool]
        if isinstance(client.connection_pool, SentinelConnectionPool):
            pools += [node.connection_pool for node in client.connection_pool.sentinel_manager.sentinels]
        assert [float(pool.make_connection().socket_timeout) for pool in pools] == [limit] * len(pools)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:pw@host:1/0", "redis://user:***@host:1/0"),
        ("redis://:pw@host", "redis://:***@host"),
        ("redis://:p@w@host", "redis://:***@host"),
        ("redis://host/0?password=pw&db=1", "redis://host/0?password=***&db=1"),
        ("unix:///a.sock?PASSWORD=pw", "unix:///a.sock?PASSWORD=***"),
        (
            "redis+sentinel://u:pw@a:1,b:2/s?sentinel_password=x",
            "redis+sentinel://u:***@a:1,b:2/s?sentinel_password=***",
        ),
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://pw@host/0", "redis://***@host/0"),  # without a colon, but meant as one
        ("redis://pw:@host/0", "redis://***@host/0"),
        ("redis://user@pw@host/0", "redis://***@host/0"),
        ("redis://user:pw", "redis://user:***"),
        ("redis://host/?pwd=pw&db=1#token=pw", "redis://host/?pwd=***&db=1#token=***"),
        ("redis://host?p%61ssword=pw;auth=pw", "redis://host?p%61ssword=***"),
        ("unix:///a@b.sock", "unix:///a@b.sock"),
        ("redis+cluster://[::1]:1,b", "redis+cluster://[::1]:1,b"),
        ("redis://user:p/w?x#@host:1", "redis://user:***@host:1"),
    ],
)
def test_passwords_are_masked(url: str, shown: str) -> None:
    assert masked(url) == shown


class TestConstruction:
    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"routers": EventRouter()}, "routers must be a list of EventRouters"),
            ({"routers": ["x"]}, "routers must be a list of EventRouters, not one with 'x'"),
            ({"emitter": "x"}, "emitter must be an EventEmitter"),
            ({"url": 6379}, "url must be an address"),
            ({"redis": "redis://localhost"}, "redis must be a redis.asyncio.Redis or RedisCluster client"),
            ({"redis": SyncRedis()}, "redis must be a redis.asyncio.Redis or RedisCluster client"),
            ({"dead_letters": "yes"}, "dead_letters must be True or False"),
            ({"admin_auth": "token"}, "admin_auth must be a callable"),
            ({"redact": "password"}, "redact must be a list of names"),
            ({"redact": ["ok", ""]}, "redact must be a list of names"),
            ({"redact": [7]}, "redact must be a list of names"),
            ({"connect_timeout": 0}, "connect_timeout must be"),
            ({"connect_timeout": "5"}, "connect_timeout must be"),
        ],
    )
    def test_each_option_is_checked_and_named(self, options: dict[str, Any], says: str) -> None:
        with pytest.raises((ValueError, TypeError), match=says):
            Rapids(**options)

    async def test_address_and_client_together_are_refused(self) -> None:
        client = Redis()
        with pytest.raises(ValueError, match="url and redis both"):
            Rapids(url="redis://x", redis=client)
        await client.aclose()

    def test_a_router_twice_is_refused(self) -> None:
        router = EventRouter()
        with pytest.raises(ValueError, match="twice"):
            Rapids(routers=[router, router])

    def test_the_token_of_admin_auth_is_not_in_the_message(self) -> None:
        with pytest.raises(TypeError) as error:
            Rapids(admin_auth="hunter2")  # type: ignore[arg-type]
        assert "hunter2" not in str(error.value)

    def test_an_emitter_is_made_for_the_routers_stream(self) -> None:
        assert (
            Rapids(routers=[EventRouter(stream="a", group="x"), EventRouter(stream="a", group="y")]).emitter.stream
            == "a"
        )
        assert Rapids().emitter.stream == EventEmitter().stream

    def test_several_streams_need_an_emitter(self) -> None:
        routers = [EventRouter(stream="a"), EventRouter(stream="b")]
        with pytest.raises(ValueError, match="emitter must be given where routers read several streams, here a, b"):
            Rapids(routers=routers)
        emitter = EventEmitter(stream="a")
        assert Rapids(routers=routers, emitter=emitter).emitter is emitter

    def test_dead_letters_gives_a_queue_to_routers_that_have_none(self) -> None:
        plain, own, off = (
            EventRouter(stream="a"),
            EventRouter(stream="a", group="own", dlq_stream="mine"),
            EventRouter(stream="a"),
        )
        Rapids(routers=[plain, own])
        Rapids(routers=[off], dead_letters=False)
        assert [plain.dlq_stream, own.dlq_stream, off.dlq_stream] == ["{a}:dlq", "mine", None]


async def test_no_address_at_all_names_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAPIDS_REDIS_URL", raising=False)
    with pytest.raises(NotConfiguredError, match=r"Rapids\(url=\.\.\.\) or set RAPIDS_REDIS_URL"):
        async with Rapids().lifespan():
            pass


async def test_a_wrong_address_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAPIDS_REDIS_URL", "mysql://x")
    with pytest.raises(ValueError, match="RAPIDS_REDIS_URL must be one of"):
        async with Rapids().lifespan():
            pass


class TestAdminUser:
    def test_permissions_are_frozen(self) -> None:
        user = AdminUser("ann", ["read", "replay"])
        assert user.permissions == frozenset({"read", "replay"})
        assert user.may("read")
        assert not user.may("discard")

    @pytest.mark.parametrize("permissions", [["write"], "reads", ["read", "admin"]])
    def test_unknown_permissions_are_refused(self, permissions: Any) -> None:
        with pytest.raises(ValueError, match="permissions must be of read, replay, edit, discard"):
            AdminUser("ann", permissions)

    @pytest.mark.parametrize("name", ["", "a\nb", "x" * 129, None])
    def test_names_are_checked(self, name: Any) -> None:
        with pytest.raises(ValueError, match="name must be"):
            AdminUser(name, ["read"])

    @pytest.mark.parametrize("token", ["x", "abc", "abcdef\n", " abcdef", "abc\ndef", "abc\x00def", "abc\u2028def", 7])
    def test_tokens_that_are_guessed_or_never_match_are_refused(self, token: Any) -> None:
        with pytest.raises(ValueError, match="token must") as refused:
            TokenAuth(token)
        assert "abc" not in str(refused.value)

    def test_a_guessed_token_in_the_environment_is_refused_at_the_start(
        self, redis_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RAPIDS_ADMIN_TOKEN", "x")
        with pytest.raises(ValueError, match="RAPIDS_ADMIN_TOKEN: token must"), client_for(redis_url):
            pass

    def test_tokens_are_checked_and_not_shown(self) -> None:
        for empty in ("", "  ", None):
            with pytest.raises(ValueError, match="token must be"):
                TokenAuth(empty)  # type: ignore[arg-type]
        assert "hunter2" not in repr(TokenAuth("hunter2"))

    def test_anyone_may_do_everything(self) -> None:
        user = allow_anyone(None)  # type: ignore[arg-type]
        assert all(user.may(permission) for permission in ("read", "replay", "edit", "discard"))


def test_two_routers_of_one_stream_and_group_are_refused_and_both_are_named() -> None:
    orders, payments = EventRouter(stream="shop"), EventRouter(stream="shop")

    @orders.on("order.*")
    async def ship(event: Any) -> None: ...

    with pytest.raises(
        ValueError, match=r"routers\[0\] and routers\[2\] both read stream 'shop' as group 'def"
    ) as raised:
        Rapids(routers=[orders, EventRouter(stream="shop", group="audit"), payments])

    assert "routers[0] has ship, routers[2] has no handlers yet" in str(raised.value)
    Rapids(routers=[orders, EventRouter(stream="other")], emitter=EventEmitter())
    with pytest.raises(ValueError, match="both read stream 'shop'"):
        Rapids(routers=[orders, EventRouter(Redis(), stream="shop")])
    Rapids(routers=[EventRouter(Redis(port=1), stream="shop"), EventRouter(Redis(port=2), stream="shop")])
