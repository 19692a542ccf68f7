from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks import agent
from benchmarks.line import BENCHMARKS, KEYS, Benchmark, ShapeError, figures_of, lacking, run, summary, without_value

ROOT = Path(__file__).parents[2]
FIGURE = {
    "name": "n", "value": 1.0, "unit": "s", "reference": "r", "reference_value": 2.0, "ratio": 0.5, "goal": 1.5,
    "met": True,
}  # fmt: skip


def test_figures_are_read_a_line_each():
    text = f"{json.dumps(FIGURE)}\n\n{json.dumps(FIGURE | {'name': 'm'})}\n"
    assert [figure["name"] for figure in figures_of(text)] == ["n", "m"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no figure"),
        ("done\n", "no JSON"),
        ("[1]", "other keys"),
        (json.dumps(FIGURE | {"parts": {}}), "other keys"),
        (json.dumps({key: FIGURE[key] for key in KEYS[:-1]}), "other keys"),
    ],
)
def test_what_is_no_figure_is_named(text: str, told: str):
    with pytest.raises(ShapeError, match=told):
        figures_of(text)


def test_a_missing_program_leaves_a_benchmark_out_with_a_reason():
    benchmark = Benchmark("scrape", 1, needs="/nowhere/prometheus")
    assert "/nowhere/prometheus" in lacking(benchmark)
    (figure,) = run(benchmark, quick=True)
    assert (figure["name"], figure["value"], figure["met"]) == ("scrape", None, None)
    assert "/nowhere/prometheus" in figure["reason"]


def test_a_benchmark_that_fails_gives_a_figure_and_stops_nothing():
    (figure,) = run(Benchmark("no_such_benchmark", 60), quick=True)
    assert figure["met"] is False
    assert "no_such_benchmark" in figure["reason"]


def test_the_summary_names_what_was_missed_and_judges_nothing_that_was_left_out():
    figures = [FIGURE, FIGURE | {"name": "slow", "met": False}, without_value("scrape", "not there", failed=False)]
    assert summary(figures) == "1 of 2 goals met; missed: slow"
    assert summary(figures[:1]) == "1 of 1 goals met"


def test_every_benchmark_is_a_module():
    assert [one.name for one in BENCHMARKS] == [
        "ingest",
        "scrape",
        "tap",
        "envoy",
        "gpu",
        "idle",
        "steady",
        "guard",
        "pages",
        "beside",
        "probe",
    ]


def test_what_the_agent_costs_is_measured_by_modules_that_are_there():
    for benchmark in agent.BENCHMARKS:
        assert find_spec(f"benchmarks.{benchmark.name}"), benchmark.name
    assert {"probe", "scrape", "gpu", "serving"} == {one.name for one in agent.BENCHMARKS}


@pytest.mark.heavy
def test_sampling_gpus_prints_figures_alone():
    """What is logged of each GPU goes elsewhere."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--seconds", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300, cwd=ROOT)
    (figure,) = figures_of(done.stdout)
    assert figure["name"] == "gpu_host_cpu"
    assert 0 < figure["value"] < figure["reference_value"] * 20
    assert "gpu_found" in done.stderr
