"""Parameters that do not exist, and values that cannot match, are refused and not ignored."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.security import APIKeyQuery
from fastapi.testclient import TestClient

from rapids.dead_letters import Reason
from rapids_fastapi import rapids_admin
from tests.fastapi.admin_paths import filled, guarded
from tests.fastapi.helpers import BEARER, rapids_with

LETTERS = "/rapids/api/dead-letters"


@pytest.mark.parametrize(("method", "path"), sorted(guarded()))
def test_every_route_refuses_an_unknown_parameter(client: TestClient, method: str, path: str) -> None:
    response = client.request(
        method, filled(path), params={"handlr": "h"}, headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 422
    (fault,) = response.json()["errors"]
    assert fault["where"] == "query.handlr"


def test_the_error_names_the_parameters_that_there_are(client: TestClient) -> None:
    response = client.get("/rapids/api/operations?LIMIT=5&limit=5")
    assert response.json()["errors"] == [{"where": "query.LIMIT", "message": "unknown; there is cursor, dlq, limit"}]


def test_it_names_no_more_than_some_of_many_and_cuts_long_ones(client: TestClient) -> None:
    response = client.get(LETTERS, params={f"{n}{'x' * 1_000}": "1" for n in range(30)})
    assert response.status_code == 422
    assert len(response.json()["errors"]) == 20
    assert len(response.text) < 20_000


@pytest.mark.parametrize("path", [LETTERS, f"{LETTERS}/causes", f"{LETTERS}/export"])
def test_an_unknown_reason_is_refused(client: TestClient, path: str) -> None:
    response = client.get(path, params={"reason": "foo"})
    assert response.status_code == 422
    assert response.json()["errors"][0]["where"] == "query.reason"
    assert all(reason in response.text for reason in Reason)
    for reason in ("", *Reason):
        assert client.get(path, params={"reason": reason}).status_code == 200


def test_an_unknown_reason_of_an_operation_is_refused(client: TestClient) -> None:
    wanted: dict[str, Any] = {"kind": "discard", "selector": {"filter": {"reason": "foo"}}, "dry_run": True}
    response = client.post("/rapids/api/operations", json=wanted)
    assert response.status_code == 422
    assert response.json()["errors"][0]["where"] == "body.selector.filter.reason"


def test_parameters_of_the_applications_own_dependencies_are_known(redis_url: str) -> None:
    def tenant_of(tenant: str) -> str:
        return tenant

    app = FastAPI(lifespan=rapids_with(redis_url).lifespan)
    app.include_router(rapids_admin, dependencies=[Depends(tenant_of), Depends(APIKeyQuery(name="key"))])
    with TestClient(app, headers=BEARER) as client:
        assert client.get(LETTERS, params={"tenant": "acme", "key": "k"}).status_code == 200
        assert client.get(LETTERS, params={"tenant": "acme", "key": "k", "other": "1"}).status_code == 422
