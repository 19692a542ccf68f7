"""The question ``causes`` over a store: its shape, its options, and that a selection is the sum over its requests."""

from __future__ import annotations

import json
import random
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from analytics.ask import ask
from analytics.causes.advice import BEGAN
from analytics.question import QuestionError
from analytics.questions import causes
from analytics.selection import Filter, Selection
from analytics.window import Window
from servescope.printing import print_answer
from tests.kits.causes_sim import Server, steady, traffic
from tests.kits.causes_store import stored

if TYPE_CHECKING:
    from tests.analytics.lab import Lab


def test_the_envelope_has_the_contracts_fields(lab: Lab):
    envelope = json.loads(json.dumps(ask("causes", lab.store, Selection(lab.window))))
    assert envelope["level"] == "rows"
    result = envelope["result"]
    assert {
        "requests",
        "excess_seconds",
        "causes",
        "unexplained_share",
        "failures",
        "reference",
        "harm",
        "chains",
    } <= set(result)
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


def test_a_deploy_that_lost_the_cache_is_told_as_what_it_began_with(lab: Lab, capsys: pytest.CaptureFixture[str]):
    """Planted: from second 70 on, a second after the deploy, no prompt is in the cache; there are few KV blocks."""
    start, chance = lab.start - timedelta(days=12), random.Random(11)
    server = Server("sim-chain", blocks=2300)
    asks = steady(chance, 110, 2.0, "sim-chain")
    asks += traffic(chance, 0, 100, 16, "acme", prompt=(1500, 2000), cached=0.9, instance="sim-chain")
    for one in asks:
        one.cached = one.cached if one.at < 70 else 0
    server.serve(asks, 110, chance)
    rows = [stored(one, number, start, "chains") for number, one in enumerate(asks)]
    where = {"deployment": "chains", "instance": "sim-chain", "engine": "vllm"}
    lab.owner.insert("requests_t", [row | {"tenant": one.tenant} for row, one in zip(rows, asks, strict=True)])
    lab.owner.insert("engine_samples", [
        {
            "time": start + timedelta(seconds=number + 1), "model": "m", "interval_seconds": 1.0, "up": 1, **where,
            "running": sample["running"], "waiting": sample["waiting"], "kv_cache_usage_ratio": sample["kv"],
            "preemptions_delta": sample["preemptions"], "generation_tokens_delta": sample["generated"],
        }
        for number, sample in enumerate(server.samples)
    ])  # fmt: skip
    lab.owner.insert("events", [{
        "time": start + timedelta(seconds=69), "event": "deploy", "message": "v2 goes out.", "deployment": "chains",
    }])  # fmt: skip
    window = Window(start + timedelta(seconds=60), start + timedelta(seconds=110))
    envelope = json.loads(json.dumps(ask("causes", lab.store, Selection(window, Filter(instance=("sim-chain",))))))
    result = envelope["result"]
    (chain,) = result["chains"]
    assert chain["began"] == {"event": "deploy", "what": "v2 goes out", "instance": "", "seconds": pytest.approx(9)}
    assert (chain["deployment"], chain["instances"]) == ("chains", ["sim-chain"])
    assert [(step["cause"], step["after"]) for step in chain["steps"]] == [
        ("cold_prefix_cache", None), ("kv_cache_full", "cold_prefix_cache"),
    ]  # fmt: skip
    charged = {one["cause"]: one["seconds"] for one in result["causes"]}
    for step in chain["steps"]:
        assert 0.5 * charged[step["cause"]] < step["seconds"] <= charged[step["cause"]] * (1 + 1e-6)
        assert step["because"]
        assert step["since_seconds"] == pytest.approx(12, abs=4)
    assert chain["share"] == pytest.approx(chain["seconds"] / result["excess_seconds"])
    began = f"began with a deploy at {start + timedelta(seconds=69):%H:%M:%S} UTC (v2 goes out): "
    assert chain["advice"] == BEGAN["deploy"]
    assert chain["told"].startswith(f"{began}cold prefix cache → KV cache full on sim-chain (")
    (full,) = [one for one in result["causes"] if one["cause"] == "kv_cache_full"]
    ids = [one["request_id"] for one in full["driving"]]
    assert [one["tenant"] for one in full["driving"]] == ["acme"] * len(ids)
    assert len(set(ids)) == 5
    for one in full["driving"]:
        row = next(row for row in rows if row["engine_request_id"] == one["request_id"])
        assert (one["trace_id"], one["key"]) == (row["trace_id"].encode().hex(), str(row["key"]))
        assert row["prompt_tokens"] >= 1500
        assert one["time"] == row["time"].isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert full["evidence"][-1].startswith(f"The largest of it: requests {ids[0]} (")
    first = Selection(window, request_id=ids[0])
    assert causes.ask(lab.store, first).result.requests == (full["driving"][0]["time"] >= envelope["window"]["start"])
    print_answer(envelope)
    assert chain["told"] in capsys.readouterr().out
