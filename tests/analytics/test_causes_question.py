"""The question ``causes`` over a store: its shape, its options, and that a selection is the sum over its requests."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from analytics.ask import ask
from analytics.question import QuestionError
from analytics.questions import causes
from analytics.selection import Filter, Selection
from analytics.window import Window

if TYPE_CHECKING:
    from tests.analytics.lab import Lab


def test_the_envelope_has_the_contracts_fields(lab: Lab):
    envelope = json.loads(json.dumps(ask("causes", lab.store, Selection(lab.window))))
    assert envelope["level"] == "rows"
    result = envelope["result"]
    assert {"requests", "excess_seconds", "causes", "unexplained_share", "failures", "reference", "harm"} <= set(result)
    assert set(result["harm"]) == {"pairs", "unlisted_seconds", "nobodys_seconds"}
    for cause in result["causes"]:
        assert {"cause", "phase", "driver", "who", "seconds", "share", "evidence", "advice"} <= set(cause)
        assert cause["seconds"] > 0
    charged = sum(cause["seconds"] for cause in result["causes"])
    assert charged + result["unexplained_seconds"] == pytest.approx(result["excess_seconds"])
    assert result["requests"] == envelope["rows"] > 0


def test_tenants_sum_to_the_whole(lab: Lab):
    whole = causes.ask(lab.store, Selection(lab.window)).result
    took = sum(row["e2e_seconds"] for row in lab.rows())
    assert 0 < whole.reference_seconds + whole.excess_seconds <= took
    parts = [
        causes.ask(lab.store, Selection(lab.window, Filter(tenant=(name,)))).result
        for name in {row["tenant"] for row in lab.requests}
    ]
    assert sum(part.requests for part in parts) == whole.requests
    assert sum(part.reference_seconds for part in parts) == pytest.approx(whole.reference_seconds, abs=1e-3)
    assert sum(part.excess_seconds for part in parts) == pytest.approx(whole.excess_seconds, abs=1e-3)


def test_one_request_is_asked_by_its_ids_and_a_stranger_is_refused(lab: Lab):
    row = next(row for row in lab.rows() if row["outcome"] == "ok" and row["has_engine"] and row["has_edge"])
    for name in (row["request_id"], row["response_id"]):
        assert causes.ask(lab.store, Selection(lab.window, request_id=name)).result.requests == 1
    with pytest.raises(QuestionError, match="nobody"):
        causes.ask(lab.store, Selection(lab.window, request_id="nobody"))


def test_failures_are_counted_by_how_they_failed(lab: Lab):
    found = causes.ask(lab.store, Selection(lab.window)).result.failures
    wanted: dict[str, int] = {}
    for row in lab.rows():
        if row["outcome"] in {"rejected", "server_error", "upstream_reset", "timeout"}:
            wanted[row["outcome"]] = wanted.get(row["outcome"], 0) + 1
    told: dict[str, int] = {}
    for one in found:
        told[one.outcome] = told.get(one.outcome, 0) + one.requests
        assert 0 <= one.since_seconds < 600
    assert told
    assert all(count <= wanted[outcome] for outcome, count in told.items())


def test_an_empty_window_has_no_causes(lab: Lab):
    before = Window(lab.start - timedelta(days=3), lab.start - timedelta(days=3) + timedelta(minutes=1))
    answer = causes.ask(lab.store, Selection(before))
    assert answer.state == "no_data"
    assert answer.result.causes == []
    assert answer.result.unexplained_share is None
