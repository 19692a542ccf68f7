"""A small, truthful data set: what it holds is known row by row, so that every answer can be worked out again.

Window: 600 s. vllm-0/vllm-1 (model llama) have a tap and spans, vllm-2 (model qwen) spans alone, vllm-3 (model
mixtral) metrics with histograms alone, triton-0 (model resnet) rows, triton-1 (model ranker) metrics with sums alone,
llama-0 (model tiny) sums without any count of requests. Some rows of vllm-1 come from a recording.
"""

from __future__ import annotations

import random
import struct
from bisect import bisect_left
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from analytics.selection import Filter
from analytics.window import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from collector.store.client import Store

SECONDS = 600
BOUNDS = [0.1, 0.3, 0.5, 1.0, 2.5, 5.0, 10.0]
OUTCOMES = ["ok"] * 14 + ["client_error", "rejected", "server_error", "client_abort", "upstream_reset", "timeout"]
RECORDING = "kv_exhaustion"
INSTANCES = {
    "vllm-0": ("llama", "chat", "vllm", "eu", "0.32"),
    "vllm-1": ("llama", "chat", "vllm", "us", "0.33"),
    "vllm-2": ("qwen", "code", "vllm", "eu", "0.32"),
    "vllm-3": ("mixtral", "chat-large", "vllm", "us", "0.32"),
    "triton-0": ("resnet", "vision", "triton", "eu", "2.51"),
    "triton-1": ("ranker", "vision", "triton", "eu", "2.51"),
    "llama-0": ("tiny", "edge", "llamacpp", "eu", "b1"),
}


def f32(value: float) -> float:
    """The nearest Float32, which is what the store keeps."""
    return struct.unpack("f", struct.pack("f", value))[0]  # type: ignore[no-any-return]


@dataclass
class Lab:
    """The data as it was written: ``requests`` merged per request, samples and histograms as rows."""

    start: datetime
    requests: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    histograms: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    store: Any = None
    owner: Any = None

    @property
    def window(self) -> Window:
        return Window(self.start, self.start + timedelta(seconds=SECONDS))

    def rows(self, filter: Filter = Filter(), window: Window | None = None) -> list[dict[str, Any]]:  # noqa: A002, B008
        """Requests that arrived in a window and pass a filter."""
        at = window or self.window
        return [r for r in self.requests if at.start <= r["time"] < at.end and passes(r, filter)]

    def sampled(self, keep: Callable[[dict[str, Any]], bool] = lambda _: True) -> list[dict[str, Any]]:
        """Samples of the window that ``keep`` accepts."""
        return [s for s in self.samples if self.window.start <= s["time"] < self.window.end and keep(s)]


def passes(row: dict[str, Any], filter: Filter) -> bool:  # noqa: A002
    if filter.recording == "exclude" and row["recording"]:
        return False
    if filter.recording == "only" and not row["recording"]:
        return False
    return all(row.get(column, "") in values for column, values in filter.chosen())


def build(seed: int = 7) -> Lab:
    """Makes the data; the window ends a little before now, so that no time to live has run out."""
    chance = random.Random(seed)
    now = datetime.now(UTC).replace(microsecond=0)
    lab = Lab(now - timedelta(seconds=SECONDS + 1200 + now.timestamp() % 60))
    for number in range(1400):
        lab.requests.append(_request(lab, chance, number))
    for second in range(-5, SECONDS + 5):
        for instance in INSTANCES:
            lab.samples.append(_sample(lab, chance, instance, second))
            if instance in {"vllm-0", "vllm-3"} and second % 2 == 0:
                lab.histograms.extend(_histograms(lab, chance, instance, second))
    lab.events = [
        _event(lab, 10, "deploy", "version 0.33 goes to vllm-1", "vllm-1"),
        _event(lab, 200, "note", "load test starts", ""),
        _event(lab, 300, "instance_restarted", "vllm-0 restarted", "vllm-0"),
        _event(lab, SECONDS + 60, "note", "after the window", ""),
    ]
    return lab


