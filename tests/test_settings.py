"""Options are checked once, where they are given; an error names the option, the value and what is allowed."""

from __future__ import annotations

import asyncio
import math
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from rapids._core.checks import hash_tag
from rapids._core.settings import EmitterSettings, GroupStartPosition, RouterSettings
from rapids.backoff import constant

TEXT = "must be a non-empty string"
NOT_TEXT: list[Any] = [None, 7, b"name", ["name"]]
BAD_TEXT = ["", "\n", "a\x00b", "\ud800"]
NOT_WHOLE: list[Any] = ["1", None, 1.0, True, math.nan]
OBSERVERS: tuple[str, list[Any], list[Any]] = (
    "must be a list of plain functions of one detail",
    [None, print, "print", [1], [print, None], [asyncio.sleep], {print}],
    [],
)
BRACES = ["{", "}", "{}", "a{}b", "}{", "orders}", "{orders", "{}{orders}"]

EMITTER: dict[str, tuple[str, list[Any], list[Any]]] = {
    # option: (what is allowed, values of the wrong type, values out of bounds)
    "stream": (TEXT, NOT_TEXT, BAD_TEXT),
    "maxlen": ("must be a whole number of 1 or more, or None", ["1", 1.0, True], [0, -1, 2**63]),
    "max_retries": ("must be a whole number of 1 or more", NOT_WHOLE, [0, -1, 2**63]),
    "retry_delay": (
        "must be a finite number of seconds, 0 or more",
        ["1", None, True],
        [-0.1, math.nan, math.inf, 10**400],
    ),
    "replicas": ("must be a whole number of 0 or more", NOT_WHOLE, [-1, 2**63]),
    "observers": OBSERVERS,
    "timeout": (
        "must be a finite number of seconds above 0",
        ["1", None, True],
        [0, -1, math.nan, math.inf, 10**400],
    ),
}

ROUTER: dict[str, tuple[str, list[Any], list[Any]]] = {
    "stream": (TEXT, NOT_TEXT, BAD_TEXT),
    "group": (TEXT, NOT_TEXT, BAD_TEXT),
    "consumer": (TEXT, [7, b"name", ["name"]], BAD_TEXT),
    "batch_size": ("must be a whole number of 1 or more", NOT_WHOLE, [0, -1, 2**63]),
    "block_ms": ("must be a whole number of 1 or more", NOT_WHOLE, [0, -1, 2**63]),
    "handler_timeout": (
        "must be a finite number of seconds above 0",
        ["1", None, True],
        [0, -1, math.nan, math.inf, 10**400],
    ),
    "group_start_id": (
        "must be a GroupStartPosition or an entry id",
        [],
        ["", "now", ">", "-1", "1-", "1-2-3", "\u0663", "0\n", "9" * 20, f"0-{2**64}", None, 3.5, b"0"],
    ),
    "claim_interval": ("must be a whole number of 1 or more", NOT_WHOLE, [0, -1, 2**63]),
    "claim_min_idle_ms": ("must be a whole number of 1 or more", NOT_WHOLE, [0, -1, 2**63]),
    "default_retries": ("must be a whole number of 0 or more", NOT_WHOLE, [-1, 2**63]),
    "default_backoff": ("must be a backoff such as exponential()", [5, "exponential"], []),
    "redelivery_backoff": ("must be a backoff such as exponential()", [5, "exponential"], []),
    "max_deliveries": ("must be a whole number of 1 or more", NOT_WHOLE, [0, -1, 2**63]),
    "dlq_stream": (TEXT, [7, b"name", ["name"]], BAD_TEXT),
    "dlq_maxlen": ("must be a whole number of 1 or more, or None", ["1", 1.0, True], [0, -1, 2**63]),
    "consumer_ttl": (
        "must be a finite number of seconds above 0",
        ["1", None, True],
        [0, -1, math.nan, math.inf, 10**400],
    ),
    "concurrency": ("must be a whole number of 1 or more", NOT_WHOLE, [0, -1, 2**63]),
    "order_by": ("must be a function from an event to its key, or None", [5, "field", ["field"]], []),
    "retry_blocks_key": ("must be True or False", [0, 1, None, "yes"], []),
    "exclusive": ("must be True or False", [0, 1, None, "yes"], []),
    "observers": OBSERVERS,
    "trim": ("must be 'acknowledged' or None", [True, 1, b"acknowledged"], ["", "all", "Acknowledged"]),
    "shutdown_timeout": (
        "must be a finite number of seconds, 0 or more",
        ["1", None, True],
        [-0.1, math.nan, math.inf, 10**400],
    ),
}

CASES = [
    (settings, option, allowed, kind, value)
    for settings, table in ((EmitterSettings, EMITTER), (RouterSettings, ROUTER))
    for option, (allowed, wrong_type, out_of_bounds) in table.items()
    for kind, values in ((TypeError, wrong_type), (ValueError, out_of_bounds))
    for value in values
]


def shortly(value: object) -> str:
    return value.__name__ if isinstance(value, type) else f"{value!r:.12}"


@pytest.mark.parametrize(("settings", "option", "allowed", "kind", "value"), CASES, ids=shortly)
def test_an_error_names_the_option_the_value_and_what_is_allowed(
    settings: type, option: str, allowed: str, kind: type[Exception], value: Any
) -> None:
    with pytest.raises(kind, match=f"^{option} ") as raised:
        settings(**{option: value})

    assert allowed in str(raised.value)
    assert str(raised.value).endswith(f"not {value!r}")


