"""docs/metrics.md, the dashboard and the alerts: they name every metric, and only metrics and labels that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi import FastAPI
from fastapi.testclient import TestClient

from rapids.metrics import METRICS
from tests.support import idle_router

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "metrics.md").read_text()
DASHBOARD = json.loads((DOCS / "grafana" / "rapids.json").read_text())
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((DOCS / "prometheus" / "rapids-alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]

OF_PROMETHEUS = {"job", "instance"}
"""The labels that Prometheus adds to every series."""


def table(heading: str) -> list[list[str]]:
    """The rows of the first table after a heading."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\|(.*)\|$", section, re.MULTILINE)
    return [[cell.strip() for cell in row.split(" | ")] for row in rows[2:]]


def selectors(expr: str) -> Iterator[tuple[str, set[str]]]:
    """The metrics that a query names, each with the labels that it selects by."""
    for name, inside in re.findall(r"\b(rapids_\w+|up)\b(?:\{([^}]*)\})?", expr):
        yield name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", inside))


def labels_of(name: str) -> set[str]:
    """The labels of a series. Raises `KeyError` for a metric that does not exist."""
    if name == "up":
        return OF_PROMETHEUS
    if (metric := METRICS.get(re.sub(r"_(bucket|sum|count)$", "", name))) is not None and metric.kind == "histogram":
        return {*metric.labels, *OF_PROMETHEUS, *(["le"] if name.endswith("_bucket") else [])}
    return {*METRICS[name].labels, *OF_PROMETHEUS}


@pytest.mark.parametrize(
    ("where", "expr"), [*QUERIES, *((rule["alert"], rule["expr"]) for rule in RULES)], ids=lambda text: text[:40]
)
def test_a_query_names_metrics_and_labels_that_exist(where: str, expr: str) -> None:
    found = list(selectors(expr))
    assert found, where
    for name, labels in found:
        assert labels <= labels_of(name), name
    shared = set.intersection(*(labels_of(name) for name, _ in found))
    for grouped in re.findall(r"\bby \(([^)]*)\)", expr):
        assert set(grouped.split(", ")) <= shared


def test_the_choices_of_the_dashboard_are_labels() -> None:
    chosen = [one for one in DASHBOARD["templating"]["list"] if one["type"] == "query"]
    for one in chosen:
        name, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", one["query"]["query"]).groups()  # type: ignore[union-attr]
        assert label == one["name"]
        assert label in labels_of(name)
    used = {name for _, expr in QUERIES for name in re.findall(r"\$(\w+)", expr)} - {"__rate_interval"}
    assert used == {one["name"] for one in chosen}
    assert {panel["datasource"]["uid"] for panel in PANELS} == {"${datasource}"}


def test_panels_do_not_overlap_and_say_what_they_show() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not taken & cells, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert all(panel["description"].endswith(".") for panel in PANELS)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_a_legend_names_labels_that_its_query_keeps() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            kept = {label for by in re.findall(r"\bby \(([^)]*)\)", target["expr"]) for label in by.split(", ")}
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= kept, panel["title"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_it_means_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket")
    texts = rule["annotations"]
    assert texts["summary"]
    assert len(texts["description"].split()) >= 15
    kept = set.intersection(*(labels_of(name) for name, _ in selectors(rule["expr"])))
    by = re.findall(r"\bby \(([^)]*)\)", rule["expr"])
    if by:
        kept = set.intersection(*(set(one.split(", ")) for one in by))
    for text in texts.values():
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= kept
        for command in re.findall(r"`rapids (\w+)", text):
            assert command in ("dlq", "groups", "pause", "pending", "resume", "run")


# --- the page -------------------------------------------------------------------------------------------------------


def test_the_page_has_every_metric() -> None:
    assert table("Metrics") == [
        [f"`{one.name}`", one.kind, ", ".join(f"`{label}`" for label in one.labels), one.about]
        for one in METRICS.values()
    ]


def test_the_page_has_every_panel_with_its_queries() -> None:
    def shown(expr: str) -> str:
        without = re.sub(r'(?:stream|group)=~"\$\w+",?', "", expr).replace("{}", "")
        return without.replace("$__rate_interval", "1m")

    rows = [row for row in table("Dashboard") if not row[0].startswith("**")]
    assert [(row[0], row[1]) for row in rows] == [(title, f"`{shown(expr)}`") for title, expr in QUERIES]
    assert all(row[2] for row in rows)


def test_the_page_has_every_alert() -> None:
    assert [row[:2] for row in table("Alerts")] == [
        [f"`{rule['alert']}`", rule["labels"]["severity"]] for rule in RULES
    ]


def test_the_scrape_configuration_fits_the_alerts_and_the_routes() -> None:
    [block] = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    config = yaml.safe_load(block)
    assert config["rule_files"] == ["rapids-alerts.yml"]
    [workers, web] = config["scrape_configs"]
    assert web["metrics_path"] == "/rapids/metrics"
    [matcher] = {found for rule in RULES for found in re.findall(r'job=~"([^"]*)"', rule["expr"])}
    assert all(re.fullmatch(matcher, job["job_name"]) for job in (workers, web))
    assert f"--metrics-port {workers['static_configs'][0]['targets'][0].partition(':')[2]}" in PAGE
    assert f'"{web["authorization"]["credentials"]}"' in PAGE.replace(block, "")


async def test_the_code_of_the_page_works(redis_url: str) -> None:
    application, registry = [
        block.replace("embedded:", redis_url)
        for block in re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    ]
    names: dict[str, Any] = {}
    exec(application, names)
    with TestClient(names["app"]) as client:
        for token, metrics, letters in (("Prometheus", 200, 403), ("operators", 200, 200), ("nobody", 401, 401)):
            headers = {"Authorization": f"Bearer the token of {token}"}
            assert client.get("/rapids/metrics", headers=headers).status_code == metrics
            assert client.get("/rapids/api/dead-letters", headers=headers).status_code == letters

    exec(registry, names)
    app = FastAPI()
    await names["expose"](app, idle_router(stream="orders", group="payments"))
    assert [route.path for route in app.routes if route.path == "/metrics"] == ["/metrics"]  # type: ignore[attr-defined]
