"""`python -m benchmarks.http_pages`: an operator who looks through dead letters, one request after the other."""

from __future__ import annotations

import http.client
import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from benchmarks.jobs import RARE_ERROR, RARE_LETTERS
from benchmarks.memory import most_mib
from rapids import DeadLetterQueue

REPEATS = 5
"""How often a page is asked for: the median is what it takes."""
LETTERS = "/rapids/api/dead-letters"
CAUSES = f"{LETTERS}/causes" if hasattr(DeadLetterQueue, "causes") else f"{LETTERS}/groups"
"""Named groups before 0.2.0, which this is measured next to."""
LARGEST_PAGE = 200
DEEP = 250
"""Pages of the largest size to go down by cursor."""
PATIENCE = 60.0
"""Seconds: the server starts during it, and no answer takes that long."""


@dataclass(frozen=True, slots=True)
class Looking:
    """Where the admin is."""

    port: int
    token: str
    server: int
    """The number of its process."""


class _Admin:
    def __init__(self, looking: Looking) -> None:
        self._headers = {"Authorization": f"Bearer {looking.token}"}
        self._connection = _connected(looking.port)
        self.milliseconds: list[float] = []
        """What each answer took since this was emptied last, its JSON read."""

    def get(self, path: str, **query: object) -> dict:
        began = time.perf_counter()
        self._connection.request("GET", f"{path}?{urlencode(query)}", headers=self._headers)
        answer = self._connection.getresponse()
        body = json.loads(answer.read())
        self.milliseconds.append((time.perf_counter() - began) * 1_000)
        assert answer.status == 200, body
        return body

    def median(self, path: str, **query: object) -> float:
        self.milliseconds.clear()
        for _ in range(REPEATS):
            self.get(path, **query)
        return statistics.median(self.milliseconds)

    def pages(self, most: int) -> Iterator[dict]:
        """The largest pages from the newest letter on, so many of them."""
        page = self.get(LETTERS, limit=LARGEST_PAGE)
        yield page
        for _ in range(1, most):
            if page["next_cursor"] is None:
                return
            page = self.get(LETTERS, limit=LARGEST_PAGE, cursor=page["next_cursor"])
            yield page


def look(looking: Looking) -> Mapping[str, float]:
    admin = _Admin(looking)
    groups = admin.get(CAUSES, limit=LARGEST_PAGE)["items"]
    rare = admin.get(LETTERS, error_type=RARE_ERROR)["items"]
    assert len(rare) == RARE_LETTERS, f"{len(rare)} letters of the rarest error"
    found = {name: admin.median(LETTERS, **query) for name, query in _queries(groups[0]).items()}
    first = most_mib(looking.server)
    found.update(_deep(admin))
    found["letter"] = admin.median(f"{LETTERS}/{rare[0]['id']}")
    found["groups"] = admin.median(CAUSES)
    found["all_groups"] = admin.median(CAUSES, limit=LARGEST_PAGE)
    return {**found, "growth": most_mib(looking.server) / first}


def _queries(large: Mapping[str, str]) -> Mapping[str, Mapping[str, str]]:
    """A page by each filter there is, and by some together; `large` is the largest group."""
    middle = large["last_at"]
    return {
        "first": {},
        "event_type": {"event_type": large["event_type"]},
        "event_type_glob": {"event_type": "order.*"},
        "handler": {"handler": large["handler"]},
        "group": {"group": large["group"]},
        "reason": {"reason": large["reason"]},
        "error_type": {"error_type": "ValueError"},
        "fingerprint": {"fingerprint": large["fingerprint"]},
        "since": {"since": large["first_at"]},
        "until": {"until": middle},
        "combined": {"event_type": "order.*", "group": large["group"], "reason": "non_retryable", "until": middle},
        "few": {"error_type": RARE_ERROR},
        "none": {"error_type": "NoSuchError"},
        "text": {"q": "no such text"},
    }


def _deep(admin: _Admin) -> Mapping[str, float]:
    admin.milliseconds.clear()
    cursor = None
    for page in admin.pages(DEEP):
        cursor = page["next_cursor"] or cursor
    largest, slowest = statistics.median(admin.milliseconds), max(admin.milliseconds)
    return {"deep": admin.median(LETTERS, cursor=cursor), "largest": largest, "slowest_page": slowest}


def _connected(port: int) -> http.client.HTTPConnection:
    until = time.monotonic() + PATIENCE
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        try:
            connection.request("GET", "/rapids/health/live")
            connection.getresponse().read()
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return connection


if __name__ == "__main__":
    print(json.dumps(look(Looking(**json.loads(sys.argv[1])))))
