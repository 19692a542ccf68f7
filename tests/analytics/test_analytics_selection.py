"""Every field of a selection is gone by, refused by name, or told in the notes; none is silently ignored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from analytics.ask import all_questions, ask
from analytics.inquiry import Inquiry
from analytics.question import QuestionError
from analytics.questions import budget, kvcache, latency, requests, story, tenants, traffic
from analytics.selection import Filter, LatencyRange, Selection
from analytics.slo import Objective
from analytics.traits import NAMES, NUMBERS, Trait
from analytics.window import Window, WindowError
from tests.analytics.truth import latencies
from tests.analytics.truth import latency as latency_of

if TYPE_CHECKING:
    from tests.analytics.lab import Lab

EVERY_COLUMN = (
    *(Trait(column, "of nobody", lacking=True) for column in NAMES),
    *(Trait(column, at_least=1e9, lacking=True) for column in NUMBERS),
)
FIELDS: dict[str, Any] = {
    "tenant": {"filter": Filter(tenant=("a2",))},
    "outcome": {"outcome": ("timeout", "ok")},
    "latency": {"latency": LatencyRange("tpot_seconds", 0.001, 5.0)},
    "traits": {"traits": (Trait.of("status=200"), Trait.of("prompt_tokens=..7654321"), *EVERY_COLUMN)},
    "trace_id": {},
    "request_id": {},
    "key": {},
}
IN_SQL = {
    "tenant": "IN ['a2']", "outcome": "IN ['timeout', 'ok']", "latency": ">= 0.001", "traits": "< 7654321",
    "trace_id": "unhex('",
    "request_id": "request_id IN ['", "key": "key = ",
}  # fmt: skip
SPOKEN = {name: name.replace("_", " ") for name in FIELDS}


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("name", sorted(all_questions()))
def test_no_question_ignores_a_field(lab: Lab, name: str, field: str) -> None:
    options: dict[str, Any] = {"objectives": [Objective("o", "availability", 0.9)]} if name == "budget" else {}
    one = next(r for r in lab.rows() if r["has_edge"] and r["has_engine"] and latency_of(r, "tpot_seconds"))
    ids = {"trace_id": one["trace_id"].encode().hex(), "request_id": one["request_id"], "key": str(one["key"])}
    chosen = FIELDS[field] or {field: ids[field]}
    try:
        answer = all_questions()[name](lab.store, Selection(lab.window, **chosen), **options)
    except QuestionError as error:
        refused = error
    else:
        refused = None
    if refused is not None:
        assert field in refused.what
        return
    noted = any(SPOKEN[field] in note for note in answer.notes)
    coverage, *own = answer.sql
    asked = [coverage] if name == "arrivals" else own if "UNION ALL" in coverage else answer.sql
    assert noted or any(IN_SQL[field] in sql for sql in asked), answer.sql
    if name != "story" and any("FROM engine_" in sql for sql in own):
        assert noted, "figures of metrics are of all, and that is said"


def kept(lab: Lab, selection: Selection) -> list[dict[str, Any]]:
    found = lab.rows(selection.filter, selection.window)
    if selection.outcome:
        found = [r for r in found if (r["outcome"] if r["has_edge"] else "ok") in selection.outcome]
    if (among := selection.latency) is not None:
        low, high = among.at_least or 0.0, among.below or 1e9
        found = [r for r in found if (v := latency_of(r, among.signal)) is not None and low <= v < high]
    for trait in selection.traits:
        low, high = trait.at_least or 0.0, trait.below or 1e9
        found = [
            r
            for r in found
            if (r[trait.column] == trait.value if trait.column in NAMES else low <= r[trait.column] < high)
            is not trait.lacking
        ]
    return found


@pytest.mark.parametrize(
    "fields",
    [
        {"outcome": ("ok",)},
        {"outcome": ("rejected", "timeout")},
        {"latency": LatencyRange("ttft_seconds", 0.2, 0.9)},
        {"traits": (Trait("region", "eu"), Trait("tenant", "a1", lacking=True))},
        {"traits": (Trait("prompt_tokens", at_least=300, below=900, lacking=True),), "outcome": ("ok",)},
        {"latency": LatencyRange("queue_seconds", below=0.1), "filter": Filter(model=("llama",))},
        {
            "latency": LatencyRange("e2e_seconds", at_least=1.0),
            "outcome": ("timeout",),
            "filter": Filter(tenant=("a1",)),
        },
    ],
)
def test_questions_of_rows_go_by_outcome_and_latency(lab: Lab, fields: dict[str, Any]) -> None:
    selection = Selection(lab.window, **fields)
    rows = kept(lab, selection)
    assert 0 < len(rows) < len(lab.rows())
    assert traffic.ask(lab.store, selection).rows == len(rows)
    assert sum(tenant.requests for tenant in tenants.ask(lab.store, selection).result.tenants) == len(rows)
    assert requests.ask(lab.store, selection, order="newest").result.matching == len(rows)
    told = latency.ask(lab.store, selection, signal="edge_seconds")
    values = latencies(rows, "edge_seconds")
    assert told.rows == len(values)
    assert {line.level for line in told.result.lines} <= {"rows"}, "metrics know no outcome and are left out"


def test_nothing_of_a_selection_is_zero_and_not_what_metrics_tell(lab: Lab) -> None:
    nothing = Selection(lab.window, Filter(instance=("vllm-3",)), outcome=("timeout",))
    answer = traffic.ask(lab.store, nothing)
    assert answer.result.requests.value in {0.0, None}
    assert latency.ask(lab.store, nothing).result.lines == []
    assert any("outcome" in note for note in answer.notes)
    whole = kvcache.ask(lab.store, nothing.but(outcome=()))
    told = kvcache.ask(lab.store, nothing)
    assert told.result.usage_max == whole.result.usage_max
    assert "Server metrics know no outcome: figures from them are of all requests." in told.notes


def test_the_settled_edge_is_of_all_that_may_still_be_open(lab: Lab) -> None:
    end = datetime.now(UTC)
    window = Window(end - timedelta(seconds=1200), end)
    whole, quick = (
        Inquiry(lab.store, Selection(window, latency=among), now=end)
        for among in (None, LatencyRange("e2e_seconds", below=0.001))
    )
    assert whole._settled() == quick._settled()
    assert not any("0.001" in sql for sql in quick.asked)


def test_one_request_is_found_within_its_window_alone(lab: Lab) -> None:
    one = lab.rows()[23]
    at = Window.instant(one["time"])
    key = str(one["key"])
    assert story.ask(lab.store, Selection(at, key=key)).result.request is not None
    assert story.ask(lab.store, Selection.one(key=key)).result.request is not None
    elsewhere = Window(at.end, at.end + timedelta(minutes=1))
    assert story.ask(lab.store, Selection(elsewhere, key=key)).result.request is None


def test_a_request_is_found_by_any_of_its_ids(lab: Lab) -> None:
    one = next(row for row in lab.rows() if row["response_id"])
    trace = one["trace_id"].encode().hex()
    for text in (one["request_id"], one["response_id"], trace, f" {trace.upper()} "):
        answer = requests.ask(lab.store, Selection(lab.window).found_by(text), order="newest")
        assert [row.key for row in answer.result.requests] == [str(one["key"])], text
        assert tenants.ask(lab.store, Selection(lab.window).found_by(text)).rows == 1


def test_an_id_that_looks_like_a_traces_is_a_requests(lab: Lab) -> None:
    """As nginx's own are."""
    window = Window(lab.start - timedelta(days=10), lab.start - timedelta(days=10) + timedelta(hours=1))
    row = {
        "time": window.start, "key": 8_000_001, "request_id": "0123456789abcdef" * 2, "model": "m", "instance": "i",
        "outcome": "ok", "e2e_seconds": 0.5, "has_edge": 1, "operation": "chat",
    }  # fmt: skip
    lab.owner.insert("requests_t", [row])
    answer = requests.ask(lab.store, Selection(window).found_by(str(row["request_id"])), order="newest")
    assert [found.key for found in answer.result.requests] == ["8000001"]