@pytest.mark.parametrize(("settings", "table"), [(EmitterSettings, EMITTER), (RouterSettings, ROUTER)])
def test_every_option_has_a_refused_value_above(settings: type, table: dict[str, Any]) -> None:
    assert {option.name for option in fields(settings)} == set(table)


@pytest.mark.parametrize(("settings", "option"), [(EmitterSettings, "stream"), (RouterSettings, "stream")])
@pytest.mark.parametrize("name", BRACES)
def test_braces_without_a_hash_tag_are_refused(settings: type, option: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{option} must have no braces or a valid hash tag") as raised:
        settings(**{option: name})
    assert str(raised.value).endswith(f"not {name!r}")


def test_the_dead_letter_stream_is_checked_like_any_stream_and_is_another_one() -> None:
    with pytest.raises(ValueError, match=r"^dlq_stream must have no braces or a valid hash tag"):
        RouterSettings(dlq_stream="{}")
    with pytest.raises(ValueError, match=r"^dlq_stream must be another stream than stream, not 'orders'"):
        RouterSettings(stream="orders", dlq_stream="orders")


def test_a_consumer_name_of_rapids_own_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^consumer must not begin with 'rapids:'.*'rapids:parked'"):
        RouterSettings(consumer="rapids:parked")


def test_unknown_options_are_refused() -> None:
    for settings in (EmitterSettings, RouterSettings):
        with pytest.raises(TypeError, match="batchsize"):
            settings(batchsize=3)


def test_the_defaults_are_the_references() -> None:
    emitter, router = EmitterSettings(), RouterSettings()

    assert (emitter.stream, emitter.maxlen, emitter.max_retries, emitter.retry_delay) == ("events:all", 100_000, 3, 0.1)
    assert (router.stream, router.group, router.consumer) == ("events:all", "default", None)
    assert (router.batch_size, router.block_ms, router.handler_timeout) == (10, 5000, 30.0)
    assert router.group_start_id == GroupStartPosition.BEGINNING == "0"
    assert GroupStartPosition.LATEST == "$"
    assert (router.claim_interval, router.claim_min_idle_ms) == (10, 60_000)
    assert (router.default_retries, router.max_deliveries) == (0, 5)
    assert (router.dlq_stream, router.dlq_maxlen) == (None, 10_000)
    assert router.redelivery_backoff is None
    assert router.trim is None
    assert all(0.75 * 2**n <= router.default_backoff(n) <= 2**n for n in range(1, 5))


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        (EmitterSettings, {"maxlen": None}),
        (EmitterSettings, {"maxlen": 1, "max_retries": 1, "retry_delay": 0}),
        (EmitterSettings, {"stream": "{orders}:events"}),
        (EmitterSettings, {"stream": "Bestellungen für Köln"}),
        (RouterSettings, {"group_start_id": GroupStartPosition.LATEST}),
        (RouterSettings, {"group_start_id": "$"}),
        (RouterSettings, {"group_start_id": "1701234567890-0"}),
        (RouterSettings, {"group_start_id": "1701234567890"}),
        (RouterSettings, {"group_start_id": f"{2**64 - 1}-{2**64 - 1}"}),
        (RouterSettings, {"block_ms": 2**63 - 1}),
        (RouterSettings, {"dlq_maxlen": None, "dlq_stream": "events:dlq"}),
        (RouterSettings, {"default_backoff": lambda attempt: attempt, "redelivery_backoff": constant(1)}),
        (RouterSettings, {"shutdown_timeout": 0, "default_retries": 0}),
        (RouterSettings, {"consumer": "worker-1"}),
        (RouterSettings, {"observers": [print]}),
        (EmitterSettings, {"observers": (print, list)}),
        (RouterSettings, {"trim": "acknowledged"}),
    ],
)
def test_the_bounds_themselves_are_allowed(settings: type, options: dict[str, Any]) -> None:
    made = settings(**options)
    assert {name: getattr(made, name) for name in options} == options


def test_settings_do_not_change_after_the_check() -> None:
    with pytest.raises(FrozenInstanceError):
        EmitterSettings().maxlen = 0  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        RouterSettings().batch_size = 0  # type: ignore[misc]


def test_the_names_of_the_options_are_known() -> None:
    assert RouterSettings.names() == {option.name for option in fields(RouterSettings)}


def test_redelivery_waits_exponentially_up_to_the_claim_time() -> None:
    settings = RouterSettings(claim_min_idle_ms=10_000)
    for deliveries, full in enumerate((2, 4, 8, 10, 10), start=1):
        assert 0.75 * full <= settings.redelivery_delay(deliveries) <= full


def test_redelivery_waits_as_configured() -> None:
    assert RouterSettings(redelivery_backoff=constant(120)).redelivery_delay(1) == 120


@pytest.mark.parametrize(
    ("key", "tag"),
    [("{orders}:events", "orders"), ("a{b}c{d}", "b"), ("{{a}}", "{a"), ("plain", None), ("{}x", None), ("{x", None)],
)
def test_hash_tags_are_found_as_redis_cluster_finds_them(key: str, tag: str | None) -> None:
    assert hash_tag(key) == tag
