"""The overview and the series over HTTP: what the application shows in one request."""

from __future__ import annotations

from rapids import EventEmitter
from rapids_fastapi import Rapids
from tests.fastapi.helpers import BEARER, DLQ, STREAM, admin_app, client_of, put_letter, until
from tests.support import idle_router

OVERVIEW = "/rapids/api/overview"
SERIES = "/rapids/api/series"
HOSTILE = "<script>alert(1)</script>\u2028\ud800"


def test_one_request_shows_all_streams_and_first_what_is_wrong(redis_url: str) -> None:
    """The application's own ones, and those whose routers only announced themselves."""
    own = idle_router(stream=STREAM, group="payments", dlq_maxlen=50)
    elsewhere = idle_router(stream="fa:invoices", group="mail")
    put_letter(redis_url, original_group="payments", handler="take_payment", error_type="bank.CardDeclined")
    put_letter(redis_url, original_group="payments", handler=HOSTILE.encode(errors="surrogatepass"))
    other = Rapids(url=redis_url, emitter=EventEmitter(stream="fa:invoices"), routers=[elsewhere])
    with (
        client_of(admin_app(other)),
        client_of(admin_app(Rapids(url=redis_url, routers=[own])), BEARER) as client,
    ):
        until(lambda: len(client.get("/rapids/api/streams").json()["items"]) == 2)
        found = client.get(OVERVIEW).json()
        assert [one["kind"] for one in found["findings"]] == ["failing", "failing"]
        assert "`take_payment` has failed once since" in str(found["findings"])
        [invoices, orders] = found["streams"]
        assert (invoices["stream"], orders["stream"]) == ("fa:invoices", STREAM)
        [group] = orders["groups"]
        assert (group["group"], group["dlq"], group["dead_letters"], len(group["handled"])) == ("payments", DLQ, 2, 60)
        assert [(one["dlq"], one["length"], one["maxlen"]) for one in found["queues"]][-1] == (DLQ, 2, 50)

        series = client.get(SERIES, params={"stream": STREAM, "step": "10"}).json()
        assert (series["step"], len(series["appended"]), series["groups"][0]["group"]) == (10, 360, "payments")
        only = client.get(SERIES, params={"stream": "fa:invoices", "group": "mail"}).json()
        assert [one["group"] for one in only["groups"]] == ["mail"]
        for wrong, status in (({"step": "11"}, 422), ({"group": "other"}, 404), ({"stream": "secret"}, 404)):
            assert client.get(SERIES, params={"stream": STREAM, **wrong}).status_code == status


def test_what_is_read_is_one_second_old_at_most_and_what_fails_is_seen(redis_url: str) -> None:
    router = idle_router(stream=STREAM, group="payments")
    with client_of(admin_app(Rapids(url=redis_url, routers=[router])), BEARER) as client:
        assert client.get(OVERVIEW).json()["findings"] == []
        put_letter(redis_url, original_group="payments")
        until(lambda: client.get(OVERVIEW).json()["findings"])
