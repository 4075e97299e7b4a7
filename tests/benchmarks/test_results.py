"""From what was measured to the table, the chart and JSON."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from benchmarks.chart import chart
from benchmarks.machine import Machine
from benchmarks.results import FAILED, Findings, RowResult, as_json, row_results
from benchmarks.scenario import Row, Scenario
from benchmarks.scenarios import CONSUME_BATCH, HANDLING
from benchmarks.table import legend, number, table

SLOW = HANDLING[0]
CONTENDERS = ("ours", "floor", "peer")
MACHINE = Machine("Linux x86_64", "a processor", 2, "3.13.0", "valkey 9.1.2", True, {"ours": {"redis": "8.1.0"}})


@pytest.fixture
def findings() -> Findings:
    found = Findings()
    for round_, (ours, floor, peer) in enumerate([(15.0, 10.0, 150.0), (16.0, 10.0, 160.0), (17.0, 10.0, 170.0)]):
        for contender, cost in (("ours", ours), ("floor", floor), ("peer", peer)):
            found.add(CONSUME_BATCH, contender, round_, {"us": cost, "per_second": 1e6 / cost})
        found.add(SLOW, "ours", round_, {"per_second": 9_000.0})
        found.add(SLOW, "floor", round_, {"per_second": 4_500.0})
    found.add_missing(SLOW, "peer", "no <concurrency> & nothing")
    return found


@pytest.fixture
def rows(findings: Findings) -> list[RowResult]:
    return row_results([CONSUME_BATCH, SLOW], findings, CONTENDERS)


def test_ratios_say_how_many_times_the_floors_cost_and_as_fast_as_the_peer(rows: list[RowResult]) -> None:
    cost, rate = rows

    assert cost.to_floor is not None
    assert (cost.to_floor.median, cost.to_floor.low, cost.to_floor.high) == (1.6, 1.5, 1.7)
    assert cost.to_peer is not None
    assert cost.to_peer.median == 10.0
    assert rate.to_floor is not None
    assert rate.to_floor.median == 2.0
    assert rate.to_peer is None


def test_the_table_has_a_line_for_each_row_and_is_aligned(rows: list[RowResult]) -> None:
    lines = table(rows, CONTENDERS).splitlines()

    assert len({len(line) for line in lines}) == 1
    head, _, cost, rate = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    assert head[:5] == ["", "unit", "Rapids", "floor", "rapids-streams 0.3.0"]
    assert head[5:] == ["Rapids / floor", "as fast as peer, x", "budget"]
    assert cost[1:6] == ["µs/event", "16.0 (15.0-17.0)", "10.0 (10.0-10.0)", "160 (150-170)", "1.60 (1.50-1.70)"]
    assert cost[-1] == "≤ 1.6 x floor: met (1.6); ≥ 12 x as fast as peer: NOT MET (10)"
    assert rate[2:5] == ["9,000 (9,000-9,000)", "4,500 (4,500-4,500)", "n/a"]


def test_a_failure_is_shown_and_hides_the_other_rounds(findings: Findings) -> None:
    findings.add_failure(CONSUME_BATCH, "ours", 3, "a trace with paths\nlost an event\n")

    (cost,) = row_results([CONSUME_BATCH], findings, CONTENDERS)

    assert cost.missing == {"ours": FAILED}
    assert (cost.to_floor, cost.to_peer, [verdict.met for verdict in cost.verdicts]) == (None, None, [None, None])
    assert "| FAILED " in table([cost], CONTENDERS)
    assert "FAILED: consume-batch, ours, round 4: lost an event" in legend(findings)


def test_a_row_that_is_more_than_three_percent_worse_than_before_is_marked(findings: Findings) -> None:
    for round_, (cost, rate) in enumerate([(14.5, 9_300.0), (15.5, 9_290.0), (16.5, 9_310.0)]):
        findings.add(CONSUME_BATCH, "before", round_, {"us": cost, "cpu_us": cost})
        findings.add(SLOW, "before", round_, {"per_second": rate})

    cost, cpu, rate = row_results([CONSUME_BATCH, SLOW], findings, ("ours", "before"))

    head, _, first, second = table([cost, rate], ("ours", "before")).splitlines()
    assert [cell.strip() for cell in head.strip("|").split("|")][2:5] == ["Rapids", "before", "Rapids / before"]
    assert (cost.is_slower, rate.is_slower) == (True, True)
    assert (cpu.row.name, cpu.is_slower) == ("consume-batch-cpu", False), "ours has not measured it"
    assert "1.03 (1.03-1.03) WORSE" in first
    assert "0.97 (0.97-0.97) WORSE" in second


@pytest.mark.parametrize(("cost", "rate"), [(15.0, 9_000.0), (14.6, 9_260.0), (30.0, 4_000.0)])
def test_a_row_that_is_as_fast_as_before_or_nearly_is_not_marked(findings: Findings, cost: float, rate: float) -> None:
    findings.add(CONSUME_BATCH, "before", 0, {"us": cost})
    findings.add(SLOW, "before", 0, {"per_second": rate})

    found = row_results([CONSUME_BATCH, SLOW], findings, ("ours", "before"))

    assert not any(row.is_slower for row in found)
    assert "WORSE" not in table(found, ("ours", "before"))


def test_computing_time_is_shown_only_next_to_an_earlier_commit(findings: Findings) -> None:
    findings.add(CONSUME_BATCH, "ours", 0, {"cpu_us": 12.0})
    findings.add(CONSUME_BATCH, "before", 0, {"cpu_us": 10.0})

    alone = [result.row.name for result in row_results([CONSUME_BATCH], findings, CONTENDERS)]
    _, cpu = row_results([CONSUME_BATCH], findings, ("ours", "before"))

    assert alone == ["consume-batch"]
    assert cpu.is_slower
    assert "1.20 (1.20-1.20) WORSE" in table([cpu], ("ours", "before"))


def test_the_legend_says_what_a_contender_lacks(findings: Findings) -> None:
    findings.notes.append("no peer here")

    assert "n/a: slow, peer: no <concurrency> & nothing" in legend(findings)
    assert "no peer here" in legend(findings)


@pytest.mark.parametrize(
    ("value", "text"), [(0.756, "0.76"), (9.994, "9.99"), (15.66, "15.7"), (356.7, "357"), (12_345.6, "12,346")]
)
def test_numbers_have_three_digits_that_count(value: float, text: str) -> None:
    assert number(value) == text


def test_the_chart_is_svg_with_a_bar_for_each_ratio_and_a_mark_for_each_budget(rows: list[RowResult]) -> None:
    svg = ElementTree.fromstring(chart(rows))

    classes = [element.get("class") for element in svg.iter()]
    assert svg.tag == "{http://www.w3.org/2000/svg}svg"
    assert classes.count("bar") == 2
    assert classes.count("budget") == 2


def test_bars_stay_inside_the_chart(rows: list[RowResult]) -> None:
    svg = ElementTree.fromstring(chart(rows))

    width = float(svg.get("width", 0))
    ends = [float(bar.get("x", 0)) + float(bar.get("width", 0)) for bar in svg.iter() if bar.get("class") == "bar"]
    assert ends
    assert all(end < width for end in ends)


def test_a_bar_that_is_far_longer_than_all_others_is_cut_off(findings: Findings) -> None:
    far = Scenario(name="far", task="consume", rows=(Row("far", "far", "us", "µs"),))
    findings.add(far, "ours", 0, {"us": 1.0})
    findings.add(far, "peer", 0, {"us": 500.0})

    svg = ElementTree.fromstring(chart(row_results([CONSUME_BATCH, far], findings, CONTENDERS)))

    widths = [float(bar.get("width", 0)) for bar in svg.iter() if bar.get("class") == "bar"]
    assert widths[0] == pytest.approx(widths[1] / 2, rel=0.01)
    assert "500 …" in [element.text for element in svg.iter()]


def test_text_is_escaped_in_the_chart(findings: Findings) -> None:
    hostile = Scenario(name="x", task="consume", rows=(Row("x", "<b>&", "us", "µs"),))
    for contender in CONTENDERS:
        findings.add(hostile, contender, 0, {"us": 1.0})

    texts = [text.text for text in ElementTree.fromstring(chart(row_results([hostile], findings, CONTENDERS))).iter()]

    assert "<b>&" in texts


def test_json_holds_every_round(rows: list[RowResult], findings: Findings) -> None:
    found = json.loads(json.dumps(as_json(MACHINE, {"rounds": 3}, rows, findings, 12.4)))

    cost = found["rows"][0]
    assert cost["contenders"]["ours"]["values"] == [15.0, 16.0, 17.0]
    assert cost["ours_to_floor"]["median"] == 1.6
    assert [verdict["met"] for verdict in cost["budgets"]] == [True, False]
    assert found["machine"]["server"] == "valkey 9.1.2"
    assert found["rows"][1]["missing"] == {"peer": "no <concurrency> & nothing"}
