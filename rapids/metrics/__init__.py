"""Metrics for Prometheus: what emitters and routers count, and how far groups are (extra `prometheus`)."""

from rapids.metrics.catalogue import METRICS, Metric, MetricKind
from rapids.metrics.exposition import Metrics, Scrape, check_installed
from rapids.metrics.process_readings import ProcessReadings, read_process

__all__ = [
    "METRICS",
    "Metric",
    "MetricKind",
    "Metrics",
    "ProcessReadings",
    "Scrape",
    "check_installed",
    "read_process",
]
