"""A statement brings in the signals that feed what it reads, and everything where that can't be told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from base.named_sql import statements
from collector.embedded.fed import EVERYTHING, signals_of, tables
from tests.kits.effort import in_proportion

ROOT = Path(__file__).resolve().parents[2]
HALVES = {"traces", "logs"}
"""What requests are fed by: spans, and what a probe tells of finished ones."""


@pytest.mark.parametrize(
    ("statement", "signals"),
    [
        (b"SELECT count() FROM requests", HALVES),
        (b"select 1\nfrom\tservescope.requests_t", HALVES),
        (b"SELECT 1 FROM`requests`", HALVES),
        (b"SELECT 1 FROM/**/requests", HALVES),
        (b'SELECT 1 FROM "other"."requests" AS r', HALVES),
        (b"SELECT * FROM (SELECT 1) JOIN engine_samples USING x", {"metrics"}),
        (b"SELECT 1 FROM otel_traces LEFT JOIN host_samples USING x", {"traces", "metrics"}),
        (b"SELECT count() AS events, a FROM (SELECT a, (b) FROM engine_samples) AS c GROUP BY (a), b", {"metrics"}),
        (b"SELECT a IN engine_samples FROM events", {"metrics", "logs"}),
        (b"WITH found AS (SELECT a FROM engine_samples) SELECT a FROM found", {"metrics"}),
        (b"SELECT a FROM engine_samples ARRAY JOIN names AS a", {"metrics"}),
        (b"SELECT 'a from b' FROM engine_samples -- from here\n/* from there */", {"metrics"}),
        (b"SELECT `from` FROM engine_samples WHERE a > {from:Int64} AND b IN {names:Array(String)}", {"metrics"}),
        (b"SELECT number FROM numbers(3) AS n JOIN engine_samples USING number", {"metrics"}),
        (b"SELECT (1), from_time FROM (SELECT (2), a) AS b JOIN otel_traces USING a", {"traces"}),
        (b"SELECT a FROM system.one CROSS JOIN otel_traces", {"traces"}),
        (b"SELECT 1 FROM incidents JOIN cause_seconds USING x", set()),
        (b"SELECT 1 AS one", set()),
        (b"SELECT name FROM system.settings", set()),
        (b"SELECT name FROM `system`.settings", set()),
        (b"SELECT name FROM`system`.settings", set()),
        (b"INSERT INTO alert_transitions (a) FORMAT Native", set()),
        (b"SELECT 1 FROM a_view_of_mine", EVERYTHING),
        (b"SELECT 1 FROM system.one, a_view_of_mine", EVERYTHING),
        (b"SELECT 1 FROM engine_samples AS a, a_view_of_mine", EVERYTHING),
        (b"SELECT 1 FROM (SELECT (1)) AS a, a_view_of_mine", EVERYTHING),
        (b"SELECT 1 FROM numbers(3) AS n, a_view_of_mine", EVERYTHING),
        (b"SELECT 1 FROM engine_samples FINAL, a_view_of_mine", EVERYTHING),
        (b"SELECT 1 FROM merge('servescope', 'req')", EVERYTHING),
        (b"SELECT 1 FROM {table:Identifier}", EVERYTHING),
        (b"SELECT $a$'$a$ FROM engine_samples, requests", EVERYTHING),
        (b"SELECT 1 FROM engine_samples" + b" " * 100_000, EVERYTHING),
    ],
)
def test_who_reads_wants_the_rows_of_what_he_reads(statement: bytes, signals: set[str]):
    assert signals_of(statement) == signals


def test_every_table_is_fed_by_what_lands_in_it():
    fed = tables()
    assert {fed[name] for name in fed if name.startswith("otel_metrics_")} == {frozenset({"metrics"})}
    assert fed["gpu_processes"] == fed["engine_histograms"] == {"metrics"}
    assert fed["otel_traces"] == fed["triton_spans"] == {"traces"}
    assert fed["engine_steps_1s"] == fed["events"] == {"logs"}
    assert fed["instance_gpus"] == {"metrics", "logs"}, "a pod's server is known by an event"
    assert fed["requests"] == fed["requests_1m"] == HALVES
    assert not any(fed[name] for name in ("alert_transitions", "incidents", "cause_references"))


@pytest.mark.parametrize(
    "path",
    sorted([*(ROOT / "alerts").rglob("*.sql"), *(ROOT / "analytics").rglob("*.sql")]),
    ids=lambda path: path.stem,
)
def test_no_question_of_ours_misses_a_table_that_it_names(path: Path):
    for name, statement in statements(path).items():
        named = {table for table in tables() if re.search(rf"\b(?:FROM|JOIN)\s+{table}\b", statement)}
        assert signals_of(statement.encode()) >= frozenset().union(*(tables()[table] for table in named)), name


@pytest.mark.parametrize("path", sorted((ROOT / "alerts").rglob("*.sql")), ids=lambda path: path.stem)
def test_no_question_of_alerts_brings_in_everything(path: Path):
    for name, statement in statements(path).items():
        assert signals_of(statement.encode()) != EVERYTHING, name


@pytest.mark.parametrize("piece", [b'"\\', b"'\\", b"`", b"/* ", b"{a:", b"a ", b"in ", b") a,", b"from a ", b"\n"])
def test_no_text_takes_long(piece: bytes):
    tables()
    short, long = (b"SELECT 1 FROM requests " + piece * (size // len(piece)) for size in (3_750, 60_000))
    # Sixteen times the text: what is quadratic takes two hundred and fifty times as long.
    assert in_proportion(lambda: signals_of(short), lambda: signals_of(long), 80)
