from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import analytics
from analytics.ask import all_questions, ask
from analytics.inquiry import written_out
from analytics.question import QuestionError
from analytics.questions import events, tenants
from analytics.selection import Filter, Selection
from analytics.slo import Objective
from analytics.window import Window
from base.named_sql import statements
from tests.analytics.truth import BAD, grouped, latencies, quantile

if TYPE_CHECKING:
    from tests.analytics.lab import Lab

OBJECTIVE = Objective("answers", "availability", 0.9)


def test_tenants_shares_are_those_of_the_rows(lab: Lab):
    only = Filter(recording="exclude")
    answer = tenants.ask(lab.store, Selection(lab.window, only))
    rows = lab.rows(only)
    truth = grouped(rows, lambda r: r["tenant"])
    tokens = sum(r["prompt_tokens"] + r["completion_tokens"] for r in rows)
    assert {t.tenant for t in answer.result.tenants} == truth.keys()
    assert sum(t.request_share for t in answer.result.tenants) == pytest.approx(1)
    assert sum(t.token_share or 0 for t in answer.result.tenants) == pytest.approx(1)
    for told in answer.result.tenants:
        held = truth[told.tenant]
        assert told.requests == len(held)
        assert told.errors == sum(r["has_edge"] and r["outcome"] in BAD for r in held)
        assert told.error_share == pytest.approx(told.errors / len(held))
        assert told.forgiven == sum(r["has_edge"] and r["outcome"] in {"client_abort", "client_error"} for r in held)
        for name in ("prompt_tokens", "cached_tokens", "completion_tokens"):
            assert getattr(told, name) == sum(r[name] for r in held)
        assert told.token_share == pytest.approx(
            sum(r["prompt_tokens"] + r["completion_tokens"] for r in held) / tokens
        )
        assert told.prompt_share == pytest.approx(told.prompt_tokens / sum(r["prompt_tokens"] for r in rows))
        assert told.completion_share == pytest.approx(
            told.completion_tokens / sum(r["completion_tokens"] for r in rows)
        )
        assert told.engine_seconds == pytest.approx(sum(map(in_engines, held)), rel=1e-5)
        assert told.engine_share == pytest.approx(sum(map(in_engines, held)) / sum(map(in_engines, rows)), rel=1e-5)
        for name, level in (("ttft", 95), ("ttft", 99), ("e2e", 95), ("e2e", 99), ("queue", 99)):
            values = latencies(held, f"{name}_seconds")
            found = getattr(told, f"{name}_p{level}_seconds")
            assert found == pytest.approx(quantile(values, level / 100), rel=1e-6)
    fleet = answer.result.fleet
    assert fleet is not None
    assert fleet.requests == len(rows)
    assert fleet.e2e_p95_seconds == pytest.approx(quantile(latencies(rows, "e2e_seconds"), 0.95), rel=1e-6)
    first = tenants.ask(lab.store, Selection(lab.window, only), limit=1).result
    assert first.tenants == answer.result.tenants[:1]
    assert first.left_out == len(truth) - 1
    assert first.requests == len(rows)


def in_engines(row: dict[str, Any]) -> float:
    compute = sum(row[f"compute_{part}_seconds"] for part in ("input", "infer", "output"))
    return float(row["prefill_seconds"] + row["decode_seconds"] + compute)


@pytest.mark.parametrize("most", [2, 8])
def test_the_heaviest_tenants_have_lines_of_their_own_and_the_others_one(lab: Lab, most: int):
    only = Filter(recording="exclude", instance=("vllm-0", "vllm-1", "triton-0"))
    told = tenants.ask(lab.store, Selection(lab.window, only), lines=most, points=60).result
    rows = lab.rows(only)
    truth = grouped(rows, lambda r: r["tenant"])
    heaviest = sorted(truth, key=lambda name: -sum(map(in_engines, truth[name])))[:most]
    assert [line.tenant for line in told.lines if not line.others] == heaviest
    assert len([line for line in told.lines if line.others]) == (len(truth) > most)
    for line in told.lines:
        held = [r for r in rows if r["tenant"] not in heaviest] if line.others else truth[line.tenant]
        amounts = {
            "requests": len(held),
            "tokens": sum(r["prompt_tokens"] + r["completion_tokens"] for r in held),
            "engine_seconds": sum(map(in_engines, held)),
        }
        for name, amount in amounts.items():
            assert sum(getattr(line, name)) * told.step == pytest.approx(amount, rel=1e-5)


