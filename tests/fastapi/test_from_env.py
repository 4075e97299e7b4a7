"""Settings from the environment: each variable is checked, and named in the error; unknown ones are logged."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest

from rapids.environment import VARIABLES, Environment
from rapids_fastapi import AdminLimits, Rapids
from rapids_fastapi import plugin as module

PAGE = Path(__file__).parents[2] / "docs" / "deployment.md"


def options_of(monkeypatch: pytest.MonkeyPatch, env: dict[str, str], **arguments: Any) -> dict[str, Any]:
    """What `Rapids.from_env` gives to `Rapids` in this environment."""
    given: dict[str, Any] = {}

    class Recorded(Rapids):
        def __init__(self, **options: Any) -> None:
            given.update(options)
            super().__init__(**options)

    for name, value in env.items():
        monkeypatch.setenv(name, value)
    Recorded.from_env(**arguments)
    return given


def test_every_setting_of_the_web_comes_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAPIDS_REDIS_URL", raising=False)
    env = {
        "RAPIDS_REDIS_URL": " redis://redis:6379/0\n",
        "RAPIDS_ADMIN_TOKEN": "a token",
        "RAPIDS_WATCH": "orders, {shop}:invoices",
        "RAPIDS_DEAD_LETTERS": "Off",
        "RAPIDS_REDACT": "iban,tax number",
        "RAPIDS_ADMIN_SEARCHES": "3",
        "RAPIDS_ADMIN_EXPORTS": "1",
        "RAPIDS_ADMIN_LIVE": "9",
        "RAPIDS_METRICS": "anyone",
        "RAPIDS_CONNECT_TIMEOUT": "1.5",
    }
    assert set(env) == {name for name, variable in VARIABLES.items() if "web" in variable.read_by}
    given = options_of(monkeypatch, env, redact=["pin"])
    assert given == {
        "emitter": None,
        "routers": (),
        "redis": None,
        "watch": ("orders", "{shop}:invoices"),
        "dead_letters": False,
        "admin_auth": None,  # the token is read at each start, and so is the address
        "redact": ["pin", "iban", "tax number"],
        "admin_limits": AdminLimits(searches=3, exports=1, live=9),
        "telemetry": None,
        "metrics": "anyone",
        "connect_timeout": 1.5,
    }
    assert options_of(monkeypatch, {"RAPIDS_WATCH": "none"})["watch"] == ()
    unset = options_of(monkeypatch, dict.fromkeys(env, ""))
    assert (unset["watch"], unset["dead_letters"], unset["redact"]) == (None, True, [])
    assert (unset["admin_limits"], unset["metrics"], unset["connect_timeout"]) == (AdminLimits(), "off", 5.0)


async def test_the_address_is_that_of_the_start(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test sets its server after the import of an application that calls `from_env`."""
    monkeypatch.setenv("RAPIDS_REDIS_URL", "redis://localhost:1/0")
    rapids = Rapids.from_env()
    monkeypatch.setenv("RAPIDS_REDIS_URL", redis_url)
    async with rapids.lifespan():
        assert await rapids.redis.ping()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("REDIS_URL", "http://redis", "RAPIDS_REDIS_URL must be one of redis://"),
        ("ADMIN_TOKEN", "abc", "RAPIDS_ADMIN_TOKEN: token must be a string of at least 4 characters"),
        ("METRICS", "open", "RAPIDS_METRICS: metrics must be one of off, permission, anyone, not 'open'"),
        ("WATCH", "orders,,b", "RAPIDS_WATCH must be names with commas between them, or `none`, not 'orders,,b'"),
        ("WATCH", "orders,{b", "RAPIDS_WATCH: watch[1]: stream must have no braces"),
        ("DEAD_LETTERS", "maybe", "RAPIDS_DEAD_LETTERS must be true or false, not 'maybe'"),
        ("REDACT", ",", "RAPIDS_REDACT must be names with commas between them, not ','"),
        ("ADMIN_LIVE", "0", "RAPIDS_ADMIN_LIVE: live must be a whole number from 1 to 1,000, not 0"),
        ("ADMIN_LIVE", "few", "RAPIDS_ADMIN_LIVE must be a whole number (1 to 1000), not 'few'"),
        ("CONNECT_TIMEOUT", "soon", "RAPIDS_CONNECT_TIMEOUT must be a number (seconds above 0), not 'soon'"),
        (
            "CONNECT_TIMEOUT",
            "nan",
            "RAPIDS_CONNECT_TIMEOUT: connect_timeout must be a finite number of seconds above 0",
        ),
    ],
)
def test_an_invalid_variable_is_named_with_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(f"RAPIDS_{name}", value)
    with pytest.raises(ValueError, match=re.escape(says)) as caught:
        Rapids.from_env()
    assert "abc" not in str(caught.value), "a token is not shown"


def test_unknown_variables_are_named_once_and_those_of_kubernetes_are_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    links = {
        "RAPIDS_WEB_SERVICE_HOST": "10.0.0.1",
        "RAPIDS_WEB_SERVICE_PORT_HTTP": "80",
        "RAPIDS_WEB_PORT": "tcp://10.0.0.1:80",
        "RAPIDS_WEB_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    for name, value in {
        **links,
        "RAPIDS_REDIS_ULR": "redis://x",
        "RAPIDS_COLOUR": "red",
        "RAPIDS_LOG_LEVEL": "info",
    }.items():
        monkeypatch.setenv(name, value)
    with caplog.at_level(logging.WARNING, "rapids"):
        Rapids.from_env()
    [line] = [record.getMessage() for record in caplog.records]
    assert line.endswith("have no effect: RAPIDS_COLOUR, RAPIDS_REDIS_ULR (did you mean RAPIDS_REDIS_URL?)")
    assert Environment({}).unknown() == []


def test_the_page_has_every_variable() -> None:
    rows = re.findall(r"^\| `(RAPIDS_\w+)` \|", PAGE.read_text(), re.MULTILINE)
    assert rows == list(VARIABLES)


def test_the_names_of_the_plug_in_are_in_the_table() -> None:
    assert {module.URL_VARIABLE, module.TOKEN_VARIABLE} < set(VARIABLES)
