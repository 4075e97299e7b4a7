"""Spans and metrics arrive at a collector: from `rapids run --otel`, and from the application in docs/telemetry.md."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis.asyncio import Redis

from rapids import EventEmitter, EventRouter, GenericEvent
from rapids.exceptions import NotConfiguredError
from rapids.telemetry.conventions import Metric
from rapids.telemetry.sdk import find_exporters, sdk_running
from tests.cli.helpers import Command
from tests.cli.running import rapids_run
from tests.embedded.scripts import private_temp
from tests.house.source import ROOT
from tests.support import eventually
from tests.telemetry.collector import collecting
from tests.worker.helpers import STREAM, make_router, running

__all__ = ["private_temp"]

PAGE = (ROOT / "docs" / "telemetry.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(?ms)^```python\n(.*?)^```$", PAGE)
USE = """
from fastapi.testclient import TestClient
from rapids import GenericEvent
from rapids_fastapi import EmitterDep

@app.post("/orders")
async def place_order(emitter: EmitterDep) -> str:
    return await emitter.emit(GenericEvent(raw_type="order.placed", data={}))

with TestClient(app) as client:
    assert client.post("/orders").status_code == 200
"""
CONFIGURED_BY_FASTAPI = """
from fastapi import FastAPI
from rapids.telemetry import OpenTelemetry
from rapids_fastapi import Rapids

