"""A store with a quarter of an hour of serving in it, and a dashboard on top: what the browser tests look at."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tests.browser.engine_steps import fill_steps
from tests.browser.features import fill_features, other_signals
from tests.browser.hardware import fill_hardware
from tests.browser.instances import fill_instances
from tests.kits.store_process import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from collector.store.client import Store

SECONDS = 600
INCIDENT = "20260101-000000-abcdef"
HOSTILE_INCIDENT = "20260101-000000-bad000"
HOSTILE_AGO = timedelta(hours=3)
HOSTILE = (
    '<a href="http://evil.example/a">open me</a>',
    "![x](http://evil.example/b.png)",
    "http://evil.example/c and www.evil.example or who@evil.example",
    "$\\href{http://evil.example/d}{x}$ :red[red] :smile: `code`",
    '<img src="http://evil.example/e.png"><b>bold</b>',
    '=HYPERLINK("http://evil.example/f","g")',
    "turned\u202e\nround " + "long" * 1200,
)
"""Names as a client may choose them; three hours back, where they stand in nobody's way."""
RECORDING = "kv_exhaustion"
_INSTANCES = (
    # instance, model, deployment, engine, version, recording
    ("vllm-0", "llama", "chat", "vllm", "0.32.0", ""),
    ("vllm-1", "llama", "chat", "vllm", "0.32.0", RECORDING),
    ("triton-0", "resnet", "vision", "triton", "2.51.0", ""),
)


def fill(store: Store, now: datetime) -> None:
    """Ten minutes up to ``now``: two engines, one of them recorded too, tenants, failures, a deploy, an incident."""
    chance = random.Random(11)
    edge: list[dict[str, Any]] = []
    engine: list[dict[str, Any]] = []
    for number in range(1200):
        one, other = _request(chance, number, now)
        edge.append(one)
        engine.append(other)
    store.insert("requests_t", edge)
    store.insert("requests_t", engine)
    store.insert(
        "engine_samples", [_sample(chance, who, now, second) for second in range(0, SECONDS, 2) for who in _INSTANCES]
    )
    start = now - timedelta(seconds=SECONDS)
    store.insert(
        "events",
        [_event(start + timedelta(seconds=100), "deploy", "Version 0.32.0 goes to vllm-0", "vllm-0"),
         _event(start + timedelta(seconds=300), "instance_restarted", "triton-0 restarted", "triton-0")],
    )  # fmt: skip
    fill_hardware(store, now, ("vllm-0", "triton-0"), SECONDS)
    fill_instances(store, now, ("vllm-0", "triton-0"))
    fill_steps(store, now, "vllm-0", SECONDS)
    fill_features(store, now, "vllm-0", "llama")
    _incident(store, now)
    _hostile(store, now - HOSTILE_AGO)


def _hostile(store: Store, now: datetime) -> None:
    """Ten minutes of requests, samples, events and an incident whose every name is hostile."""
    chance = random.Random(5)
    halves = [_request(chance, number, now) for number in range(120)]
    for number, (edge, engine) in enumerate(halves):
        names = {"model": HOSTILE[number % 7], "instance": HOSTILE[(number + 1) % 7]}
        edge.update(names | {
            "tenant": HOSTILE[(number + 2) % 7], "deployment": HOSTILE[0], "version": HOSTILE[1],
            "request_id": HOSTILE[number % 7], "route": HOSTILE[2], "error_type": HOSTILE[3], "recording": HOSTILE[2],
        })  # fmt: skip
        engine["recording"] = HOSTILE[2]
    store.insert("requests_t", [edge for edge, _ in halves])
    store.insert("requests_t", [engine for _, engine in halves])
    store.insert(
        "engine_samples",
        [
            _sample(chance, (HOSTILE[(of + 1) % 7], HOSTILE[of], "d", "vllm", HOSTILE[1], HOSTILE[2]), now, second)
            for second in range(0, SECONDS, 20)
            for of in range(7)
        ],
    )
    fill_hardware(store, now, HOSTILE, SECONDS, HOSTILE[2])
    fill_instances(store, now, HOSTILE, HOSTILE[2], f"{HOSTILE[3]} {HOSTILE[0]}")
    for name in HOSTILE:
        fill_steps(store, now, name, 20, HOSTILE[2])
        fill_features(store, now, name, name, HOSTILE[2])
    middle = now - timedelta(seconds=SECONDS / 2)
    store.insert("events", [_event(middle, "deploy", HOSTILE[of], HOSTILE[of]) for of in range(7)])
    labels = {"model": HOSTILE[0], "instance": HOSTILE[1], "tenant": HOSTILE[2]}
    store.insert("incidents", [{
        "id": HOSTILE_INCIDENT, "opened_at": middle, "updated_at": now, "resolved_at": now, "state": "resolved",
        "severity": "critical", "title": " ".join(HOSTILE[:5]), "summary": "; ".join(HOSTILE[:6]), "labels": labels,
        "owner": HOSTILE[0], "version": 1,
    }])  # fmt: skip
    window = {"start": middle.isoformat(), "end": now.isoformat()}
    causes = _causes(window, {"instance": HOSTILE[0], "tenant": HOSTILE[2], "version": HOSTILE[4]}, *HOSTILE[:5])
    evidence = {
        "window_seconds": 60.0, "missing": list(HOSTILE[:5]),
        "tenants": [{"tenant": name, "requests": 7, "seconds": 1.5} for name in HOSTILE],
        "instances": [{"instance": name, "version": name} for name in HOSTILE],
    }  # fmt: skip
    store.insert("incident_events", [
        {"time": middle + timedelta(milliseconds=index), "incident_id": HOSTILE_INCIDENT, "kind": kind,
         "message": HOSTILE[index], "attributes": attributes}
        for index, (kind, attributes) in enumerate([
            ("opened", {}), ("evidence", {"json": json.dumps(evidence)}), ("causes", {"json": json.dumps(causes)}),
        ])
    ])  # fmt: skip
    store.insert("alert_transitions", [{
        "time": middle, "rule": HOSTILE[0], "labels": labels, "state": "firing", "value": 56.0, "threshold": 20.0,
        "reason": HOSTILE[1], "incident_id": HOSTILE_INCIDENT,
    }])  # fmt: skip
    store.insert("notifications", [{
        "id": "n2", "time": middle, "incident_id": HOSTILE_INCIDENT, "notifier": HOSTILE[0], "action": "trigger",
        "dedup_key": HOSTILE[1], "status": "failed", "attempts": 1, "last_error": HOSTILE[2],
        "destination": HOSTILE[2], "payload": json.dumps({"payload": {"summary": HOSTILE[0], "link": HOSTILE[2]}}),
        "sent_at": middle, "version": 1,
    }])  # fmt: skip


