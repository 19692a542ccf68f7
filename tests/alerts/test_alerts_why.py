"""Why requests of an incident are slow: on the page where it is known in time, else in the timeline."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from alerts.incidents import account, history, why
from alerts.incidents.account import in_words
from alerts.incidents.why import place_of
from alerts.measure.measured import Counted, Group
from analytics.causes.advice import ADVICE, DRIVER, stage_of
from analytics.causes.chains import Chain, Step
from analytics.causes.chains import in_words as chain_in_words
from analytics.causes.evidence import Cause, Failure
from analytics.causes.onset import Onset
from analytics.questions.causes import Causes
from base.errors import ServescopeError
from collector.store.asker import Asker

if TYPE_CHECKING:
    from tests.kits.alerts_stage import Stage

FOUND = {
    "summary": "94 % of what requests of the last 10 min took above the usual: KV cache full on a; next: limit it",
    "window": {"start": "2026-05-04T10:00:00Z", "end": "2026-05-04T10:10:00Z"},
    "place": {"instance": ["a"]},
    "causes": [{
        "cause": "kv_cache_full", "name": "KV cache full", "seconds": 90.0, "share": 0.94, "who": {"instance": "a"},
        "evidence": ["9 requests lost 90 s."], "advice": "Limit it.", "runbook": "kv-cache-full.md",
    }],
}  # fmt: skip
QUIET: dict[str, Any] = {"summary": "nothing stands out from the usual in 9 requests of the last 10 min", "causes": []}


def told(stage: Stage) -> list[str]:
    return [row["message"] for row in stage.rows_of("incident_events") if row["kind"] == "causes"]


def test_what_was_found_while_an_alert_was_pending_goes_with_its_page(stage: Stage) -> None:
    stage.causes = FOUND
    stage.run(5, waiting=57, every=1)
    (notice,) = stage.sent.notices
    assert notice.details["why"]["summary"] == FOUND["summary"]
    assert notice.details["why"]["causes"] == FOUND["causes"]
    assert ("Runbook: kv-cache-full.md", "docs/runbooks/kv-cache-full.md") in notice.links
    place, start, end = stage.explained[0]
    assert place == {"deployment": ("d",), "instance": ("a",), "model": ("m",)}
    assert end - start == why.WINDOW_SECONDS


BURN = """
slos:
  - {name: answers, sli: {kind: availability}, target: 0.99, period: 30d, by: [model], windows: [
      {long: 1h, short: 5m, factor: 10}]}
rules:
  - name: shares
    when: {kind: share, above: 0.2, window: 30s, by: [model]}
