"""Searches of dead letters over HTTP: each match is on one page, and small pages need few round trips."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from rapids import DeadLetterQueue
from tests.fastapi.helpers import put_letter

LETTERS = "/rapids/api/dead-letters"


@pytest.mark.parametrize("limit", [1, 2, 7, 200])
def test_pages_of_any_size_find_each_match_once(client: TestClient, redis_url: str, limit: int) -> None:
    put = [put_letter(redis_url, error="found" if n % 4 < 2 else "other") for n in range(45)]
    matches = [letter_id for n, letter_id in enumerate(put) if n % 4 < 2]
    found: list[str] = []
    query: dict[str, Any] | None = {"q": "found", "limit": limit}
    while query is not None:
        page = client.get(LETTERS, params=query).json()
        assert len(page["items"]) <= limit
        found += [item["id"] for item in page["items"]]
        query = {**query, "cursor": page["next_cursor"]} if page["next_cursor"] else None
    assert found == matches[::-1]


def test_a_small_page_needs_fewer_round_trips_than_letters(
    client: TestClient, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(100):
        put_letter(redis_url)
    look, looks = DeadLetterQueue.list, 0

    async def counted(queue: DeadLetterQueue, *given: Any, **options: Any) -> Any:
        nonlocal looks
        looks += 1
        return await look(queue, *given, **options)

    monkeypatch.setattr(DeadLetterQueue, "list", counted)
    page = client.get(LETTERS, params={"q": "absent", "limit": 1}).json()
    assert (page["items"], page["scanned"]) == ([], 100)
    assert looks <= 11


def test_a_search_that_has_only_one_page_has_an_exact_total(client: TestClient, redis_url: str) -> None:
    put_letter(redis_url)
    for q, total in (("it broke", 1), ("nowhere", 0)):
        page = client.get("/rapids/api/dead-letters", params={"q": q}).json()
        assert (page["total"], page["total_exact"], len(page["items"])) == (total, True, total)
