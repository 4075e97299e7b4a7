"""The exposition: metrics in the formats that Prometheus reads, and a collector for a registry of `prometheus_client`.

`prometheus_client` is imported when it is first needed, since most processes never do.
"""

import asyncio
import importlib.metadata
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Self

from rapids.clients import RedisClient
from rapids.counters import COUNTERS, HISTOGRAMS
from rapids.emitter import EventEmitter
from rapids.exceptions import NotConfiguredError
from rapids.inspection import GroupReader, GroupReadings, GroupSnapshot, WatchedGroup
from rapids.metrics.catalogue import METRICS, NAMES
from rapids.metrics.process_readings import ProcessReadings, read_process
from rapids.router import EventRouter

if TYPE_CHECKING:
    from prometheus_client.core import Metric as Family

__all__ = ["Metrics", "Scrape", "check_installed"]

TEXT = "text/plain; version=0.0.4; charset=utf-8"
"""The content type of the text format: https://prometheus.io/docs/instrumenting/exposition_formats/."""

MAX_AGE = 10.0
"""Seconds for which the figures of groups are given to a registry that collects without reading them."""

FRESH = 1.0
"""Seconds for which an answer is given to further scrapes, so that any number of them cause at most one rendering a
second."""


@dataclass(frozen=True, slots=True)
class Scrape:
    """The answer to a scrape."""

    body: bytes
    content_type: str


def check_installed(option: str) -> None:
    """Raise `NotConfiguredError` if `option` needs `prometheus_client`, and it is not installed."""
    if find_spec("prometheus_client") is None:
        raise NotConfiguredError(
            f"{option} needs prometheus-client, which is not installed: pip install 'rapids-fastapi[prometheus]'"
        )