def test_requests_of_which_none_is_selected_are_no_silence(lab: Lab) -> None:
    """Servers were asked, and have rows: an answer that says they were not is wrong."""
    nothing = Selection(lab.window, latency=LatencyRange("e2e_seconds", at_least=86_000.0))
    whole = requests.ask(lab.store, Selection(lab.window))
    answer = requests.ask(lab.store, nothing)
    assert (answer.rows, answer.coverage.rows, answer.state) == (0, 0, "no_data")
    assert answer.coverage.last_row == whole.coverage.last_row
    assert answer.coverage.metrics_only == whole.coverage.metrics_only
    few = tenants.ask(lab.store, Selection(lab.window, Filter(model=("llama",)), outcome=("timeout",)))
    assert not any("vllm-0" in note for note in few.notes), "it has rows, also where none of them is selected"


def test_what_is_chosen_stands_in_the_envelope_and_nothing_else(lab: Lab) -> None:
    plain = ask("traffic", lab.store, Selection(lab.window))["filters"]
    among = Selection(lab.window, outcome=("ok",), latency=LatencyRange("e2e_seconds", 0.5), request_id="req-1")
    told: Any = ask("traffic", lab.store, among)["filters"]
    assert told == {
        **plain,  # type: ignore[dict-item]
        "outcome": ["ok"],
        "latency": {"signal": "e2e_seconds", "at_least": 0.5, "below": None},
        "request_id": "req-1",
    }


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"outcome": "ok"}, "outcome"),
        ({"key": "x"}, "key"),
        ({"key": str(1 << 64)}, "key"),
        ({"trace_id": "ab"}, "trace id"),
    ],
)
def test_a_selection_that_makes_no_sense_is_refused_by_name(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises((WindowError, QuestionError), match=named):
        Selection(Window.last(60), **wrong)


@pytest.mark.parametrize(
    ("bounds", "named"),
    [
        ({}, "no bound"),
        ({"at_least": 2.0, "below": 1.0}, "not less"),
        ({"at_least": float("nan")}, "at_least"),
        ({"below": float("inf")}, "below"),
        ({"signal": "warp", "below": 1.0}, "no latency"),
    ],
)
def test_a_range_that_makes_no_sense_is_refused_by_name(bounds: dict[str, Any], named: str) -> None:
    with pytest.raises(WindowError, match=named):
        LatencyRange(**bounds)


def test_a_budget_names_what_it_goes_by(lab: Lab) -> None:
    with pytest.raises(QuestionError, match="can't be narrowed by outcome") as refused:
        budget.ask(lab.store, Selection(lab.window, outcome=("ok",)), objectives=[Objective("o", "availability", 0.9)])
    assert "tenant" in refused.value.fix
