from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from analytics.question import QuestionError
from analytics.questions import requests
from analytics.selection import Filter, LatencyRange, Selection
from analytics.window import Window, WindowError
from tests.analytics.truth import latency

if TYPE_CHECKING:
    from analytics.signals import LatencySignal
    from tests.analytics.lab import Lab


def slowest(rows: list[dict[str, Any]], signal: str) -> list[str]:
    ranked = [(latency(r, signal), r["time"], r["key"]) for r in rows]
    known = sorted(((v, t, k) for v, t, k in ranked if v is not None), reverse=True)
    return [str(key) for _, _, key in known]


@pytest.mark.parametrize("signal", ["e2e_seconds", "queue_seconds", "ttft_seconds"])
def test_slowest_first_page_by_page_gives_each_request_once(lab: Lab, signal: LatencySignal):
    only = Filter(model=("llama", "resnet"))
    expected = slowest(lab.rows(only), signal)
    seen: list[str] = []
    after = None
    while True:
        answer = requests.ask(lab.store, Selection(lab.window, only), signal=signal, limit=170, after=after)
        assert answer.result.matching == answer.rows == len(expected)
        seen += [row.key for row in answer.result.requests]
        after = answer.result.next
        if after is None:
            break
    assert seen == expected


def test_newest_first_page_by_page(lab: Lab):
    expected = [str(r["key"]) for r in sorted(lab.rows(), key=lambda r: (r["time"], r["key"]), reverse=True)]
    first = requests.ask(lab.store, Selection(lab.window), order="newest", limit=1000).result
    rest = requests.ask(lab.store, Selection(lab.window), order="newest", limit=1000, after=first.next).result
    assert [row.key for row in first.requests + rest.requests] == expected
    assert rest.next is None


def test_a_row_tells_what_was_written_and_none_for_what_nobody_measured(lab: Lab):
    found = {
        row.key: row
        for row in requests.ask(lab.store, Selection(lab.window), order="newest", limit=1000).result.requests
    }
    for truth in lab.rows():
        row = found.get(str(truth["key"]))
        if row is None:
            continue
        assert row.time == truth["time"]
        assert row.trace_id == truth["trace_id"].encode().hex()
        assert (row.tenant, row.model, row.instance) == (truth["tenant"], truth["model"], truth["instance"])
        assert (row.has_edge, row.has_engine) == (bool(truth["has_edge"]), bool(truth["has_engine"]))
        assert row.outcome == (truth["outcome"] if truth["has_edge"] else "ok")
        for name in ("queue_seconds", "prefill_seconds", "edge_seconds", "tpot_seconds", "compute_infer_seconds"):
            expected = latency(truth, name)
            assert getattr(row, name) == (None if expected is None else pytest.approx(expected, rel=1e-6))
        assert row.e2e_seconds == pytest.approx(truth["e2e_seconds"])
        assert row.completion_tokens == truth["completion_tokens"]


def test_outcomes_bounds_and_ids_narrow(lab: Lab):
    rows = lab.rows()
    bad = requests.ask(lab.store, Selection(lab.window, outcome=("rejected", "timeout")), order="newest", limit=1000)
    assert bad.rows == sum(r["has_edge"] and r["outcome"] in {"rejected", "timeout"} for r in rows)
    box = requests.ask(
        lab.store,
        Selection(lab.window, latency=LatencyRange("ttft_seconds", 0.2, 0.6)),
        signal="ttft_seconds",
        limit=1000,
    )
    values = [latency(r, "ttft_seconds") for r in rows]
    assert box.rows == sum(v is not None and 0.2 <= v < 0.6 for v in values)
    one = rows[17]
    by_trace = requests.ask(
        lab.store, Selection(lab.window, trace_id=one["trace_id"].encode().hex().upper()), order="newest"
    )
    assert [row.key for row in by_trace.result.requests] == [str(one["key"])]
    by_id = requests.ask(lab.store, Selection(lab.window, request_id=one["request_id"]), order="newest")
    assert [row.key for row in by_id.result.requests] == [str(one["key"])]


def test_what_cannot_be_asked_is_named(lab: Lab):
    with pytest.raises(WindowError, match="limit"):
        requests.ask(lab.store, Selection(lab.window), limit=1001)
    with pytest.raises(WindowError, match="page mark"):
        requests.ask(lab.store, Selection(lab.window), after="soon")
    with pytest.raises(QuestionError, match="no trace id"):
        requests.ask(lab.store, Selection(lab.window, trace_id="' OR 1=1 --"))


def test_values_reach_the_store_as_values_whatever_they_say(lab: Lab):
    nasty = ("x' OR '1'='1", "{limit:UInt32}", "a\\", "/*after*/", "line\nbreak")
    answer = requests.ask(lab.store, Selection(lab.window, Filter(tenant=nasty, instance=nasty), request_id=nasty[0]))
    assert answer.rows == 0
    assert (
        requests.ask(
            lab.store, Selection(Window(lab.start - timedelta(days=9), lab.start - timedelta(days=8)))
        ).result.requests
        == []
    )