def _request(chance: random.Random, number: int, now: datetime) -> tuple[dict[str, Any], dict[str, Any]]:
    instance, model, deployment, kind, version, recording = _INSTANCES[chance.choice([0, 0, 1, 2])]
    at = now - timedelta(milliseconds=chance.randrange(0, SECONDS * 1000))
    slow = chance.random() < 0.1
    queue = chance.uniform(2, 4) if slow else chance.uniform(0.001, 0.05)
    prefill, decode, infer = chance.uniform(0.05, 0.2), chance.uniform(0.3, 1.5), chance.uniform(0.005, 0.02)
    llm = kind == "vllm"
    inside = queue + (prefill + decode if llm else infer)
    outcome = "server_error" if chance.random() < 0.03 else "ok"
    both = {
        "time": at,
        "key": (int(at.timestamp() * 1000) << 22) | number,
        "trace_id": f"trace{number:011d}",
        "engine": kind,
        "recording": recording,
    }
    edge = both | {
        "request_id": f"req-{number:04d}", "tenant": chance.choice(["acme", "hooli", "<b>bold</b>"]), "model": model,
        "instance": instance, "deployment": deployment, "version": version, "route": "/v1/completions",
        "stream": int(llm),
        "status": 500 if outcome != "ok" else 200, "outcome": outcome, "prompt_tokens": 120 if llm else 0,
        "completion_tokens": 64 if llm else 0, "itl_gaps": 63 if llm else 0,
        "itl_mean_seconds": decode / 64 if llm else 0.0,
        "itl_max_seconds": decode / 20 if llm else 0.0, "edge_seconds": 0.0008,
        "ttft_seconds": (queue + prefill if llm else inside) + 0.001, "e2e_seconds": inside + 0.002, "has_edge": 1,
    }  # fmt: skip
    engine = both | {
        "queue_seconds": queue, "prefill_seconds": prefill if llm else 0.0, "decode_seconds": decode if llm else 0.0,
        "compute_input_seconds": 0.0 if llm else 0.0004, "compute_infer_seconds": 0.0 if llm else infer,
        "engine_ttft_seconds": queue + prefill if llm else 0.0, "engine_e2e_seconds": inside, "has_engine": 1,
        "prompt_tokens": 120 if llm else 0, "cached_tokens": 40 if llm else 0,
    }  # fmt: skip
    return edge, engine


def _sample(
    chance: random.Random, who: tuple[str, str, str, str, str, str], now: datetime, second: int
) -> dict[str, Any]:
    instance, model, deployment, kind, version, recording = who
    llm = kind == "vllm"
    return {
        "time": now - timedelta(seconds=SECONDS - second),
        "instance": instance, "deployment": deployment, "engine": kind, "model": model, "dp_rank": "0" if llm else "",
        "version": version, "recording": recording, "up": 1, "scrape_seconds": 0.004, "interval_seconds": 2.0,
        "running": float(chance.randrange(8)), "waiting": float(chance.choice([0, 0, 12])),
        "kv_cache_usage_ratio": chance.random() if llm else None,
        "preemptions_delta": float(chance.choice([0, 0, 2])) if llm else None,
        "generation_tokens_delta": float(chance.randrange(300)) if llm else None,
        "prefix_cache_queries_delta": 100.0 if llm else None,
        "prefix_cache_hits_delta": 40.0 if llm else None,
        "engine_steps_delta": 20.0 if llm else None,
        "batch_tokens_delta": 400.0 if llm else None,
        "other_signals": other_signals(second, int(instance == "vllm-1")) if llm else {},
        "executions_delta": None if llm else 3.0,
        "inferences_delta": None if llm else 9.0,
    }  # fmt: skip


