"""Causes of dead letters over HTTP: counts, filters and pages; and the counts of their queue."""

from __future__ import annotations

import re
from typing import Any

import pytest
import redis as redis_sync
from fastapi.testclient import TestClient

from tests.fastapi.helpers import DLQ, STREAM, client_for, letter_fields, put_letter
from tests.support import idle_router

LETTERS = "/rapids/api/dead-letters"
CAUSES = f"{LETTERS}/causes"
HOSTILE = "<script>\x00\u202e" + "x" * 2_000


def causes(client: TestClient, **query: Any) -> dict[str, Any]:
    response = client.get(CAUSES, params=query)
    assert response.status_code == 200, response.text
    return response.json()


class TestCauses:
    @pytest.fixture
    def letters(self, redis_url: str) -> None:
        for n in range(6):
            put_letter(redis_url, handler="abc"[n // 3 + n // 5], event_type=f"order.{n % 2}")

    @pytest.mark.usefixtures("letters")
    def test_the_largest_come_first_with_counts_and_times(self, client: TestClient) -> None:
        found = causes(client)
        counts = [(cause["handler"], cause["event_type"], cause["count"]) for cause in found["items"]]
        assert sorted(counts) == [
            *(("a", "order.0", 2), ("a", "order.1", 1), ("b", "order.0", 1)),
            *(("b", "order.1", 1), ("c", "order.1", 1)),
        ]
        assert counts[0][2] == 2
        assert (found["dlq"], found["total"], found["letters"]) == (DLQ, 5, 6)
        largest = found["items"][0]
        assert largest["first_at"] <= largest["last_at"]
        assert (largest["group"], largest["reason"]) == ("group", "max_deliveries_exceeded")
        assert found["stats"] == client.get(f"{LETTERS}/stats").json()

    @pytest.mark.usefixtures("letters")
    def test_filters_and_pages(self, client: TestClient) -> None:
        assert causes(client, handler="a")["letters"] == 3
        assert causes(client, event_type="order.*", handler="c")["total"] == 1
        assert causes(client, group="nobody")["items"] == []
        seen: list[str] = []
        url = f"{CAUSES}?limit=2&event_type=order.*"
        while True:
            response = client.get(url)
            seen += [cause["fingerprint"] for cause in response.json()["items"]]
            if response.json()["next_cursor"] is None:
                break
            url = response.links["next"]["url"]
        assert len(seen) == len(set(seen)) == 5
        assert client.get(CAUSES, params={"cursor": "bGV0dGVyczoxLTE"}).status_code == 422

    @pytest.mark.usefixtures("letters")
    def test_the_letters_of_a_cause_are_listed_by_its_fingerprint(self, client: TestClient) -> None:
        for cause in causes(client)["items"]:
            page = client.get(LETTERS, params={"fingerprint": cause["fingerprint"]}).json()
            assert len(page["items"]) == page["total"] == cause["count"]
            assert page["total_exact"] is True
            assert {item["fingerprint"] for item in page["items"]} == {cause["fingerprint"]}
            assert causes(client, fingerprint=cause["fingerprint"])["total"] == 1
        for junk in ("", "x", "others", "0" * 17, "ABCDEF0123456789"):
            assert client.get(LETTERS, params={"fingerprint": junk}).status_code == 422

    def test_causes_beyond_the_limit_have_no_fingerprint(self, client: TestClient, raw: redis_sync.Redis) -> None:
        with raw.pipeline(transaction=False) as pipeline:
            for number in range(1_001):
                pipeline.xadd(DLQ, letter_fields(handler=f"handler-{number}"))  # type: ignore[arg-type]
            pipeline.execute()
        causes(client)
        fingerprints: list[str] = []
        url: str | None = f"{CAUSES}?limit=200"
        while url:
            response = client.get(url)
            fingerprints += [cause["fingerprint"] for cause in response.json()["items"]]
            url = response.links.get("next", {}).get("url")
        assert (len(fingerprints), fingerprints.count("")) == (1_001, 1)
        assert all(re.fullmatch("[0-9a-f]{16}", one) for one in fingerprints if one)

    def test_names_of_any_kind_are_shown_and_cut(self, client: TestClient, redis_url: str) -> None:
        put_letter(redis_url, handler=HOSTILE, event_type=HOSTILE, original_group=HOSTILE, error_type=HOSTILE)
        (cause,) = causes(client)["items"]
        for name in ("handler", "event_type", "group", "error_type"):
            assert cause[name].startswith("<script>\x00\u202e")
            assert len(cause[name]) <= 1_000


class TestStats:
    def test_counts_and_the_maximum(self, client: TestClient, redis_url: str) -> None:
        empty = client.get(f"{LETTERS}/stats").json()
        assert (empty["length"], empty["unindexed"], empty["cut"], empty["cut_at"]) == (0, 0, 0, None)
        assert empty["maxlen"] == 10_000
        put_letter(redis_url)
        assert client.get(f"{LETTERS}/stats").json()["length"] == 1

    def test_reindexing_counts_again(self, client: TestClient, redis_url: str, raw: redis_sync.Redis) -> None:
        for _ in range(3):
            put_letter(redis_url)
        assert causes(client)["letters"] == 3
        raw.xtrim(DLQ, maxlen=1, approximate=False)
        answer = client.post(f"{LETTERS}/reindex", json={})
        assert answer.status_code == 200
        assert (answer.json()["length"], answer.json()["unindexed"]) == (1, 0)
        assert causes(client)["letters"] == 1

    def test_one_of_several_must_be_named(self, redis_url: str) -> None:
        routers = [idle_router(stream=STREAM, group=group, dlq_stream=f"fa:{group}") for group in ("a", "b")]
        with client_for(redis_url, routers=routers, emitter=None) as client:
            for path in (CAUSES, f"{LETTERS}/stats"):
                assert client.get(path).json()["type"] == "urn:rapids:problem:dlq-needed"
                assert client.get(path, params={"dlq": "fa:a"}).json()["dlq"] == "fa:a"


@pytest.mark.parametrize(
    ("maxlens", "shown"), [([20_000], 20_000), ([None], None), ([5_000, 20_000], 20_000), ([5_000, None], None)]
)
def test_the_queue_has_the_limit_of_its_routers(redis_url: str, maxlens: list[int | None], shown: int | None) -> None:
    """With a limit of its own, a restored letter would trim letters that the routers keep."""
    routers = [idle_router(stream=STREAM, group=f"g{n}", dlq_maxlen=maxlen) for n, maxlen in enumerate(maxlens)]
    with client_for(redis_url, routers=routers) as client:
        assert client.get(f"{LETTERS}/stats").json()["maxlen"] == shown