def load(lab: Lab, store: Store) -> None:
    """Writes the data: the two halves of the requests apart, as they come."""
    edge = [_edge_half(row) for row in lab.requests if row["has_edge"]]
    engine = [_engine_half(row) for row in lab.requests if row["has_engine"]]
    store.insert("requests_t", edge)
    store.insert("requests_t", engine)
    store.insert("engine_samples", lab.samples)
    store.insert("engine_samples", lab.samples[:50], token="delivered again")
    store.insert("engine_histograms", lab.histograms)
    store.insert("events", lab.events)
    lab.store = store


def _request(lab: Lab, chance: random.Random, number: int) -> dict[str, Any]:
    instance = chance.choice(["vllm-0", "vllm-0", "vllm-1", "vllm-2", "triton-0"])
    model, deployment, engine, region, version = INSTANCES[instance]
    offset = chance.uniform(-60, SECONDS + 30)
    time = lab.start + timedelta(milliseconds=int(offset * 1000))
    edge = instance != "vllm-2"
    outcome = chance.choice(OUTCOMES) if edge else "ok"
    answered = outcome in {"ok", "client_abort", "timeout"}
    served = not edge or (outcome == "ok" and chance.random() < 0.95)
    row: dict[str, Any] = {
        "time": time,
        "key": (int(time.timestamp() * 1000) << 22) | number,
        "trace_id": f"trace{number:011d}",
        "request_id": f"req-{number}",
        "response_id": f"cmpl-{number}" if served else "",
        "tenant": chance.choice(["a1", "a2", "a3", ""]) if edge else "",
        "model": model,
        "engine": engine,
        "instance": instance,
        "deployment": deployment,
        "region": region,
        "version": version,
        "route": "/v1/completions",
        "stream": int(chance.random() < 0.7),
        "status": 200 if answered else 500,
        "outcome": outcome,
        "recording": RECORDING if instance == "vllm-1" and number % 3 == 0 else "",
        "has_edge": int(edge),
        "has_engine": int(served),
    }
    seconds = dict.fromkeys(SECONDS_COLUMNS, 0.0)
    if edge:
        seconds["edge_seconds"] = chance.uniform(0.0001, 0.01)
    if served and engine == "vllm":
        seconds["queue_seconds"] = max(0.0, chance.gauss(0.1, 0.2))
        seconds["prefill_seconds"] = chance.lognormvariate(-2, 0.5)
        seconds["decode_seconds"] = chance.lognormvariate(0, 0.6)
        seconds["stall_seconds"] = chance.choice([0.0, 0.0, 0.0, chance.uniform(0.1, 2)])
    elif served:
        seconds["queue_seconds"] = chance.uniform(0, 0.05)
        for phase in ("input", "infer", "output"):
            seconds[f"compute_{phase}_seconds"] = chance.uniform(0.001, 0.01)
    inside = sum(value for name, value in seconds.items() if name != "edge_seconds")
    row["finish_reason"] = chance.choice(["stop", "length"]) if served and engine == "vllm" else ""
    row |= {"prompt_tokens": 0, "cached_tokens": 0, "completion_tokens": 0, "itl_gaps": 0, "itl_mean_seconds": 0.0}
    row |= _tokens(chance, edge=bool(edge)) if engine == "vllm" and (served or answered) else {}
    seconds["e2e_seconds"] = inside + seconds["edge_seconds"] + chance.uniform(0.0005, 0.01)
    if outcome == "timeout":
        seconds["e2e_seconds"] = chance.uniform(8, 12)
    if served and engine == "vllm":
        seconds["engine_e2e_seconds"] = inside
        seconds["engine_ttft_seconds"] = inside - seconds["decode_seconds"]
        seconds["ttft_seconds"] = min(seconds["engine_ttft_seconds"] + 0.002, seconds["e2e_seconds"])
    elif answered:
        seconds["ttft_seconds"] = seconds["e2e_seconds"] * 0.9
    # a whole answer has the engine's time to first token, if any
    seconds["ttft_seconds"] = seconds["ttft_seconds" if row["stream"] else "engine_ttft_seconds"]
    if not edge:  # what only the engine saw: the view shows its figures
        seconds["e2e_seconds"], seconds["ttft_seconds"] = seconds["engine_e2e_seconds"], seconds["engine_ttft_seconds"]
    if served and engine == "triton":
        seconds["engine_e2e_seconds"] = inside + 0.0002
    row |= {name: f32(value) for name, value in seconds.items()}
    row |= _between(row)
    mean = row["itl_mean_seconds"]
    gaps = {"itl_mean_seconds": mean, "itl_p99_seconds": mean * 2, "itl_max_seconds": mean * (2.5 + mean)}
    row |= {name: f32(value) for name, value in gaps.items()}
    return row


