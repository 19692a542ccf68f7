"""The account of an incident's causes: its sentence, its bounds, and what it finds in real rows."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from alerts.incidents import account, history
from alerts.incidents.account import in_words
from analytics.causes.advice import ADVICE, DRIVER, stage_of
from analytics.causes.chains import Chain, Step
from analytics.causes.chains import in_words as chain_in_words
from analytics.causes.evidence import Cause, Failure
from analytics.causes.onset import Onset
from analytics.questions.causes import Causes
from base.errors import ServescopeError
from collector.store.asker import Asker


def a_cause(cause: str, share: float, **who: str) -> Cause:
    advice, book = ADVICE[cause]
    shown = ["9 requests lost 90 s.", "Tenant a7 holds 71% of the KV tokens held beyond the usual."]
    return Cause(cause, stage_of(cause), "queue", DRIVER[cause], who, 90.0, share, 9, shown, advice, book)


def test_the_sentence_says_how_much_what_where_whose_and_what_next() -> None:
    def said(*causes: Cause, excess: float = 100.0, requests: int = 30) -> str:
        return in_words(Causes(requests, excess, list(causes), 0.1, 10.0, [], 50.0), 600.0)

    held = said(a_cause("kv_cache_full", 0.62, instance="vllm-2", tenant="a7"))
    assert held.startswith(
        "62 % of what requests of the last 10 min took above the usual: KV cache full on vllm-2; "
        "tenant a7 holds 71% of the KV tokens held beyond the usual; next: limit the tenant's concurrency"
    )
    assert "slow readers of tenant a7; next" in said(a_cause("slow_client", 0.9, tenant="a7"))
    assert said() == "30 requests of the last 10 min took 100 s more than usual, and no cause stands out"
    assert said(excess=2.0) == "nothing stands out from the usual in 30 requests of the last 10 min"
    assert said(requests=0) == "no request of the last 10 min can be accounted for yet"
    assert said(a_cause("restart", 0.0), excess=-1.0).startswith("90 s of requests of the last 10 min: restart; next: ")
    failures = [
        Failure("rejected", "queue_full", {"tenant": "hooli", "instance": "triton-a"}, 90, 500.0),
        Failure("error", "", {}, 6, 510.0),
    ]

    def all_said(requests: int, *causes: Cause, failures: list[Failure] = failures) -> str:
        return in_words(Causes(requests, 100.0, list(causes), 0.1, 10.0, failures, 50.0), 600.0)

    ill = "96 failed: rejected, queue_full (most of them, 90), on triton-a, of tenant hooli"
    assert all_said(0) == f"of the last 10 min {ill}"
    assert all_said(30).endswith(f"no cause stands out; {ill}")
    assert f"{ill}; next: " in all_said(30, a_cause("queue_saturated", 0.9))
    onset = Onset("deploy", "2 goes out", "triton-a", 499.0)
    assert all_said(0, failures=[replace(failures[0], onset=onset)]).endswith("of tenant hooli, since a deploy")
    assert "failed" not in all_said(30, failures=failures[1:][:0])
    assert "failed" not in all_said(10_000, failures=failures[1:])  # one in a hundred is told, less is not
    hostile = said(a_cause("slow_client", 0.9, tenant="x\u202e\n" + "y" * 500))
    assert "\u202e" not in hostile
    assert "y" * 100 not in hostile


def a_chain(*causes: str, onset: Onset | None = None) -> Chain:
    steps = [
        Step(cause, causes[place - 1] if place else None, "It does." if place else "", 60.0 + place, 30.0)
        for place, cause in enumerate(causes)
    ]
    made = Chain(onset, ["vllm-2"], "chat", 60.0, 30.0 * len(steps), 0.62, steps)
    return replace(made, told=chain_in_words(made, "06:54:10 UTC"))


def test_the_sentence_says_what_its_first_cause_began_with_and_no_other() -> None:
    deploy = Onset("deploy", "v2 goes out", "", 59.0)
    chain = a_chain("cold_prefix_cache", "kv_cache_full", onset=deploy)

    def said(cause: str, *chains: Chain) -> str:
        return in_words(Causes(30, 100.0, [a_cause(cause, 0.62)], 0.1, 10.0, [], 50.0, chains=list(chains)), 600.0)

    began = (
        "; it began with a deploy at 06:54:10 UTC (v2 goes out): cold prefix cache → KV cache full on vllm-2 "
        "(62 % of the excess); next: "
    )
    assert began in said("kv_cache_full", a_chain("slow_instance", "queue_saturated"), chain)
    assert "began" not in said("slow_client", chain)
    advised = replace(chain, advice="Roll back.")
    assert said("kv_cache_full", advised).endswith("next: roll back")
    assert not said("slow_client", advised).endswith("next: roll back")
    hostile = a_chain("cold_prefix_cache", "kv_cache_full", onset=replace(deploy, what="v2\u202e" + "y" * 500))
    assert "\u202e" not in said("kv_cache_full", hostile)
    assert "y" * 400 not in said("kv_cache_full", hostile)
    assert "began" not in said("kv_cache_full")
    told = account._chain(chain, 1_790_000_000.0)
    assert told["since"] == "2026-09-21T14:14:20.000Z"
    assert told["began"]["name"] == "a deploy"
    assert [(step["name"], step["after"]) for step in told["steps"]] == [
        ("cold prefix cache", None), ("KV cache full", "cold_prefix_cache"),
    ]  # fmt: skip
    assert json.dumps(told)


def test_all_statements_of_an_account_share_one_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        asker = Asker()
        given: list[Any] = []  # noqa: RUF012 - of this test alone

        def rows(self, _sql: str, _parameters: object = None, settings: object = None) -> list[dict[str, Any]]:
            self.given.append(settings)
            passed[0] += 6.0
            return []

    passed = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: passed[0])
    bounded = account._Bounded(Slow(), 10.0)
    bounded.rows("SELECT 1", None, {"max_threads": 1})
    bounded.rows("SELECT 1")
    assert Slow.given == [{"max_threads": 1, "max_execution_time": 10}, {"max_execution_time": 4}]
    with pytest.raises(ServescopeError, match="longer than 10 s"):
        bounded.rows("SELECT 1")


def test_an_account_that_dies_or_takes_too_long_is_told_and_leaves_nothing(
    fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = replace(fleet.store.address, url="http://127.0.0.1:9")
    with pytest.raises(ServescopeError, match="store"):
        account.apart(nobody, {}, 0.0, 600.0)
    monkeypatch.setattr(account, "_answer", len)
    with pytest.raises(ServescopeError, match="their process ended with code"):
        account.apart(nobody, {}, 0.0, 600.0)
    monkeypatch.setattr(account, "WHOLE_SECONDS", 0.0)
    with pytest.raises(ServescopeError, match="longer than 0 s"):
        account.apart(nobody, {}, 0.0, 600.0)
    assert not multiprocessing.active_children()


def test_of_real_rows_the_full_cache_is_found_and_told_by_the_incidents_story(fleet: Any) -> None:
    now = float(int(time.time())) - 30
    rows, samples = [], []
    for second in range(1500):
        at, full = now - 1500 + second, second >= 1300
        where = {"instance": "vllm-2", "deployment": "chat", "engine": "vllm"}
        running, waiting, kv = (9.0, 30.0, 0.99) if full else (1.0, 0.0, 0.2)
        samples.append(fleet.sample_row(
            at, running=running, waiting=waiting, kv_cache_usage_ratio=kv, generation_tokens_delta=40.0, **where,
            preemptions_delta=2.0 if full else 0.0,
        ))  # fmt: skip
        if second % 2:
            queue = 4.0 + second % 5 / 10 if full else 0.01
            decode = 0.2 + second % 7 / 100
            took = queue + 0.05 + decode
            rows.append(fleet.request_row(
                at, tenant="a7" if full else "acme", prompt_tokens=100, completion_tokens=20, has_engine=1,
                queue_seconds=queue, prefill_seconds=0.05, decode_seconds=decode, ttft_seconds=queue + 0.05,
                e2e_seconds=took, engine_e2e_seconds=took, **where,
            ))  # fmt: skip
    fleet.store.insert("engine_samples", samples)
    fleet.store.insert("requests_t", rows)
    found = account.explain(fleet.store, {"instance": ("vllm-2",)}, now - 600, now)
    assert found["causes"][0]["cause"] == "kv_cache_full"
    assert found["causes"][0]["who"]["instance"] == "vllm-2"
    assert "KV cache full on vllm-2" in found["summary"]
    # as the process that pages asks, which lets nothing load numpy
    asked = f"""
