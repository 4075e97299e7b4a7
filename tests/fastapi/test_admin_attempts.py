"""Failed attempts over HTTP: those of a dead letter, redacted like its error, and those of pending entries."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
import redis as redis_sync
from fastapi.testclient import TestClient

from rapids._core.attempt_log import MESSAGE_LIMIT, Attempt, AttemptLog
from rapids._core.outcomes import Ledger, Wait
from rapids._storage.keys import WAITING, Source
from rapids.inspection import Inspector
from rapids.redaction import MASK, HiddenValues
from rapids_fastapi.admin import groups
from tests.fastapi.helpers import STREAM, client_for, put_letter

LETTERS = "/rapids/api/dead-letters"
PENDING = "/rapids/api/groups/pending"
GROUP = "payments"
HOSTILE = "<script>alert(1)</script>\x00\x1b[31m\u202egnp.exe\u2028'\"; DROP"
AT = datetime(2026, 1, 1, 12, 0, 0, 250_000, tzinfo=UTC)
SECRET = "4111-1111-1111-1111"


def attempt(delivery: int = 1, error: str = "why", **values: Any) -> Attempt:
    values = {"attempt": 1, "at": AT, "consumer": "web-1", "error_type": "ValueError", **values}
    return Attempt(delivery, error=error, **values)


def detail_with(client: TestClient, url: str, attempts: str | bytes, **fields: str | bytes) -> dict[str, Any]:
    response = client.get(f"{LETTERS}/{put_letter(url, attempts=attempts, **fields)}")
    assert response.status_code == 200, response.text
    return response.json()


class TestLetter:
    def test_every_attempt_and_the_position_are_in_the_detail(self, client: TestClient, redis_url: str) -> None:
        log = AttemptLog.of(Attempt(1), attempt(2, attempt=3))

        detail = detail_with(client, redis_url, log.dump(), position="shop.payments:41 pay")

        nothing = {"recorded": False, "attempt": 0, "at": None, "consumer": "", "error_type": "", "error": ""}
        assert detail["attempts"] == [
            {"delivery": 1, **nothing},
            {
                "delivery": 2,
                "recorded": True,
                "attempt": 3,
                "at": "2026-01-01T12:00:00.250000Z",
                "consumer": "web-1",
                "error_type": "ValueError",
                "error": "why",
            },
        ]
        assert detail["attempts_left_out"] == 0
        assert detail["position"] == "shop.payments:41 pay"

    def test_of_many_attempts_it_counts_those_left_out(self, client: TestClient, redis_url: str) -> None:
        detail = detail_with(client, redis_url, AttemptLog.of(*map(attempt, range(1, 101))).dump())

        assert [one["delivery"] for one in detail["attempts"]] == [*range(1, 6), *range(86, 101)]
        assert detail["attempts_left_out"] == 80

    def test_a_letter_of_another_version_has_no_attempts(self, client: TestClient, redis_url: str) -> None:
        detail = client.get(f"{LETTERS}/{put_letter(redis_url)}").json()
        assert (detail["attempts"], detail["attempts_left_out"], detail["position"]) == ([], 0, "")

    @pytest.mark.parametrize(
        "stored",
        [
            b"\xff",
            b"[" * 5_000_000,
            b'{"a":' * 100_000,
            b"[7,7]",
            b'[[1,1,1,"c","t",["e"]]]',
            b"[" + b"[1]," * 2_000_000,
        ],
        ids=lambda stored: repr(stored[:8]),
    )
    def test_invalid_stored_attempts_are_not_shown(self, client: TestClient, redis_url: str, stored: bytes) -> None:
        detail = detail_with(client, redis_url, stored)
        assert (detail["attempts"], detail["attempts_left_out"]) == ([], 0)

    def test_texts_are_only_data(self, client: TestClient, redis_url: str) -> None:
        hostile = attempt(error=HOSTILE, consumer=HOSTILE, error_type=HOSTILE)

        detail = detail_with(client, redis_url, AttemptLog.of(hostile).dump(), position=HOSTILE + "x" * 5_000_000)

        (shown,) = detail["attempts"]
        assert shown["error"] == shown["consumer"] == shown["error_type"] == HOSTILE
        assert detail["position"].startswith(HOSTILE)
        assert len(detail["position"]) == 1_000

    def test_errors_do_not_show_what_is_hidden_in_the_payload(self, client: TestClient, redis_url: str) -> None:
        log = AttemptLog.of(attempt(1, f"declined: {SECRET}"), attempt(2, f"token t0psecret, {SECRET}"))
        hidden = {"data": json.dumps({"card_number": SECRET}), "metadata": json.dumps({"token": "t0psecret"})}

        detail = detail_with(client, redis_url, log.dump(), **hidden)

        assert [one["error"] for one in detail["attempts"]] == [f"declined: {MASK}", f"token {MASK}, {MASK}"]
        assert SECRET not in json.dumps(detail)

    @pytest.mark.parametrize("left", range(3, len(SECRET)))
    def test_cut_errors_do_not_show_the_beginning_of_a_secret(
        self, client: TestClient, redis_url: str, left: int
    ) -> None:
        error = "declined: ".ljust(MESSAGE_LIMIT - left, ".") + SECRET[:left]

        detail = detail_with(
            client, redis_url, AttemptLog.of(attempt(1, error)).dump(), data=json.dumps({"card_number": SECRET})
        )

        assert detail["attempts"][0]["error"] == error[:-left] + MASK

    def test_without_redaction_errors_are_complete(self, redis_url: str) -> None:
        log, data = AttemptLog.of(attempt(1, f"declined: {SECRET}")), json.dumps({"card_number": SECRET})
        with client_for(redis_url, redact=None) as client:
            assert (
                detail_with(client, redis_url, log.dump(), data=data)["attempts"][0]["error"] == f"declined: {SECRET}"
            )


def test_only_the_beginning_of_a_value_is_masked_at_an_end() -> None:
    assert HiddenValues([SECRET]).text("it is 4111") == f"it is {MASK}"
    assert HiddenValues([SECRET]).text("it is 41") == "it is 41"


class TestPending:
    @pytest.fixture
    def raw(self, raw: redis_sync.Redis) -> redis_sync.Redis:
        """With one pending entry."""
        raw.xadd(STREAM, {"n": "1"}, id="1-1")
        raw.xgroup_create(STREAM, GROUP, "0")
        raw.xreadgroup(GROUP, "worker", {STREAM: ">"})
        return raw

    def keep(self, raw: redis_sync.Redis, ledger: bytes) -> None:
        source = Source(STREAM, GROUP)
        raw.hset(source.ledger, "1-1", ledger)  # type: ignore[arg-type]
        raw.zadd(source.due, {"1-1": 4_102_444_800_000})
        raw.xclaim(STREAM, GROUP, WAITING.decode(), 0, ["1-1"], justid=True)

    def shown(self, client: TestClient, **query: str) -> Any:
        response = client.get(PENDING, params={"group": GROUP, **query})
        assert response.status_code == 200, response.text
        (entry,) = response.json()["items"]
        return entry["attempts"]

    def test_attempts_are_shown_without_their_errors(
        self, client: TestClient, redis_url: str, raw: redis_sync.Redis
    ) -> None:
        logs = (
            ("mail", AttemptLog.of(attempt(2, f"no: {SECRET}"))),
            ("pay", AttemptLog.of(Attempt(1), attempt(2, SECRET))),
        )
        self.keep(raw, Ledger(recorded=2, waits=(Wait("pay", 2, due_ms=4_102_444_800_000),), attempts=logs).dump())

        for query in ({}, {"state": "waiting"}):
            mail, pay = self.shown(client, **query)
            assert (mail["handler"], pay["handler"], pay["left_out"]) == ("mail", "pay", 0)
            assert [(one["delivery"], one["recorded"], one["error"]) for one in pay["attempts"]] == [
                *((1, False, ""), (2, True, MASK)),
            ]
            assert (mail["attempts"][0]["error_type"], mail["attempts"][0]["consumer"]) == ("ValueError", "web-1")
            assert SECRET not in json.dumps([mail, pay])
        with client_for(redis_url, redact=None) as open_client:
            assert self.shown(open_client)[0]["attempts"][0]["error"] == f"no: {SECRET}"

    def test_many_attempts_are_not_read_and_written_in_the_event_loop(
        self, client: TestClient, raw: redis_sync.Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A page of 200 entries with the attempts of ten handlers took it for a second."""
        loops, threads = set[int](), list[int]()
        load, entry, look = Ledger.load, groups.redacted_entry, Inspector.waiting

        async def noting_loop(*given: Any, **named: Any) -> Any:
            loops.add(threading.get_ident())
            return await look(*given, **named)

        def noting(function: Any) -> Any:
            return lambda *given, **named: threads.append(threading.get_ident()) or function(*given, **named)

        monkeypatch.setattr(Inspector, "waiting", noting_loop)
        monkeypatch.setattr(Ledger, "load", noting(load))
        monkeypatch.setattr(groups, "redacted_entry", noting(entry))
        self.keep(raw, Ledger(recorded=2, attempts=(("pay", AttemptLog.of(attempt())),)).dump())
        assert self.shown(client, state="waiting")
        assert len(threads) == 2
        assert loops.isdisjoint(threads)

    @pytest.mark.parametrize("stored", [7, [], {}, {"pay": 7}, {"pay": [[[]]]}, {"pay": [[2**60]]}], ids=repr)
    def test_invalid_stored_attempts_are_not_shown(
        self, client: TestClient, raw: redis_sync.Redis, stored: Any
    ) -> None:
        self.keep(raw, orjson.dumps({"n": 1, "done": [], "dead": [], "gave_up": [], "waits": {}, "attempts": stored}))
        assert self.shown(client) == []

    def test_texts_are_only_data(self, redis_url: str, raw: redis_sync.Redis) -> None:
        log = AttemptLog.of(attempt(error=HOSTILE, consumer=HOSTILE, error_type=HOSTILE))
        self.keep(raw, Ledger(recorded=1, attempts=((HOSTILE, log), ("x" * 5_000, log))).dump())
        with client_for(redis_url, redact=None) as client:
            one, other = self.shown(client)
        assert one["handler"] == one["attempts"][0]["error"] == one["attempts"][0]["consumer"] == HOSTILE
        assert len(other["handler"]) == 1_000
