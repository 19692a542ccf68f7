"""Numbers and durations as people read them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.slo import Objective
from base.durations import parse_duration
from base.formats import rounded, spell, three
from servescope import question
from servescope.times import between

if TYPE_CHECKING:
    from collections.abc import Sequence


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (7.0812, "7.08"), (0.01234, "0.0123"), (1234.6, "1,230"), (100.0, "100"), (0.0, "0"), (9.999, "10"),
        (float("inf"), "–"),
    ],
)  # fmt: skip
def test_three_significant_digits(value: float, shown: str):
    assert three(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0 s"), (0.00085, "850 µs"), (0.021, "21 ms"), (7.08, "7.08 s"), (119.0, "119 s"), (200.0, "3 min 20 s"),
        (4000.0, "67 min"), (7500.0, "2 h 5 min"), (3 * 86400.0, "3 d"), (-7.08, "−7.08 s"), (-200.0, "−3 min 20 s"),
    ],
)  # fmt: skip
def test_a_measured_duration_comes_in_its_best_unit(value: float, shown: str):
    assert rounded(value) == shown


@given(st.floats(1e-7, 1e7))
def test_a_measured_duration_always_has_a_unit_and_never_an_exponent(value: float):
    shown = rounded(value)
    assert shown.split()[-1] in {"µs", "ms", "s", "min", "h", "d"}
    assert "e" not in shown


def test_nobody_else_tells_durations():
    """``{x:.3g} s`` is a formatter of its own: 1234.5 is 1.23e+03 s there."""
    own = re.compile(r"\{[^{}\"]*:[^{}\"]*[0-9]*[efg]\} ?(?:µs|ms|s|min|h)\b")
    packages = ("base", "agent", "collector", "analytics", "alerts", "dashboard", "servescope", "demo")
    files = [file for name in packages for file in Path(name).rglob("*.py") if file != Path("base/formats.py")]
    assert len(files) > 500
    assert [f"{file}: {found[0]}" for file in files for found in own.finditer(file.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(
    ("value", "shown"),
    [(90, "90 s"), (120, "2 min"), (3600, "1 h"), (2592000, "30 d"), (0.0005, "0.0005 s"), (1.5, "1.5 s"), (0, "0 s")],
)
def test_a_set_duration_is_spelt_exactly(value: float, shown: str):
    assert spell(value) == shown


@given(st.one_of(st.integers(1, 10**7), st.integers(1, 10**7).map(lambda micros: micros / 1e6)))
def test_what_was_spelt_reads_the_same(seconds: float):
    assert parse_duration(spell(seconds)) == pytest.approx(seconds, rel=1e-12)


def test_a_budget_that_is_judged_over_another_period_says_what_to_type(monkeypatch: pytest.MonkeyPatch):
    told: list[str] = []
    monkeypatch.setattr(question, "say", told.append)
    objectives: Sequence[Objective] = [Objective(f"o{n}", "availability", 0.9, n * 86400.0) for n in (28, 30)]
    assert question._period(objectives) == 30 * 86400.0
    assert told == ["o28 is for 28 d and is judged over 30 d here; --since 28d tells its own"]
    start, end = between(told[0].split("--since ")[1].split()[0], None, None)
    assert (end - start).days == 28