def _causes(window: dict[str, str], who: dict[str, str], *said: str) -> dict[str, Any]:
    return {
        "summary": said[0], "window": window, "place": {"instance": [who["instance"]]}, "requests": 30,
        "excess_seconds": 96.0, "unexplained_share": 0.06,
        "causes": [{
            "cause": "kv_cache_full", "name": "KV cache full", "seconds": 90.0, "share": 0.94, "who": who,
            "evidence": list(said), "advice": said[0], "runbook": "kv-cache-full.md",
        }],
    }  # fmt: skip


def _event(at: datetime, event: str, message: str, instance: str) -> dict[str, Any]:
    return {"time": at, "event": event, "message": message, "instance": instance, "attributes": {"by": "test"}}


def _incident(store: Store, now: datetime) -> None:
    opened = now - timedelta(seconds=200)
    labels = {"deployment": "chat", "model": "llama"}
    title = "waiting 56 on vllm-0, model llama, limit 20, for 5 s"
    evidence = {
        "window_seconds": 60.0, "requests_per_second": 2.0, "error_share": 0.03, "ttft_p50_seconds": 0.1,
        "ttft_p99_seconds": 4.1, "e2e_p99_seconds": 5.0,
        "tenants": [{"tenant": "hooli", "requests": 70, "tokens": 4480, "seconds": 91.5}],
        "instances": [{"instance": "vllm-0", "running_max": 8.0, "waiting_max": 56.0, "kv_cache_usage_ratio_max": 0.97,
                       "preemptions": 12.0, "version": "0.32.0", "up_min": 1}],
    }  # fmt: skip
    store.insert("incidents", [{
        "id": INCIDENT, "opened_at": opened, "updated_at": opened, "resolved_at": None, "state": "open",
        "severity": "critical", "title": title, "summary": f"{title}; 27 % of requests failed", "labels": labels,
        "owner": "", "version": 1,
    }])  # fmt: skip
    window = {"start": (opened - timedelta(seconds=600)).isoformat(), "end": opened.isoformat()}
    entries = [
        (
            "causes",
            "94 % is KV cache full",
            {"json": json.dumps(_causes(window, {"instance": "vllm-0"}, "Let in less."))},
        ),
        ("opened", title, {"severity": "critical"}),
        ("evidence", "numbers", {"json": json.dumps(evidence)}),
        ("alert_firing", title, {"rule": "engine-waiting"}),
        ("notification_sent", "trigger sent to the built-in receiver", {"notifier": "pagerduty"}),
    ]
    store.insert("incident_events", [
        {"time": opened + timedelta(milliseconds=index), "incident_id": INCIDENT, "kind": kind, "message": message,
         "attributes": attributes}
        for index, (kind, message, attributes) in enumerate(entries)
    ])  # fmt: skip
    store.insert("alert_transitions", [{
        "time": opened, "rule": "engine-waiting", "labels": labels, "state": "firing", "value": 56.0, "threshold": 20.0,
        "reason": title, "incident_id": INCIDENT,
    }])  # fmt: skip
    store.insert("notifications", [{
        "id": "n1", "time": opened, "incident_id": INCIDENT, "notifier": "pagerduty", "action": "trigger",
        "dedup_key": f"servescope-{INCIDENT}", "status": "sent", "attempts": 1, "last_error": "",
        "destination": "https://127.0.0.1/v2/enqueue", "payload": json.dumps({"payload": {"summary": title}}),
        "sent_at": opened, "version": 1,
    }])  # fmt: skip


@dataclass
class Served:
    """A dashboard process and where it is."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(20)


def serve(data: Path, port: int, log: Path, *arguments: str) -> Served:
    """Start the dashboard on a data folder and wait until it answers."""
    command = [sys.executable, "-m", "dashboard", "--data", str(data), "--port", str(port), *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SERVESCOPE_")}
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, env=environment | {"NO_COLOR": "1"})
    served = Served(f"http://127.0.0.1:{port}", process, log)
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{served.url}/_stcore/health", timeout=5):
                return served
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    served.stop()
    raise AssertionError(f"the dashboard did not start:\n{log.read_text()}")


def write_run(folder: Path, store_url: str) -> None:
    """``run.json`` as the supervisor writes it, as far as the dashboard reads it."""
    urls = {"store": store_url}
    (folder / "run.json").write_text(
        json.dumps({"pid": os.getpid(), "started": datetime.now(UTC).isoformat(), "urls": urls})
    )
