"""The list of what is measured."""

from __future__ import annotations

from typing import Any

from benchmarks.budgets import AtLeast, AtMost, AtMostMore, AtMostTimes, Budget, Flat, TimesFaster
from benchmarks.letter_scenarios import LETTERS
from benchmarks.scenario import ALL, BEFORE, Row, Scenario

WITHOUT_FASTSTREAM = ("ours", "floor", "peer")
OWN_AND_PEER = ("ours", "peer")


def _per_event(name: str, title: str, *budgets: Budget) -> tuple[Row, ...]:
    """The time of an event. Next to an earlier commit also the computing time of the measured process, which other work
    on the machine changes less."""
    cpu = Row(f"{name}-cpu", f"{title}: CPU", "cpu_us", "µs/event", charted=False, only_with=BEFORE)
    return (Row(name, title, "us", "µs/event", budgets), cpu)


def _uvloop(scenario: Scenario, *budgets: Budget) -> Scenario:
    """The same on uvloop, for all contenders alike."""
    name = f"{scenario.name}-uvloop"
    return Scenario(
        name=name,
        task=scenario.task,
        rows=_per_event(name, f"{scenario.rows[0].title}, uvloop", *budgets),
        contenders=WITHOUT_FASTSTREAM,
        count=scenario.count,
        counts=scenario.counts,
        options={**scenario.options, "loop": "uvloop"},
    )


EMIT_ONE = Scenario(
    name="emit-one",
    task="emit-one",
    rows=_per_event("emit-one", "emit, one at a time", AtMostTimes("floor", 1.0)),
    count=8_000,
)
EMIT_CONCURRENT = Scenario(
    name="emit-concurrent",
    task="emit-concurrent",
    rows=_per_event("emit-concurrent", "emit, 100 tasks", TimesFaster("peer", 4)),
    count=20_000,
    counts={"peer": 10_000, "faststream": 10_000, "floor": 10_000},
)
EMIT_LISTS = Scenario(
    name="emit-lists",
    task="emit-lists",
    rows=_per_event("emit-lists", "emit, lists of 100", TimesFaster("peer", 1.6)),
    count=30_000,
    counts={"faststream": 15_000},
)
CONSUME_DEFAULT = Scenario(
    name="consume-default",
    task="consume",
    rows=_per_event("consume-default", "consume, default options", TimesFaster("peer", 5)),
    count=40_000,
    counts={"peer": 8_000, "faststream": 8_000},
)
CONSUME_BATCH = Scenario(
    name="consume-batch",
    task="consume",
    rows=_per_event("consume-batch", "consume, batch_size=100", AtMostTimes("floor", 1.6), TimesFaster("peer", 12)),
    count=60_000,
    counts={"peer": 8_000, "faststream": 8_000},
    options={"batch_size": 100},
)
MAIN = (
    EMIT_ONE,
    EMIT_CONCURRENT,
    EMIT_LISTS,
    CONSUME_DEFAULT,
    CONSUME_BATCH,
    _uvloop(EMIT_ONE),
    _uvloop(EMIT_CONCURRENT),
    _uvloop(CONSUME_DEFAULT),
    _uvloop(CONSUME_BATCH),
)


def _traced(scenario: Scenario, share: float, title: str, *budgets: Budget) -> Scenario:
    """The same with a telemetry whose SDK records this share of traces, and metrics."""
    name = f"{scenario.name}-telemetry-{share:g}"
    return Scenario(
        name=name,
        task=scenario.task,
        rows=_per_event(name, f"{scenario.rows[0].title}, {title}", *budgets),
        contenders=("ours",),
        count=scenario.count // 4,
        options={**scenario.options, "telemetry": share},
    )


TELEMETRY = tuple(
    _traced(scenario, share, title, *budgets)
    for scenario in (EMIT_ONE, CONSUME_BATCH)
    for share, title, budgets in (
        (0.01, "OpenTelemetry, 1 % recorded", (AtMostMore(scenario.name, 25),)),
        (1.0, "OpenTelemetry, all recorded", ()),
    )
)


def _slow(name: str, title: str, contenders: tuple[str, ...], **options: Any) -> Scenario:
    """Handlers of 10 ms, a hundred at once: 10,000 a second would be ideal."""
    row = Row(name, title, "per_second", "events/s", (AtLeast(8_500),), lower_is_better=False)
    return Scenario(
        name=name,
        task="consume",
        rows=(row,),
        contenders=contenders,
        count=20_000,
        options={"pause": 0.01, "concurrency": 100, "batch_size": 100, **options},
    )


