from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.analytics.lab import Lab

COOKBOOK = Path(__file__).resolve().parents[2] / "docs" / "sql-cookbook.md"
RECIPES = [
    (section.splitlines()[0], sql)
    for section in COOKBOOK.read_text().split("\n### ")[1:]
    for sql in re.findall(r"```sql\n(.*?)```", section, re.DOTALL)
]
NOTHING_HERE = {
    "One request's spans, in the OpenTelemetry exporter's own columns",
    "What happened in the ten minutes before the worst minute?",
}
"""Recipes that the data set has no row for; they must run all the same."""


def test_every_recipe_is_found():
    assert len(RECIPES) == COOKBOOK.read_text().count("```sql") > 20


@pytest.mark.parametrize(("title", "sql"), RECIPES, ids=[title for title, _ in RECIPES])
def test_a_recipe_runs_as_a_reader_and_finds_something(lab: Lab, title: str, sql: str):
    known = next(r["response_id"] for r in lab.rows() if r["response_id"] and r["e2e_seconds"] > 1)
    for short in ("15 MINUTE", "30 MINUTE"):  # the data are up to half an hour old
        sql = sql.replace(f"INTERVAL {short}", "INTERVAL 2 HOUR")
    rows = lab.store.rows(sql.replace("cmpl-7", known))
    assert rows or title in NOTHING_HERE
    for row in rows:
        assert all(name for name in row)