def _tokens(chance: random.Random, *, edge: bool) -> dict[str, Any]:
    prompt = chance.randrange(10, 2000)
    cached = chance.randrange(0, prompt)
    completion = chance.randrange(1, 200)
    gaps = completion - 1 if edge else 0
    mean = chance.uniform(0.005, 0.08) if gaps else 0.0
    return {
        "prompt_tokens": prompt,
        "cached_tokens": cached,
        "completion_tokens": completion,
        "itl_gaps": gaps,
        "itl_mean_seconds": mean,
    }


def _between(row: dict[str, Any]) -> dict[str, float]:
    """What the view works out of the two halves."""
    engine = row["engine_e2e_seconds"]
    if not engine:
        return {"frontend_seconds": 0.0, "transit_seconds": 0.0}
    before_edge = row["e2e_seconds"] - row["edge_seconds"] if row["has_edge"] else engine
    inside = sum(row[name] for name in SECONDS_COLUMNS[1:8])
    transit = before_edge - max(engine, inside) if row["has_edge"] else 0.0
    return {"frontend_seconds": max(0.0, min(engine, before_edge) - inside), "transit_seconds": max(0.0, transit)}


SECONDS_COLUMNS = (
    *("edge_seconds", "queue_seconds", "prefill_seconds", "decode_seconds", "stall_seconds"),
    *("compute_input_seconds", "compute_infer_seconds", "compute_output_seconds"),
    *("ttft_seconds", "e2e_seconds", "engine_ttft_seconds", "engine_e2e_seconds"),
)
_BOTH = ("time", "key", "trace_id", "engine", "recording")
_EDGE = (
    *_BOTH,
    *("request_id", "response_id", "tenant", "model", "instance", "deployment", "region", "version", "route"),
    *("stream", "status", "outcome", "prompt_tokens", "cached_tokens", "completion_tokens", "itl_gaps"),
    *(
        "itl_mean_seconds",
        "itl_p99_seconds",
        "itl_max_seconds",
        "edge_seconds",
        "ttft_seconds",
        "e2e_seconds",
        "has_edge",
    ),
)
_ENGINE = (
    *_BOTH,
    *(
        "region",
        "finish_reason",
        "prompt_tokens",
        "cached_tokens",
        "completion_tokens",
        "queue_seconds",
        "prefill_seconds",
    ),
    *("decode_seconds", "stall_seconds", "compute_input_seconds", "compute_infer_seconds", "compute_output_seconds"),
    *("engine_ttft_seconds", "engine_e2e_seconds", "has_engine"),
)


def _edge_half(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in _EDGE}


def _engine_half(row: dict[str, Any]) -> dict[str, Any]:
    renamed = {f"engine_{name}": row[name] for name in ("model", "instance", "deployment", "version", "request_id")}
    return {name: row[name] for name in _ENGINE} | renamed | {"engine_outcome": "ok"}