app = FastAPI(lifespan=Rapids(url="embedded:", telemetry=OpenTelemetry()).lifespan)
"""


@pytest.mark.slow
@pytest.mark.smoke
async def test_rapids_run_sends_spans_and_metrics(
    redis: Redis, redis_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting() as collector:
        for name, value in collector.environment.items():
            monkeypatch.setenv(name, value)
        with rapids_run(tmp_path, redis_address, "--otel") as command:
            command.says("started: router", times=2)
            await EventEmitter(redis, stream="run").emit(GenericEvent(raw_type="run.noted", data={"n": 1}))
            await eventually(lambda: Metric.LAG in collector.metrics)
            await eventually(lambda: command.notes("answered", 1, "a pool"))
            assert command.stop() == 0, command.said
        first, second = sorted(collector.named("process run"), key=lambda span: span.start_time_unix_nano)
        [send] = collector.named("send run")
        assert (send.parent_span_id, second.parent_span_id) == (first.span_id, send.span_id)
        assert (first.trace_id, second.trace_id) == (send.trace_id, send.trace_id)
        assert collector.services == {"shop"}
        assert {Metric.SENT, Metric.PROCESS_DURATION, Metric.DEAD_LETTERS} <= collector.metrics


@pytest.mark.slow
async def test_rapids_run_ends_in_time_although_the_collector_is_away(
    redis_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with rapids_run(tmp_path, redis_address, "--otel") as command:
        command.says("started: router", times=2)
        assert command.stop() == 0, command.said


@pytest.mark.slow
@pytest.mark.parametrize("is_configured", ["as printed", "by FastAPI"])
async def test_the_application_in_the_docs_sends_the_trace_of_a_request(tmp_path: Path, is_configured: str) -> None:
    makes_spans_of_requests = find_spec("fastapi.telemetry") is not None
    without_code = is_configured == "by FastAPI"
    assert makes_spans_of_requests or not without_code, "this needs FastAPI 0.165 or newer"
    printed = BLOCKS[0] + ("" if makes_spans_of_requests else BLOCKS[1])
    code = CONFIGURED_BY_FASTAPI + USE if without_code else f"{printed}{USE}tracer_provider.shutdown()"
    (tmp_path / "app.py").write_text(code)
    with collecting() as collector:
        environment = {**os.environ, **collector.environment, "PYTHONPATH": str(ROOT)}
        environment["FASTAPI_OTEL_AUTO_CONFIGURE"] = str(without_code).lower()
        subprocess.run([sys.executable, "app.py"], cwd=tmp_path, env=environment, check=True, timeout=120)
        [request], [send] = collector.named("POST /orders"), collector.named("send events:all")
    parents = {span.span_id: span.parent_span_id for span in collector.spans}
    above = [send.span_id]
    while above[-1] in parents:  # FastAPI has spans of its own in between
        above.append(parents[above[-1]])
    assert request.span_id in above
    assert send.trace_id == request.trace_id


async def test_emitters_and_routers_in_the_docs_take_a_telemetry() -> None:
    names: dict[str, Any] = {}
    exec(compile(BLOCKS[2], "docs/telemetry.md", "exec"), names)
    router: EventRouter = names["router"]
    running = asyncio.create_task(names["main"]())
    await eventually(lambda: running.done() or router.running)
    await router.stop()
    await running


def test_the_services_in_the_docs_fit_together() -> None:
    [compose] = [yaml.safe_load(block) for block in re.findall(r"(?ms)^```yaml\n(.*?)^```$", PAGE)]
    tempo, settings = compose["services"]["tempo"], yaml.safe_load(compose["configs"]["tempo.yaml"]["content"])
    assert tempo["configs"] == [{"source": "tempo.yaml", "target": "/etc/tempo.yaml"}]
    assert tempo["command"] == ["-config.file=/etc/tempo.yaml"]
    assert settings["distributor"]["receivers"]["otlp"]["protocols"]["http"]["endpoint"] == "0.0.0.0:4318"
    assert tempo["ports"] == ["4318:4318"]
    assert f"http://tempo:{settings['server']['http_listen_port']}" in PAGE


def test_a_wrong_variable_or_a_missing_package_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    run = ("run", "tests.nothing:router", "--otel")
    command = Command("redis://localhost")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier pigeon")
    assert command(*run, code=2).stderr == (
        "rapids: --otel: OTEL_EXPORTER_OTLP_PROTOCOL must be one of grpc, http/protobuf, not 'carrier pigeon'\n"
    )
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    assert "OTEL_TRACES_EXPORTER names the exporter 'zipkin'" in command(*run, code=2).stderr
    monkeypatch.setattr(import_module("rapids.cli.run"), "find_spec", lambda name: None)
    assert "--otel needs the SDK of OpenTelemetry" in command(*run, code=2).stderr


def test_exporters_are_those_of_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        monkeypatch.delenv(name, raising=False)
    assert [[one.name for one in found] for found in find_exporters().values()] == [["otlp_proto_http"]] * 2
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console,otlp")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    assert [[one.name for one in found] for found in find_exporters().values()] == [["console", "otlp_proto_http"], []]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc")
    with pytest.raises(NotConfiguredError, match="pip install opentelemetry-exporter-otlp-proto-grpc"):
        find_exporters()
    monkeypatch.setenv("OTEL_SDK_DISABLED", "True")
    assert list(find_exporters().values()) == [[], []]


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "nonsense"}, "otel: nothing is sent, since "),
        (
            {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"},
            "otel: exporters of traces: none; of metrics: none",
        ),
    ],
    ids=["disabled", "none"],
)
async def test_an_event_carries_the_context_of_its_cause_although_nothing_is_sent(
    variables: dict[str, str],
    said: str,
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    caplog.set_level("INFO", "rapids")
    cause = f"00-{'a' * 32}-{'b' * 16}-01"
    emitter, router = EventEmitter(redis, stream=STREAM), make_router(redis)
    with sdk_running() as telemetry:
        assert said in caplog.text
        assert not telemetry.wants_gauges()
        router.use_telemetry(telemetry)
        emitter.use_telemetry(telemetry)

        @router.on("first")
        async def follow(event: GenericEvent) -> None:
            await emitter.emit(GenericEvent(raw_type="second", data={}))

        async def stored_two() -> list[dict[bytes, bytes]] | None:
            stored = [fields for _, fields in await redis.xrange(STREAM)]
            return stored if len(stored) == 2 else None

        await emitter.emit(GenericEvent(raw_type="first", data={}, metadata={"traceparent": cause}))
        async with running(router):
            _, second = await eventually(stored_two)
    assert second[b"traceparent"].decode() == cause
