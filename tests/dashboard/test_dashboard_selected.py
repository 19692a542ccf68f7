"""What stands out in some requests leads on: to only those that have it, or to all but these, in the same bounds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

from analytics.over_represented import Finding
from analytics.selection import LatencyRange, Selection
from analytics.window import Window
from dashboard.page_context import PageContext
from dashboard.selected import finding_in_words, ways

START = datetime(2026, 1, 1, tzinfo=UTC)
SELECTION = Selection(Window(START, START + timedelta(minutes=5)), latency=LatencyRange("ttft_seconds", 0.5, 2.0))
CHOICES: Any = SimpleNamespace(
    models=["m"], tenants=["", "a&b", "c", "d"], instances=["i", "j"], outcomes=["ok", "server_error"]
)


def found(column: str, value: str | None, **ends: float) -> Finding:
    return Finding(column, value, ends.get("at_least"), ends.get("below"), 9, 10, 1, 10, 0.9, 0.1, 0.5, 0.001, {})


def asked(one: Finding) -> list[dict[str, list[str]]]:
    context = PageContext(SELECTION, live=False, choices=CHOICES)
    return [parse_qs(urlsplit(address).query) for address in ways(one, SELECTION, context)]


def test_a_value_leads_to_its_requests_and_to_all_others_in_the_same_box() -> None:
    only, others = asked(found("tenant", "a&b"))
    assert only["tenant"] == ["a&b"]
    assert others["tenant"] == ["c", "d"]
    for address in (only, others):
        assert (address["at_least"], address["below"]) == (["0.5"], ["2.0"])
        assert address["from"] == [f"{START.timestamp():.3f}"]
    only, others = asked(found("outcome", "server_error"))
    assert only["outcome"] == ["server error"]
    assert others["outcome"] == ["ok"]


def test_what_no_address_can_say_leads_nowhere() -> None:
    assert asked(found("model", "m"))[1] == {}, "there is no other"
    assert asked(found("route", "/v1/completions")) == [{}, {}]
    assert asked(found("prompt_tokens", None, at_least=900.0)) == [{}, {}]
    assert asked(found("tenant", "")) == [{}, {}]


def test_findings_are_told_in_words() -> None:
    assert finding_in_words(found("prompt_tokens", None, at_least=900.0)) == "prompt tokens from 900"
    assert finding_in_words(found("prompt_tokens", None, below=3.0)) == "prompt tokens below 3"
    assert finding_in_words(found("tenant", "")) == "tenant none"
