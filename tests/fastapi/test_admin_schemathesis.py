"""Thousands of requests made from the admin's OpenAPI document, valid and invalid ones.

Each must be answered as documented (status, headers, content type, schema), never with a 500. A request without the
needed permission must change nothing. The requests are always the same, so that a failure can be repeated.

Schemathesis makes them while the file is collected, which takes seconds: `conftest.py` does not collect it in a run
without slow tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import (
    negative_data_rejection,
    positive_data_acceptance,
    response_schema_conformance,
)

from rapids._storage.keys import audit_log
from tests.fastapi.admin_paths import document
from tests.fastapi.helpers import until
from tests.fastapi.served_admin import DLQ, GROUP, OPERATOR, READER, STREAM, app_on, contents, fill, letter_id, serving
from tests.model.profiles import slow_examples
from tests.servers.choice import Servers
from tests.support import NO_TLS, idle_router

pytestmark = [
    pytest.mark.slow,
    pytest.mark.unmeasured,
    # The application runs in a thread of this process, and routers spread their work by `random`.
    pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies"),
]

REQUESTS = settings(
    slow_examples(quick=4, deep=8, thorough=500),
    suppress_health_check=list(HealthCheck),
)
EXCLUDED = [positive_data_acceptance]
"""The admin refuses some values that their schemas allow, such as cursors of other lists: the document says 422."""

schema = schemathesis.openapi.from_dict(document())


OPERATION: list[str] = []
"""The id of an operation that has ended."""


@schema.hook
def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    """Replace half of the ids by ids that exist: a random one never does."""
    return {name: known(name, value) for name, value in path_parameters.items()} if path_parameters else path_parameters


def known(name: str, value: Any) -> Any:
    if not isinstance(value, str) or len(value) % 2 == 0 or len(value) >= 100:
        return value
    return letter_id(sum(map(ord, value))) if name == "letter_id" else OPERATION[0]


@pytest.fixture(scope="module")
def server(servers: Servers) -> str:
    servers.flush_now()
    fill(servers.url)
    with serving(app_on(servers.url)) as base:
        url = f"{base}/rapids/api/operations"
        body = {"kind": "discard", "selector": {"ids": [letter_id(0)]}}
        OPERATION[:] = [httpx.post(url, json=body, headers=OPERATOR, timeout=60, verify=NO_TLS).json()["id"]]
        until(
            lambda: (
                httpx.get(f"{url}/{OPERATION[0]}", headers=OPERATOR, timeout=60, verify=NO_TLS).json()["state"]
                == "completed"
            )
        )
    return servers.url


@pytest.fixture(scope="module")
def busy(server: str) -> Iterator[str]:
    with serving(app_on(server, [idle_router(stream=STREAM, group=GROUP)])) as base:
        yield base


def index(base: str) -> None:
    """Read the counts until all letters are indexed: letters that a test writes are indexed when counts are read."""
    stats = f"{base}/rapids/api/dead-letters/stats"
    until(lambda: httpx.get(stats, headers=READER, timeout=60, verify=NO_TLS).json()["unindexed"] == 0)


@pytest.fixture(scope="module")
def quiet(server: str) -> Iterator[str]:
    """The application without routers, so that only requests change something."""
    with serving(app_on(server)) as base:
        index(base)
        yield base


@pytest.fixture
def unchanged(server: str) -> Iterator[None]:
    before = contents(server)
    yield
    changed = {key: value for key, value in contents(server).items() if before.pop(key, None) != value}
    assert (before, [*changed]) in [({}, []), ({}, [audit_log(DLQ).encode()])]  # exports are in the audit log


def asked(case: schemathesis.Case, base: str, user: dict[str, str]) -> schemathesis.Response:
    """The answer, which is as documented."""
    response = case.call(base_url=base, headers=user)
    # A request that is too large is refused, whether it is valid or not.
    excluded = [*EXCLUDED, negative_data_rejection] if response.status_code == 413 else EXCLUDED
    if response.headers.get("content-type", [""])[0].startswith("text/event-stream"):
        excluded = [*excluded, response_schema_conformance]  # it holds each event against the schema of all the text
    case.validate_response(response, excluded_checks=excluded)
    return response


@pytest.mark.usefixtures("unchanged")
@schema.parametrize()
@REQUESTS
def test_a_reader_changes_nothing(case: schemathesis.Case, quiet: str) -> None:
    response = asked(case, quiet, READER)
    assert case.operation.definition.raw.get("x-rapids-permission", []) in ("read", []) or response.status_code in (
        403,
        405,
    )


@schema.exclude(method="GET").parametrize()
@REQUESTS
def test_an_operator_gets_documented_answers(case: schemathesis.Case, busy: str) -> None:
    """Routes that only read answer an operator as they answer a reader."""
    asked(case, busy, OPERATOR)
