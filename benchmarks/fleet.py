"""A simulated fleet's requests, pages and machines, written into a store as they would have come.

Replicas of two deployments, each a queue before so many seats; a request holds its seat for a prefill by its uncached
tokens and a decode by its output. From some moment on a tenant floods one replica, another takes twice as long, and a
GPU's clock falls. The two halves of a request come apart, a minute at a time. Mechanisms, not recordings: nothing here
is a claim about a server.
"""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from numpy.typing import NDArray

    from collector.store.client import Store

    Columns = dict[str, NDArray[Any]]

DEPLOYMENTS: Final = ("chat", "code")
_TENANTS: Final = ("acme", "globex", "initech", "umbrella", "wayne", "stark", "tyrell", "cyberdyne")
_ROUTES: Final = ("/v1/chat/completions", "/v1/completions")
_SEATS: Final = 24
_MINUTE: Final = 60
_FLOOD_SECONDS: Final = (60.0, 120.0)
"""After the fault began, from and until."""
_FLOOD_RATE: Final = 30.0
_QUIET_SECONDS: Final = 120


@dataclass(frozen=True, slots=True)
class Fleet:
    """How much of it.

    Attributes:
        seconds: Length.
        rate: Requests a second of all replicas.
        fault: Seconds from the start at which the faults begin; at the end or later there are none.
        replicas: Of both deployments together.
        seed: Of the random numbers.
    """

    seconds: int
    rate: float
    fault: float
    replicas: int = 20
    seed: int = 1


def fill(store: Store, start: datetime, fleet: Fleet) -> int:
    """Write a fleet from a moment on and wait until the store has merged what it will; the requests.

    Args:
        store: Opened as owner on a migrated database.
        start: Aware time of the first second.
        fleet: How much.
    """
    every = {number: requests(fleet, number) for number in range(fleet.replicas)}
    for first in range(0, fleet.seconds, _MINUTE):
        rows = {
            number: np.flatnonzero((made["at"] >= first) & (made["at"] < first + _MINUTE))
            for number, made in every.items()
        }
        for half in (_edges, _engines):
            store.insert(
                "requests_t",
                [row for number, made in every.items() for row in half(fleet, number, made, rows[number], start)],
            )
    for number, made in every.items():
        store.insert("engine_samples", list(_pages(fleet, number, made, start)))
        store.insert("host_samples", list(_processes(fleet, number, start)))
        store.insert("gpu_samples", list(_gpu(fleet, number, start)))
    deadline = time.monotonic() + _QUIET_SECONDS
    while store.rows("SELECT 1 FROM system.merges LIMIT 1") and time.monotonic() < deadline:
        time.sleep(0.5)
    return sum(len(made["at"]) for made in every.values())