def test_events_and_incidents_mark_the_window(lab: Lab):
    opened = lab.start + timedelta(seconds=100)
    incident: dict[str, Any] = {
        "id": "inc-1",
        "opened_at": opened,
        "updated_at": opened,
        "resolved_at": None,
        "state": "open",
        "severity": "page",
        "title": "TTFT budget burns",
        "summary": "",
        "labels": {"model": "llama"},
        "owner": "",
        "version": 1,
    }
    closed = incident | {"resolved_at": opened + timedelta(seconds=50), "state": "resolved", "version": 2}
    lab.owner.insert("incidents", [incident])
    lab.owner.insert("incidents", [closed])
    answer = events.ask(lab.store, Selection(lab.window))
    assert [(m.event, m.message, m.instance) for m in answer.result.marks] == [
        ("deploy", "version 0.33 goes to vllm-1", "vllm-1"),
        ("note", "load test starts", ""),
        ("instance_restarted", "vllm-0 restarted", "vllm-0"),
    ]
    (band,) = answer.result.bands
    assert (band.id, band.state, band.start, band.end) == ("inc-1", "resolved", opened, opened + timedelta(seconds=50))
    narrowed = events.ask(lab.store, Selection(lab.window, Filter(instance=("vllm-0",), model=("qwen",)))).result
    assert [m.event for m in narrowed.marks] == ["note", "instance_restarted"]
    assert narrowed.bands == [], "it is about another model"
    assert [m.event for m in events.ask(lab.store, Selection(lab.window), events=("deploy",)).result.marks] == [
        "deploy"
    ]
    newest = events.ask(lab.store, Selection(lab.window), limit=1).result
    assert [m.event for m in newest.marks] == ["instance_restarted"]
    assert newest.left_out == 2
    after = Window(opened + timedelta(seconds=60), lab.window.end)
    assert events.ask(lab.store, Selection(after)).result.bands == []


OPTIONS: dict[str, dict[str, Any]] = {"budget": {"objectives": [OBJECTIVE]}, "difference": {"baseline": "previous"}}
ABSENT = {"gpus", "hosts", "routers"}


@pytest.mark.parametrize("name", sorted(all_questions().keys() - {"story"}))
def test_every_question_has_an_envelope_in_json_full_or_empty(lab: Lab, name: str):
    empty = Window(lab.start - timedelta(days=3), lab.start - timedelta(days=3) + timedelta(minutes=5))
    options = OPTIONS.get(name, {})
    for window in (lab.window, empty):
        told = json.loads(
            json.dumps(ask(name, lab.store, Selection(window, Filter(recording="exclude")), **options), allow_nan=False)
        )
        assert set(told) == {"window", "filters", "level", "rows", "result"}
        assert told["level"] in {"rows", "metrics"}
        if name not in ABSENT or window == empty:  # whether any is in the laboratory is another test's matter
            assert told["result"]["about"]["state"] == ("value" if window == lab.window else "no_data")
        assert told["result"]["about"]["recordings"] == []


@pytest.mark.parametrize("name", sorted(all_questions().keys() - {"story"}))
def test_the_sql_beside_an_answer_can_be_pasted_and_run(lab: Lab, name: str):
    options = OPTIONS.get(name, {})
    answer = all_questions()[name](lab.store, Selection(lab.window, Filter(model=("llama", "it's \\ one"))), **options)
    assert answer.sql
    for sql in answer.sql:
        assert "{" not in sql
        lab.store.rows(sql)


def test_recordings_are_named_left_out_or_looked_at_alone(lab: Lab):
    for word, expected in (("include", ["kv_exhaustion"]), ("only", ["kv_exhaustion"]), ("exclude", [])):
        told = ask("latency", lab.store, Selection(lab.window, Filter(recording=word)))  # type: ignore[arg-type]
        assert told["result"]["about"]["recordings"] == expected  # type: ignore[index]


def test_questions_and_options_that_do_not_exist_are_named(lab: Lab):
    with pytest.raises(QuestionError, match="no question 'weather'"):
        ask("weather", lab.store, Selection(lab.window))
    with pytest.raises(QuestionError, match="latency takes no colour"):
        ask("latency", lab.store, Selection(lab.window), colour="red")
    with pytest.raises(QuestionError, match="needs objectives"):
        ask("budget", lab.store, Selection(lab.window))


def test_every_statement_takes_values_as_parameters_alone():
    files = sorted(Path(analytics.__file__).parent.rglob("*.sql"))
    assert len(files) > 10
    for file in files:
        for name, sql in statements(file).items():
            assert "%" not in sql.replace("'%'", ""), (file, name)
            assert sql.count("{") == sql.count(":Int64}") + sum(
                sql.count(f":{kind}}}")
                for kind in (
                    "Array(String)",
                    "Array(Int64)",
                    "Array(UInt64)",
                    "String",
                    "UInt32",
                    "UInt64",
                    "Int32",
                    "Float64",
                )
            ), (file, name)


def test_written_out_statements_quote_what_they_show():
    assert written_out("{a:String} {b:Array(String)} {c:Int64}", {"a": "it's \\", "b": ["x", "y'"], "c": 5}) == (
        "'it\\'s \\\\' ['x', 'y\\''] 5"
    )