import json, sys
from alerts.incidents.account import apart
from collector.store.address import StoreAddress
from collector.store.frames import without_frames
without_frames()
address = StoreAddress(**json.load(sys.stdin))
print(json.dumps(apart(address, {{"instance": ("vllm-2",)}}, {now - 600}, {now})))
"""
    told = subprocess.run(
        [sys.executable, "-c", asked], input=json.dumps(asdict(fleet.store.address)), capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip
    assert json.loads(told.stdout or "{}") == found, told.stderr
    assert account.explain(fleet.store, {"instance": ("nobody",)}, now - 600, now)["causes"] == []
    quiet = account.explain(fleet.store, {}, now - 800, now - 300)
    assert quiet["summary"].startswith("nothing stands out from the usual in ")

    opened = datetime.fromtimestamp(now, UTC)
    fleet.store.insert("incidents", [{
        "id": "i1", "opened_at": opened, "updated_at": opened, "state": "open", "severity": "critical", "title": "t",
        "summary": "t", "labels": {}, "owner": "", "version": 1,
    }])  # fmt: skip
    fleet.store.insert("incident_events", [
        {"time": opened, "incident_id": "i1", "kind": "causes", "message": found["summary"],
         "attributes": {"json": json.dumps(found)}}
    ])  # fmt: skip
    story = history.story(fleet.store, "i1")
    assert story.why == found
    assert [(entry.kind, entry.attributes) for entry in story.timeline] == [("causes", {})]
