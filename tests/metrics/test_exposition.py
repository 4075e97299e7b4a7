"""What Prometheus reads: every metric with its name, labels and value, in each format, at a limited size."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text
from redis.asyncio import Redis

from rapids import EventEmitter, NonRetryableError
from rapids.counters import COUNTERS, HISTOGRAMS, OTHER
from rapids.inspection import GroupReader, WatchedGroup, group_reader
from rapids.metrics import METRICS, Metrics, ProcessReadings, exposition, process_readings, read_process
from rapids.metrics.catalogue import NAMES
from tests.redis.proxy import proxy_to
from tests.support import eventually
from tests.worker.helpers import DLQ, GROUP, STREAM, DvOrder, DvPayment, make_router, running, until_settled

Series = dict[str, list[tuple[Mapping[str, str], float]]]

OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
"""What Prometheus 2.42 sends."""


def series(families: Iterable[Any]) -> Series:
    """All series by the name of their metric."""
    found: Series = {}
    for family in families:
        for sample in family.samples:
            name = sample.name
            if family.type == "histogram":
                name = name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum")
            found.setdefault(name, []).append((sample.labels, sample.value))
    return found


def value(found: Series, name: str, **labels: str) -> float:
    return sum(value for have, value in found.get(name, []) if labels.items() <= have.items())


async def scraped(metrics: Metrics) -> Series:
    return series(read_text((await metrics.scrape()).body.decode()))


async def test_one_scrape_has_every_metric_with_its_labels(redis: Redis) -> None:
    router, emitter = make_router(redis, dlq_maxlen=500, max_deliveries=2), EventEmitter(redis, STREAM)
    router.use_histograms()

    @router.on(DvOrder)
    async def charge(event: DvOrder) -> None:
        if event.number:
            raise ValueError("declined")

    @router.on(DvPayment)
    async def pay(event: DvPayment) -> None:
        raise NonRetryableError("never")

    metrics = Metrics(lambda: {"1": read_process([router], [emitter])}, GroupReader(redis, [WatchedGroup.of(router)]))
    async with running(router):
        await emitter.emit([DvOrder(), DvOrder(number=1), DvPayment()])
        await until_settled(redis)
        await eventually(lambda: router.counters.total("acked") == 3)
        found = await scraped(metrics)

    missing = METRICS.keys() - found.keys()
    assert missing == {"rapids_events_emit_failed_total", "rapids_entries_parked_total"} - found.keys()
    for name, rows in found.items():
        for labels, _ in rows:
            assert labels.keys() - {"le"} == set(METRICS[name].labels), name
    assert value(found, "rapids_events_emitted_total", process="1", stream=STREAM, event_type="dv.order") == 2
    assert value(found, "rapids_events_handled_total", group=GROUP, handler="charge") == 1
    assert value(found, "rapids_events_failed_total", handler="charge") == 2
    assert value(found, "rapids_events_retried_total", handler="charge") == 1
    assert value(found, "rapids_dead_letters_written_total", reason="non_retryable", handler="pay") == 1
    assert (value(found, "rapids_up"), value(found, "rapids_group_lag_entries", stream=STREAM, group=GROUP)) == (1, 0)
    assert value(found, "rapids_group_consumers_alive") == 1
    assert value(found, "rapids_dead_letters", dlq=DLQ, group=GROUP) == value(found, "rapids_dlq_letters") == 2
    assert value(found, "rapids_dlq_limit_letters", dlq=DLQ) == 500
    assert value(found, "rapids_handling_seconds", le="+Inf", handler="charge") == 3
    assert value(found, "rapids_delay_seconds", le="+Inf", event_type="dv.order") == 2


async def test_a_handler_that_has_not_failed_yet_has_failures_of_0(redis: Redis) -> None:
    router = make_router(redis)

    @router.on(DvOrder)
    async def charge(event: DvOrder) -> None: ...

    async with running(router):
        await EventEmitter(redis, STREAM).emit(DvOrder())
        await eventually(lambda: router.counters.total("handled") == 1)
    found = await scraped(Metrics(lambda: {"1": read_process([router], [])}))
    for name in ("rapids_events_failed_total", "rapids_events_retried_total", "rapids_dead_letters_written_total"):
        assert {value for labels, value in found[name] if labels["handler"] == "charge"} == {0}, name


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        (OPENMETRICS, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ("text/plain;version=nonsense", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;version=-;escaping=\xff", "application/openmetrics-text; version=1.0.0"),
        (",;=" * 50, "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
async def test_the_format_is_the_one_that_is_asked_for(accept: str, content_type: str) -> None:
    hostile = 'a"b\\c\nd{}=,é'
    metrics = Metrics(lambda: {"1": ProcessReadings(counts={("emitted", (STREAM, hostile)): 3})})
    answer = await metrics.scrape(accept)
    assert answer.content_type.startswith(content_type)
    read = read_openmetrics if "openmetrics" in content_type else read_text
    found = series(read(answer.body.decode()))
    assert value(found, "rapids_events_emitted_total", stream=STREAM, event_type=hostile) == 3


async def test_names_that_others_wrote_are_text_and_nothing_else(redis: Redis) -> None:
    for name in (b"\xff\xed\xa0\x80", b'a"} 1\nrapids_up 0', "\\ud800 é".encode()):
        await redis.xgroup_create(STREAM, name, "0", mkstream=True)
        await redis.xadd(DLQ, {"original_group": name, "reason": b"\xfe", "handler": name})
    metrics = Metrics(groups=GroupReader(redis, [WatchedGroup(STREAM, None, DLQ)]))
    for accept, read in (("", read_text), (OPENMETRICS, read_openmetrics)):
        found = series(read((await metrics.scrape(accept)).body.decode()))
        assert len(found["rapids_group_lag_entries"]) == 3
        assert value(found, "rapids_dead_letters") == 3
        assert value(found, "rapids_up") == 1


async def test_a_failing_server_leaves_the_counters(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_reader, "FRESH", 0.0)
    monkeypatch.setattr(exposition, "FRESH", 0.0)
    await redis.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    readings = ProcessReadings(counts={("emitted", (STREAM, "dv.order")): 5})
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url) as client:
        metrics = Metrics(lambda: {"1": readings}, GroupReader(client, [WatchedGroup(STREAM, GROUP, DLQ)]))
        assert "rapids_group_lag_entries" in await scraped(metrics)
        await proxy.refuse()
        await proxy.cut()
        found = await scraped(metrics)
    assert value(found, "rapids_up") == 0
    assert value(found, "rapids_events_emitted_total") == 5
    assert not [name for name in found if name.startswith(("rapids_group", "rapids_dlq", "rapids_dead_letters"))]


async def test_a_registry_of_prometheus_client_has_the_groups_if_they_were_read(redis: Redis) -> None:
    await redis.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    metrics = Metrics(
        lambda: {"1": ProcessReadings(counts={("emitted", (STREAM, "dv.order")): 5})},
        GroupReader(redis, [WatchedGroup(STREAM, GROUP)]),
    )
    registry = CollectorRegistry()
    registry.register(metrics)
    found = series(read_text(generate_latest(registry).decode()))
    assert value(found, "rapids_events_emitted_total") == 5
    assert "rapids_up" not in found
    await metrics.read_groups()
    found = series(read_text(generate_latest(registry).decode()))
    assert (value(found, "rapids_up"), value(found, "rapids_group_consumers")) == (1, 0)


# --- several processes, and many labels -----------------------------------------------------------------------------


def test_what_a_process_counted_is_added_to_those_before_it() -> None:
    key, other, times = ("emitted", ("s", "a")), ("emitted", ("s", "b")), ("delay", ("s", "g", "a"))
    first = ProcessReadings(counts={key: 3.0, other: 1.0}, times={times: ((1, 0), 0.5)})
    second = ProcessReadings(counts={key: 2.0}, times={times: ((0, 2), 3.0)})
    assert first + second == ProcessReadings(2, {key: 5.0, other: 1.0}, {times: ((1, 2), 3.5)})


def test_event_types_that_differ_from_process_to_process_stay_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_readings, "MAX_ADDED", 10)
    total = ProcessReadings(starts=0)
    for number in range(100):
        total += ProcessReadings(counts={("delivered", ("s", "g", f"type.{number}")): 1.0, ("acked", ("s", "g")): 1.0})
    assert len(total.counts) == 11
    assert total.counts["delivered", ("s", "g", OTHER)] == 91
    assert total.counts["acked", ("s", "g")] == total.starts == 100


async def test_a_hundred_thousand_event_types_do_not_make_the_answer_larger() -> None:
    router = make_router(None)
    emitter = EventEmitter(Redis(), STREAM)
    for number in range(100_000):
        of_type = router._counts.of_type(f"hostile.{number}")  # pyright: ignore[reportPrivateUsage] - without a server
        of_type.delivered += 1
        of_type.handled["catch_all"] = 1
        router._counts.times_of(of_type).of_handler("catch_all").add(0.2)  # pyright: ignore[reportPrivateUsage]
        emitter._counts.of_raw_type(b"hostile.%d" % number).emitted += 1  # pyright: ignore[reportPrivateUsage]
    found = await scraped(Metrics(lambda: {"1": read_process([router], [emitter])}))
    for name, most in (
        ("rapids_entries_delivered_total", 1_001),
        ("rapids_events_emitted_total", 1_001),
        ("rapids_events_failed_total", 1_001),
        ("rapids_dead_letters_written_total", 2_002),
        ("rapids_handling_seconds", 101 * 18),
    ):
        assert len(found[name]) == most
    assert value(found, "rapids_events_emitted_total") == 100_000
    assert value(found, "rapids_entries_delivered_total", event_type=OTHER) == 99_000
    assert sum(map(len, found.values())) < 12_000


async def test_scrapes_at_the_same_time_share_one_read(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    await redis.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    reader, reads = GroupReader(redis, [WatchedGroup(STREAM, GROUP)]), 0
    look = reader._look  # pyright: ignore[reportPrivateUsage]

    async def counted() -> Any:
        nonlocal reads
        reads += 1
        return await look()

    monkeypatch.setattr(reader, "_look", counted)
    monkeypatch.setattr(group_reader, "FRESH", 3_600.0)
    metrics = Metrics(groups=reader)
    answers = await asyncio.gather(*(metrics.scrape() for _ in range(20)))
    assert reads == 1
    assert {answer.body for answer in answers} == {answers[0].body}


async def test_the_event_loop_turns_during_a_rendering_which_is_for_all_who_ask_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exposition, "FRESH", 3_600.0)
    may_end, renderings = threading.Event(), 0

    def processes() -> dict[str, ProcessReadings]:
        nonlocal renderings
        renderings += 1
        assert may_end.wait(5), "the event loop waits for the rendering"
        return {"1": ProcessReadings(starts=renderings)}

    metrics = Metrics(processes)
    scrapes = [asyncio.create_task(metrics.scrape()) for _ in range(20)]
    await eventually(lambda: renderings)
    scrapes[0].cancel()  # the first one may be gone: the others need no second rendering
    scrapes += [asyncio.create_task(metrics.scrape()) for _ in range(20)]
    await asyncio.sleep(0)
    may_end.set()
    answers = await asyncio.gather(*scrapes[1:])
    assert renderings == 1
    assert {answer.body for answer in answers} == {(await metrics.scrape()).body}
    monkeypatch.setattr(exposition, "FRESH", 0.0)
    assert value(await scraped(metrics), "rapids_process_starts_total") == renderings == 2


# --- the catalogue --------------------------------------------------------------------------------------------------


def test_every_counter_and_histogram_is_a_metric_with_the_labels_of_its_process() -> None:
    assert NAMES.keys() == COUNTERS.keys() | HISTOGRAMS.keys()
    for name, metric in NAMES.items():
        source = {**COUNTERS, **HISTOGRAMS}[name]
        assert METRICS[metric].labels == ("process", *source.labels)
        assert METRICS[metric].kind == ("counter" if name in COUNTERS else "histogram")


def test_names_follow_the_conventions_of_prometheus() -> None:
    for name, metric in METRICS.items():
        assert name == metric.name
        assert name.startswith("rapids_")
        assert name.endswith("_total") == (metric.kind == "counter")
        assert metric.about[0].isupper()
        assert not metric.about.endswith(".")
        if metric.kind == "histogram":
            assert name.endswith("_seconds")