class Metrics:
    """What Prometheus reads of a process, or of several that it runs: counters, histograms, and the figures of groups.

    `processes`: what each process has counted, by its label; it is called in a thread. `groups`: the reader of the
    groups that are shown; None for none.

    `await metrics.scrape(accept)` gives the answer to a scrape. `registry.register(metrics)` adds the metrics to a
    registry of `prometheus_client`. A registry cannot wait for Redis: it gets the figures of groups if `read_groups`
    was awaited within the last ten seconds.
    """

    def __init__(
        self,
        processes: Callable[[], Mapping[str, ProcessReadings]] = dict,
        groups: GroupReader | None = None,
    ) -> None:
        self.processes: Callable[[], Mapping[str, ProcessReadings]] = processes
        self.groups: GroupReader | None = groups
        self._read: GroupReadings | None = None
        self._read_at = 0.0
        # Of its own: handlers may fill the default executor. With one thread, there is one rendering at a time.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rapids-metrics")
        self._rendered: dict[bool, tuple[float, Scrape]] = {}
        """The last answer in each format, and when it was rendered. The thread changes it."""

    @classmethod
    def of_this_process(
        cls,
        redis: RedisClient,
        routers: Sequence[EventRouter] = (),
        emitters: Sequence[EventEmitter] = (),
        watch: Iterable[WatchedGroup] = (),
    ) -> Self:
        """The metrics of these routers and emitters, labelled with the process id, and the figures of the routers'
        groups and of those in `watch`. Routers have histograms after `use_histograms()`."""
        label = str(os.getpid())
        groups = GroupReader(redis, [*map(WatchedGroup.of, routers), *watch])
        return cls(lambda: {label: read_process(routers, emitters)}, groups)

    async def read_groups(self) -> None:
        """Read the figures of groups, unless they were read within a second."""
        if self.groups is not None:
            self._read = await self.groups.read()
            self._read_at = time.monotonic()

    async def scrape(self, accept: str = "") -> Scrape:
        """All metrics, in the format that the header `Accept` of the request asks for: OpenMetrics, or text.

        Thousands of series take long, so that they are rendered in a thread, by one rendering at a time. All who ask
        in the meantime, or within a second after it, get its answer. During an outage of Redis, `rapids_up` is 0, and
        the figures of groups are missing.
        """
        # Not `choose_encoder` of prometheus_client, which raises TypeError for a version that is no number.
        is_openmetrics = "application/openmetrics-text" in accept.lower()
        if (fresh := self._fresh(is_openmetrics)) is not None:
            return fresh
        await self.read_groups()
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._render, is_openmetrics)

    def _render(self, is_openmetrics: bool) -> Scrape:
        """Runs in the thread. Another scrape may have had it rendered in the meantime."""
        if (fresh := self._fresh(is_openmetrics)) is not None:
            return fresh
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.openmetrics import exposition as openmetrics

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        if is_openmetrics:
            untyped: Any = openmetrics
            scrape = Scrape(untyped.generate_latest(registry), openmetrics.CONTENT_TYPE_LATEST)
        else:
            scrape = Scrape(generate_latest(registry), TEXT)
        self._rendered[is_openmetrics] = time.monotonic(), scrape
        return scrape

    def _fresh(self, is_openmetrics: bool) -> Scrape | None:
        rendered_at, scrape = self._rendered.get(is_openmetrics, (0.0, None))
        return None if time.monotonic() - rendered_at >= FRESH else scrape

    def collect(self) -> Iterator["Family"]:
        """All metrics, for a registry."""
        processes = self.processes()
        counts = defaultdict[str, list[tuple[tuple[str, ...], float]]](list)
        times = defaultdict[str, list[tuple[tuple[str, ...], tuple[tuple[int, ...], float]]]](list)
        for process, readings in processes.items():
            for (name, labels), value in readings.counts.items():
                counts[name].append(((process, *labels), value))
            for (name, labels), measured in readings.times.items():
                times[name].append(((process, *labels), measured))
        for name in COUNTERS:
            yield _family(NAMES[name], counts[name])
        for name in HISTOGRAMS:
            yield _histogram(name, times[name])
        starts = [((label,), readings.starts) for label, readings in processes.items()]
        yield _family("rapids_process_starts_total", starts)
        yield from self._collect_groups()
        try:
            version = importlib.metadata.version("rapids-fastapi")
        except importlib.metadata.PackageNotFoundError:  # run from its source, not installed
            version = "unknown"
        yield _family("rapids_build_info", [((version,), 1)])

    def _collect_groups(self) -> Iterator["Family"]:
        if (read := self._read) is None or time.monotonic() - self._read_at > MAX_AGE:
            return
        yield _family("rapids_up", [((), int(read.up))])
        for name, value in _GROUPS.items():
            yield _family(name, [((group.stream, group.group), value(group)) for group in read.groups])
        queues = read.queues
        yield _family(
            "rapids_dead_letters",
            [((one.dlq, group), count) for one in queues for group, count in one.letters.items()],
        )
        yield _family("rapids_dlq_letters", [((one.dlq,), one.stats.length) for one in queues])
        limits = [((one.dlq,), one.stats.maxlen) for one in queues if one.stats.maxlen is not None]
        yield _family("rapids_dlq_limit_letters", limits)
        yield _family("rapids_dlq_cut_total", [((one.dlq,), one.stats.cut) for one in queues])


_GROUPS: Mapping[str, Callable[[GroupSnapshot], float]] = {
    "rapids_group_lag_entries": lambda group: group.lag,
    "rapids_group_oldest_unsettled_seconds": lambda group: (group.oldest_unsettled_ms or 0) / 1000,
    "rapids_group_pending_entries": lambda group: group.pending,
    "rapids_group_waiting_entries": lambda group: group.waiting,
    "rapids_group_parked_entries": lambda group: group.parked,
    "rapids_group_replays": lambda group: group.replays,
    "rapids_group_consumers": lambda group: group.consumers,
    "rapids_group_consumers_alive": lambda group: group.consumers_alive,
    "rapids_group_paused": lambda group: group.pause is not None,
}


def _family(name: str, samples: Iterable[tuple[Sequence[str], float]]) -> "Family":
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    metric = METRICS[name]
    make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = make(name, metric.about, labels=metric.labels)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


def _histogram(name: str, samples: Iterable[tuple[Sequence[str], tuple[Sequence[int], float]]]) -> "Family":
    from prometheus_client.core import HistogramMetricFamily

    metric, bounds = METRICS[NAMES[name]], [*map(str, HISTOGRAMS[name].bounds), "+Inf"]
    family = HistogramMetricFamily(metric.name, metric.about, labels=metric.labels)
    for labels, (ranges, sum_) in samples:
        family.add_metric(labels, list(zip(bounds, accumulate(ranges), strict=True)), sum_)
    return family