def requests(fleet: Fleet, number: int) -> Columns:
    """One replica's requests in order of arrival.

    Returns:
        ``at``, ``begin``, ``first``, ``last`` in seconds from the start, ``prompt``, ``cached``, ``output`` tokens,
        ``tenant`` and ``route`` as places in their lists.
    """
    chance = np.random.default_rng([fleet.seed, number])
    expected = fleet.rate / fleet.replicas * fleet.seconds
    at = chance.uniform(0, fleet.seconds, chance.poisson(expected))
    tenant = chance.integers(0, len(_TENANTS), len(at))
    if number == 0:
        since, until = (min(fleet.fault + one, float(fleet.seconds)) for one in _FLOOD_SECONDS)
        flood = chance.uniform(since, until, chance.poisson(_FLOOD_RATE * (until - since)))
        at, tenant = np.concatenate([at, flood]), np.concatenate([tenant, np.full(len(flood), 0)])
    order = np.argsort(at)
    at, tenant = at[order], tenant[order]
    n = len(at)
    prompt, output = chance.integers(100, 1200, n), chance.integers(20, 120, n)
    cached = (prompt * chance.choice([0.0, 0.5, 0.9], n)).astype(np.int64)
    slower = np.where((number in {1, fleet.replicas // 2}) & (at >= fleet.fault), 2.0, 1.0)
    noise = chance.lognormal(0, 0.08, (2, n))
    prefill = (0.02 + 0.00004 * (prompt - cached)) * noise[0] * slower
    decode = 0.01 * (output - 1) * noise[1] * slower
    begin = np.empty(n)
    seats = [0.0] * _SEATS
    for place in range(n):
        begin[place] = max(at[place], seats[0])
        heapq.heapreplace(seats, begin[place] + prefill[place] + decode[place])
    return {
        "at": at, "begin": begin, "first": begin + prefill, "last": begin + prefill + decode, "prompt": prompt,
        "cached": cached, "output": output, "tenant": tenant, "route": chance.integers(0, len(_ROUTES), n),
    }  # fmt: skip


def _names(fleet: Fleet, number: int) -> tuple[str, str]:
    deployment = DEPLOYMENTS[number * len(DEPLOYMENTS) // fleet.replicas]
    return f"{deployment}-{number}", deployment


def _halves(made: Columns, rows: NDArray[Any], number: int, start: datetime) -> Iterator[tuple[int, dict[str, Any]]]:
    for row in rows:
        arrived = start + timedelta(seconds=round(float(made["at"][row]), 3))
        key = (round(arrived.timestamp() * 1000) << 22) | (number << 17) | (int(row) & 0x1FFFF)
        yield (
            int(row),
            {
                "time": arrived, "key": key, "trace_id": key.to_bytes(16, "big").decode("latin-1"),
                "engine": "vllm", "prompt_tokens": int(made["prompt"][row]),
                "completion_tokens": int(made["output"][row]),
            },
        )  # fmt: skip


def _edges(
    fleet: Fleet, number: int, made: Columns, rows: NDArray[Any], start: datetime
) -> Iterator[dict[str, object]]:
    instance, deployment = _names(fleet, number)
    for row, one in _halves(made, rows, number, start):
        first, last = (float(made[name][row] - made["at"][row]) + 0.002 for name in ("first", "last"))
        yield one | {
            "request_id": f"req-{one['key']}", "tenant": _TENANTS[made["tenant"][row]], "model": deployment,
            "instance": instance, "deployment": deployment, "version": "1", "route": _ROUTES[made["route"][row]],
            "stream": 1, "status": 200, "outcome": "ok", "edge_seconds": 0.0004, "ttft_seconds": first,
            "e2e_seconds": last, "itl_max_seconds": 0.03, "has_edge": 1,
        }  # fmt: skip


def _engines(
    fleet: Fleet, number: int, made: Columns, rows: NDArray[Any], start: datetime
) -> Iterator[dict[str, object]]:
    instance, deployment = _names(fleet, number)
    for row, one in _halves(made, rows, number, start):
        at, begin, first, last = (float(made[name][row]) for name in ("at", "begin", "first", "last"))
        yield one | {
            "engine_request_id": f"cmpl-{one['key']}", "engine_model": deployment, "engine_instance": instance,
            "engine_deployment": deployment, "engine_version": "1", "engine_outcome": "ok",
            "cached_tokens": int(made["cached"][row]), "queue_seconds": begin - at, "prefill_seconds": first - begin,
            "decode_seconds": last - first, "engine_ttft_seconds": first - at + 0.001,
            "engine_e2e_seconds": last - at + 0.001, "has_engine": 1,
        }  # fmt: skip


def _pages(fleet: Fleet, number: int, made: Columns, start: datetime) -> Iterator[dict[str, object]]:
    instance, deployment = _names(fleet, number)
    edges = np.arange(fleet.seconds + 1)
    arrived, begun, ended = (np.searchsorted(np.sort(made[name]), edges) for name in ("at", "begin", "last"))
    computed = np.interp(edges, np.sort(made["last"]), np.cumsum(made["output"]))
    for second in range(1, fleet.seconds + 1):
        running = int(begun[second] - ended[second])
        yield {
            "time": start + timedelta(seconds=second), "instance": instance, "deployment": deployment,
            "engine": "vllm", "model": deployment, "dp_rank": "0", "version": "1", "up": 1, "scrape_seconds": 0.004,
            "interval_seconds": 1.0, "running": running, "waiting": int(arrived[second] - begun[second]),
            "kv_cache_usage_ratio": 0.6 * running / _SEATS, "preemptions_delta": 0,
            "generation_tokens_delta": float(computed[second] - computed[second - 1]),
            "requests_finished_delta": int(ended[second] - ended[second - 1]),
        }  # fmt: skip


def _processes(fleet: Fleet, number: int, start: datetime) -> Iterator[dict[str, object]]:
    instance, deployment = _names(fleet, number)
    for second in range(1, fleet.seconds + 1):
        for process, pid, share in (("VLLM::EngineCor", "7", 0.6), ("api_server", "6", 0.2), ("host", "", 0.0)):
            yield {
                "time": start + timedelta(seconds=second), "instance": instance, "process_name": process,
                "process_pid": pid, "deployment": deployment, "node": f"node-{number // 8}",
                "cpu_seconds_total": share * second if pid else None,
                "cpu_delay_seconds_total": 0.001 * second if pid else None,
                "cpu_pressure_some_ratio": None if pid else 0.01,
            }  # fmt: skip


def _gpu(fleet: Fleet, number: int, start: datetime) -> Iterator[dict[str, object]]:
    instance, deployment = _names(fleet, number)
    for second in range(1, fleet.seconds + 1):
        hot = number == fleet.replicas // 2 and second >= fleet.fault
        yield {
            "time": start + timedelta(seconds=second), "gpu": f"GPU-{number}", "gpu_name": "H100",
            "gpu_index": str(number % 8), "instance": instance, "deployment": deployment,
            "node": f"node-{number // 8}", "gpu_utilization_ratio": 0.9, "sm_clock_hertz": 0.9e9 if hot else 1.8e9,
            "throttle_reasons": 64.0 if hot else 0.0,
        }  # fmt: skip