"""
FAILED: dict[str, Any] = QUIET | {
    "window": FOUND["window"],
    "summary": "of the last 10 min 96 failed: http_503",
    "failures": [{"outcome": "error", "error_type": "http_503", "who": {}, "requests": 96}],
}


@pytest.mark.parametrize(("windows", "bad"), [((3600.0, 300.0), (60, 110)), ((30.0,), (120, 210))])
@pytest.mark.parametrize("found", [FOUND, FAILED])
def test_what_has_no_time_of_pending_is_asked_about_when_it_comes_near(
    stage: Stage, windows: tuple[float, ...], bad: tuple[int, int], found: dict[str, Any]
) -> None:
    stage.restart(BURN)
    stage.causes = found

    def fail(count: int) -> None:
        (measure,) = {m for need in (rule.needs() for rule in stage.engine.rules) for m in need.measures}
        group = Group({"model": "m"}, {measure: Counted(1000, count)})
        stage.counts = {seconds: [group] for seconds in windows}

    fail(10)
    stage.run(5)
    assert stage.explained == []
    fail(bad[0])
    stage.run(5)
    assert [place for place, _, _ in stage.explained] == [{"model": ("m",)}]
    fail(bad[1])
    stage.run(5)
    assert stage.pages == ["trigger"]
    assert stage.sent.notices[0].details["why"] == {name: found[name] for name in found if name != "place"}
    fail(bad[0])
    stage.run(5)
    assert len(stage.explained) == 2, "before, and when it opened"


def test_a_page_waits_for_no_account_and_the_timeline_gets_it(stage: Stage) -> None:
    stage.causes, stage.slow = FOUND, threading.Event()
    stage.run(2, waiting=57, every=100)
    stage.engine.round()  # pending
    beside = threading.Thread(target=stage.explainer.once)
    beside.start()
    try:
        for _ in range(2):
            stage.run(4, waiting=57, every=100)
            stage.engine.round()
            stage.outbox.deliver("pager")
        assert stage.pages == ["trigger"]
        assert "why" not in stage.sent.notices[0].details
        assert told(stage) == []
    finally:
        stage.slow.set()
        beside.join()
    stage.slow = None
    stage.explainer.once()
    assert told(stage) == [FOUND["summary"]]
    assert stage.pages == ["trigger"]


def test_what_was_found_long_ago_goes_with_no_page(stage: Stage) -> None:
    stage.causes = FOUND
    stage.run(3, waiting=57, every=1)
    assert stage.explained
    stage.run(3, waiting=1, every=1)
    stage.now += why.FRESH_SECONDS
    stage.causes = QUIET
    stage.run(6, waiting=57, every=1)
    assert stage.pages == ["trigger"]
    assert "why" not in stage.sent.notices[0].details


def test_it_is_asked_again_until_something_stands_out_also_after_a_restart(stage: Stage) -> None:
    stage.causes = QUIET
    stage.run(10, waiting=57)
    assert told(stage) == []
    stage.restart()
    stage.causes = FOUND
    stage.run(5, waiting=57)
    assert told(stage) == []  # twenty seconds have not passed
    stage.run(30, waiting=57)
    stage.run(300, waiting=57)
    assert told(stage) == [FOUND["summary"]]
    (row,) = (row for row in stage.rows_of("incident_events") if row["kind"] == "causes")
    assert json.loads(row["attributes"]["json"])["causes"] == FOUND["causes"]


def test_an_incident_that_is_soon_over_gets_its_causes_of_the_time_that_it_lasted(stage: Stage) -> None:
    stage.causes = QUIET
    stage.run(10, waiting=57)
    stage.run(20, waiting=1)
    assert stage.pages == ["trigger", "resolve"]
    over = stage.now
    stage.restart()
    stage.causes = FOUND
    stage.run(60, waiting=1)
    assert told(stage) == [FOUND["summary"]]
    place, start, end = stage.explained[-1]
    assert place == {"deployment": ("d",), "instance": ("a",), "model": ("m",)}
    (row,) = (row for row in stage.rows_of("incidents") if row["state"] == "resolved")
    assert (start, end) == (row["opened_at"] - why.WINDOW_SECONDS, row["resolved_at"])
    assert end <= over
    assert stage.pages == ["trigger", "resolve"]


def test_failures_are_told_at_once_though_no_cause_stands_out(stage: Stage) -> None:
    failure = {"outcome": "error", "error_type": "http_503", "who": {}, "requests": 96, "since": "2026-05-04T10:09:00Z"}
    stage.causes = QUIET | {"summary": "of the last 10 min 96 failed", "failures": [failure]}
    stage.run(12, waiting=57)
    assert told(stage) == ["of the last 10 min 96 failed"]


def test_a_last_try_says_that_nothing_stands_out(stage: Stage) -> None:
    stage.causes = QUIET
    stage.run(400, waiting=57)
    assert told(stage) == [QUIET["summary"]]


def test_what_cannot_be_asked_is_said_and_pages_go_on(stage: Stage) -> None:
    stage.causes = ServescopeError("the store refused", "Ask for less")
    stage.run(400, waiting=57)
    assert stage.pages == ["trigger"]
    assert told(stage) == ["causes could not be asked: the store refused"]


def test_an_account_that_trips_is_tried_a_few_times_and_not_for_ever(stage: Stage) -> None:
    stage.run(10, waiting=57)  # opened, and asked for the first time
    stage.causes = ZeroDivisionError("an account of nothing")
    tripped = 0
    for _ in range(100):
        stage.now += 5
        try:
            stage.explainer.once()
        except ZeroDivisionError:
            tripped += 1
    assert tripped == len(why.TRIES_SECONDS) - 1


def test_no_trouble_with_what_is_known_keeps_a_page_back(stage: Stage) -> None:
    def trip(*_: object) -> None:
        raise KeyError("gone")

    stage.engine.register.why = trip  # type: ignore[assignment]
    stage.run(10, waiting=57)
    assert stage.pages == ["trigger"]
    assert "why" not in stage.sent.notices[0].details


def test_a_resolve_carries_no_causes_and_a_forgotten_incident_leaves_nothing(stage: Stage) -> None:
    stage.causes = FOUND
    stage.run(10, waiting=57)
    stage.run(30, waiting=1)
    assert stage.pages == ["trigger", "resolve"]
    assert "why" not in stage.sent.notices[-1].details
    assert stage.journal.section("why")
    stage.now += 100_000
    stage.round()
    assert not stage.journal.section("why")


def test_a_place_is_what_alerts_agree_on_and_a_store_is_none() -> None:
    one = {"deployment": "d", "instance": "a", "model": "m", "rule": "x"}
    assert place_of([one, one | {"instance": "b", "model": ""}]) == {"deployment": ("d",), "instance": ("a", "b")}
    assert place_of([{}]) == {}
    assert place_of([one, {"component": "store"}]) is None
    assert place_of([]) is None


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
from collector.store.client import without_frames
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