def _sample(lab: Lab, chance: random.Random, instance: str, second: int) -> dict[str, Any]:
    model, deployment, engine, region, version = INSTANCES[instance]
    row: dict[str, Any] = {
        "time": lab.start + timedelta(seconds=second, milliseconds=137),
        "instance": instance,
        "deployment": deployment,
        "engine": engine,
        "model": model,
        "dp_rank": "0" if engine == "vllm" else "",
        "region": region,
        "version": version,
        "recording": "",
        "up": int(not (instance == "vllm-3" and second > SECONDS - 20)),
        "scrape_seconds": 0.004,
        "interval_seconds": 1.0,
        "running": float(chance.randrange(0, 20)),
        "waiting": float(chance.choice([0, 0, 0, 5, 40])),
    }
    row |= dict.fromkeys(_COUNTED)
    row["kv_cache_usage_ratio"] = None
    if engine == "vllm":
        row["kv_cache_usage_ratio"] = f32(chance.random())
        row["preemptions_delta"] = float(chance.choice([0, 0, 2]))
        row["prompt_tokens_delta"] = float(chance.randrange(500))
        row["generation_tokens_delta"] = float(chance.randrange(300))
        row["prefix_cache_queries_delta"] = row["prompt_tokens_delta"]
        row["prefix_cache_hits_delta"] = row["prompt_tokens_delta"] // 3
        row["requests_finished_delta"] = float(chance.randrange(4))
        row["engine_steps_delta"] = float(chance.randrange(1, 50))
        row["batch_tokens_delta"] = row["engine_steps_delta"] * chance.randrange(1, 64)
        for phase in ("request", "queue", "prefill", "decode"):
            row[f"{phase}_seconds_delta"] = chance.random()
    elif engine == "triton":
        row["requests_finished_delta"] = float(chance.randrange(6))
        row["requests_failed_delta"] = float(chance.choice([0, 0, 1]))
        row["executions_delta"] = float(chance.randrange(1, 5))
        row["inferences_delta"] = row["executions_delta"] * chance.randrange(1, 9)
        for phase, share in (("queue", 0.3), ("compute_input", 0.1), ("compute_infer", 0.4), ("compute_output", 0.1)):
            row[f"{phase}_seconds_delta"] = row["requests_finished_delta"] * share * chance.random()
        row["request_seconds_delta"] = row["requests_finished_delta"] * 0.95
    else:
        row["generation_tokens_delta"] = float(chance.randrange(1, 100))
        row["decode_seconds_delta"] = row["generation_tokens_delta"] * 0.01
        row["prefill_seconds_delta"] = 0.05
    return row


_COUNTED = tuple(
    f"{name}_delta"
    for name in (
        *("preemptions", "prompt_tokens", "generation_tokens", "prefix_cache_queries", "prefix_cache_hits"),
        *("requests_finished", "requests_failed", "engine_steps", "batch_tokens", "inferences", "executions"),
        *("request_seconds", "queue_seconds", "prefill_seconds", "decode_seconds", "compute_input_seconds"),
        *("compute_infer_seconds", "compute_output_seconds"),
    )
)


def _histograms(lab: Lab, chance: random.Random, instance: str, second: int) -> Iterable[dict[str, Any]]:
    model, deployment, engine, region, version = INSTANCES[instance]
    bounds = BOUNDS if second % 4 else [*BOUNDS, 20.0]  # two builds, two sets of bounds
    for signal, mean in (("ttft_seconds", 0.4), ("e2e_seconds", 2.0), ("queue_seconds", 0.2), ("prefill_seconds", 0.1)):
        values = [chance.expovariate(1 / mean) for _ in range(chance.randrange(1, 6))]
        counts = [0] * (len(bounds) + 1)
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        yield {
            "time": lab.start + timedelta(seconds=second, milliseconds=137),
            "instance": instance,
            "deployment": deployment,
            "engine": engine,
            "model": model,
            "dp_rank": "0",
            "region": region,
            "version": version,
            "recording": "",
            "signal": signal,
            "count": len(values),
            "sum": sum(values),
            "bounds": bounds,
            "counts": counts,
        }


def _event(lab: Lab, second: int, event: str, message: str, instance: str) -> dict[str, Any]:
    return {
        "time": lab.start + timedelta(seconds=second),
        "event": event,
        "message": message,
        "instance": instance,
        "recording": "",
        "attributes": {"by": "test"},
    }