HANDLING = (
    _slow("slow", "10 ms handlers, concurrency=100", ALL),
    _slow("slow-ordered", "10 ms handlers, concurrency=100, order_by, 1,000 keys", ("ours",), order_by="customer"),
    Scenario(
        name="three-handlers",
        task="consume",
        rows=_per_event("three-handlers", "three handlers on an event, batch_size=100"),
        count=40_000,
        counts={"peer": 5_000, "faststream": 5_000},
        options={"batch_size": 100, "handlers": 3},
    ),
    Scenario(
        name="dependencies",
        task="consume",
        rows=_per_event(
            "dependencies", "a handler with an async generator, batch_size=100", AtMostMore("consume-batch", 15)
        ),
        contenders=("ours",),
        count=40_000,
        options={"batch_size": 100, "dependencies": True},
    ),
    Scenario(
        name="histograms",
        task="consume",
        rows=_per_event("histograms", "a handler with histograms, batch_size=100", AtMostMore("consume-batch", 3)),
        contenders=("ours",),
        count=40_000,
        options={"batch_size": 100, "histograms": True},
    ),
    *(
        Scenario(
            name=f"handlers-{registered}",
            task="consume",
            rows=_per_event(
                f"handlers-{registered}",
                f"{registered:,} handlers, one matches, batch_size=100"
                if registered > 1
                else "1 handler, batch_size=100",
                *((Flat("handlers-1"),) if registered > 1 else ()),
            ),
            contenders=OWN_AND_PEER,
            count=40_000,
            counts={"peer": 1_500},
            options={"batch_size": 100, "decoys": registered - 1},
        )
        for registered in (1, 10, 100, 1_000)
    ),
)

ENDPOINT = Scenario(
    name="endpoint",
    task="endpoint",
    rows=(
        Row("endpoint-plain", "endpoint without emit", "plain", "requests/s", lower_is_better=False, charted=False),
        Row("endpoint-emits", "endpoint with emit", "emits", "requests/s", lower_is_better=False),
        Row("endpoint-kept", "endpoint: rate kept with emit", "kept", "of 1", (AtLeast(0.75),), lower_is_better=False),
        Row(
            *("endpoint-await", "endpoint: rate kept by the await alone", "kept_built", "of 1"),
            lower_is_better=False,
            charted=False,
        ),
    ),
)
LATENCY = Scenario(
    name="latency",
    task="latency",
    rows=(
        Row("latency-p50", "emit to handler at 1,000/s, p50", "p50", "µs"),
        Row("latency-p99", "emit to handler at 1,000/s, p99", "p99", "µs"),
    ),
    count=3_000,
    quick_count=500,
)


def _backlog(name: str, count: int, *budgets: Budget) -> Scenario:
    rows = _per_event(name, f"backlog of {count:,}, batch_size=100", *budgets)
    return Scenario(
        name=name, task="consume", rows=rows, contenders=("ours",), count=count, options={"batch_size": 100}
    )


MILLION = Scenario(
    name="backlog-1m",
    task="consume",
    rows=(
        *_per_event("backlog-1m", "backlog of 1,000,000, batch_size=100", Flat("backlog-10k")),
        Row("memory-100k", "memory after 100,000 events", "mib_first", "MiB"),
        Row("memory-1m", "memory after 1,000,000 events", "mib_last", "MiB"),
        Row("memory-growth", "memory, 1,000,000 to 100,000 events", "growth", "times", (AtMost(1.1),)),
    ),
    contenders=("ours",),
    count=1_000_000,
    quick_count=20_000,
    most_rounds=3,
    options={"batch_size": 100, "memory_mark": 100_000},
)
BACKLOG = (_backlog("backlog-10k", 10_000), _backlog("backlog-100k", 100_000, Flat("backlog-10k")), MILLION)


def _payload(task: str, what: str, size: int, label: str, count: int, **options: Any) -> Scenario:
    name = f"{what}-{label.replace(' ', '').lower()}"
    return Scenario(
        name=name,
        task=task,
        rows=_per_event(name, f"{what}, {label} payload"),
        contenders=WITHOUT_FASTSTREAM,
        count=count,
        counts={"peer": min(count, 5_000)},
        quick_count=500,
        options={"payload": size, **options},
    )


PAYLOADS = (
    _payload("emit-one", "emit", 1_000, "1 kB", 8_000),
    _payload("emit-one", "emit", 100_000, "100 kB", 1_000),
    _payload("consume", "consume", 1_000, "1 kB", 30_000, batch_size=100),
    _payload("consume", "consume", 100_000, "100 kB", 1_500, batch_size=100),
)

SCENARIOS = (*MAIN, *TELEMETRY, *HANDLING, ENDPOINT, LATENCY, *BACKLOG, *PAYLOADS, *LETTERS)
