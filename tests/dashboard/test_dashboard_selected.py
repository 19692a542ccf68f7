"""What stands out in some requests leads on: to only those that have it, or to all but these, in the same bounds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from analytics.over_represented import Finding
from analytics.selection import LatencyRange, Selection
from analytics.traits import NAMES, NUMBERS, Trait
from analytics.window import Window
from dashboard.links import narrowed
from dashboard.selected import finding_in_words, none_in_words, ways

START = datetime(2026, 1, 1, tzinfo=UTC)
SELECTION = Selection(Window(START, START + timedelta(minutes=5)), latency=LatencyRange("ttft_seconds", 0.5, 2.0))


def found(column: str, value: str | None, **ends: float) -> Finding:
    return Finding(column, value, ends.get("at_least"), ends.get("below"), 9, 10, 1, 10, 0.9, 0.1, 0.5, 0.001, {})


def asked(one: Finding, selection: Selection = SELECTION) -> list[dict[str, list[str]]]:
    return [parse_qs(urlsplit(address).query) for address in ways(one, selection)]


def test_a_value_leads_to_its_requests_and_to_all_others_in_the_same_box() -> None:
    only, others = asked(found("tenant", "a&b"))
    assert only["tenant"] == ["a&b"]
    assert others["not"] == ["tenant=a&b"]
    for address in (only, others):
        assert (address["at_least"], address["below"]) == (["0.5"], ["2.0"])
        assert address["from"] == [f"{START.timestamp():.3f}"]
    only, others = asked(found("outcome", "server_error"))
    assert only["outcome"] == ["server error"]
    assert others["not"] == ["outcome=server_error"]


@pytest.mark.parametrize("column", sorted(NAMES))
def test_so_does_a_value_of_every_column(column: str) -> None:
    only, others = asked(found(column, "x=&y"))
    assert "x=&y" in str(only)
    assert others["not"] == [f"{column}=x=&y"]


@pytest.mark.parametrize("column", sorted(NUMBERS))
def test_and_a_range_of_numbers(column: str) -> None:
    only, others = asked(found(column, None, at_least=900.0))
    assert (only["only"], others["not"]) == ([f"{column}=900.."], [f"{column}=900.."])
    assert asked(found(column, None, below=3.5))[0]["only"] == [f"{column}=..3.5"]


def test_a_step_further_keeps_the_steps_before() -> None:
    only, _ = asked(found("route", "/v1/completions"))
    first = narrowed(SELECTION, signal="e2e_seconds", only=only["only"])
    _, others = asked(found("prompt_tokens", None, below=3.0), first)
    assert (others["only"], others["not"]) == (["route=/v1/completions"], ["prompt_tokens=..3"])
    second = narrowed(SELECTION, signal="e2e_seconds", only=others["only"], lacking=others["not"])
    assert second.traits == (Trait("route", "/v1/completions"), Trait("prompt_tokens", below=3.0, lacking=True))
    assert asked(found("prompt_tokens", None, below=3.0), second)[1]["not"] == others["not"], "once is enough"
    assert asked(found("tenant", "")) == [{}, {}], "what is untold is nobody's"


def test_findings_are_told_in_words() -> None:
    assert finding_in_words(found("prompt_tokens", None, at_least=900.0)) == "prompt tokens from 900"
    assert finding_in_words(found("prompt_tokens", None, below=3.0)) == "prompt tokens below 3"
    assert finding_in_words(found("tenant", "")) == "tenant none"


def test_without_anything_to_compare_with_nobody_says_that_nothing_stands_out() -> None:
    assert "Nothing to compare with" in none_in_words(0)
    assert "Nothing stands out" in none_in_words(1)
