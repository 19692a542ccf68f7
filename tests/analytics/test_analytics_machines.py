"""Beneath a request: the GPUs that its instance ran on, put together, and its machine."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from analytics.machines import gpu_points
from analytics.questions import requests, story
from analytics.selection import Filter, Selection

if TYPE_CHECKING:
    from analytics.questions.story import Story
    from analytics.request_row import RequestRow
    from tests.analytics.lab import Lab


@pytest.fixture(scope="module")
def row(lab: Lab) -> RequestRow:
    """A request at an instance with two GPUs, one of them slowed down from its arrival on, and two processes."""
    at = lab.start - timedelta(days=17)  # apart from what other tests count
    lab.owner.insert("requests_t", [{
        "time": at, "key": 1717, "trace_id": "machines00000017", "has_engine": 1, "engine": "vllm",
        "engine_model": "m", "engine_instance": "vllm-2", "engine_deployment": "machines", "engine_outcome": "ok",
        "engine_request_id": "machines-1", "queue_seconds": 1.0, "prefill_seconds": 1.0, "decode_seconds": 8.0,
        "engine_ttft_seconds": 2.0, "engine_e2e_seconds": 10.0, "completion_tokens": 5,
    }])  # fmt: skip
    (found,) = requests.ask(lab.store, Selection.one(request_id="machines-1")).result.requests
    start = found.time - timedelta(seconds=8)
    gpus: list[dict[str, Any]] = []
    hosts: list[dict[str, Any]] = []
    for second in range(30):
        at = start + timedelta(seconds=second)
        slow = at >= found.time
        own = {"time": at, "node": "n2", "gpu_utilization_ratio": 0.9, "memory_total_bytes": 80.0,
               "recording": "", "power_watts": 300.0, "throttle_reasons": 1.0, "sm_clock_hertz": 1.9e9,
               "memory_used_bytes": 40.0}  # fmt: skip
        heat = {"throttle_reasons": 64.0, "sm_clock_hertz": 1.2e9, "memory_used_bytes": 60.0} if slow else {}
        gpus += [
            {**own, "gpu": "GPU-a"},
            {**own, **heat, "gpu": "GPU-b", "gpu_utilization_ratio": 0.5},
            {**own, "gpu": "GPU-of-another", "gpu_utilization_ratio": 0.0},
            {**own, "gpu": "GPU-a", "recording": "last-week", "gpu_utilization_ratio": 0.1},
        ]
        delay = 0.8 * max(0.0, (at - found.time).total_seconds())
        for name, pid in (("host", ""), ("engine", "7"), ("front", "8")):
            hosts.append({
                "time": at, "instance": "vllm-2", "node": "n2", "process_name": name, "process_pid": pid,
                "cpu_usage_ratio": 0.75 if not pid else None, "cpu_pressure_some_ratio": 0.25 if not pid else None,
                "cpu_seconds_total": second * 0.5 if pid else None,
                "cpu_delay_seconds_total": delay if pid == "7" else None,
            })  # fmt: skip
    lab.owner.insert("gpu_samples", gpus)
    lab.owner.insert("host_samples", hosts)
    lab.owner.insert("instance_gpus_t", [
        {"instance": instance, "rank": "", "node": "n2", "gpu": gpu, "process_pid": "7", "from": start,
         "to": start + timedelta(seconds=29)}
        for instance, gpu in (("vllm-2", "GPU-a"), ("vllm-2", "GPU-b"), ("vllm-7", "GPU-of-another"))
    ])  # fmt: skip
    return found


@pytest.fixture(scope="module")
def told(lab: Lab, row: RequestRow) -> Story:
    return story.ask(lab.store, Selection.one(key=row.key), margin=5).result


def test_the_gpus_of_its_instance_stand_beneath_a_request_as_one(told: Story, row: RequestRow) -> None:
    before = [point for point in told.gpus if point.time < row.time]
    after = [point for point in told.gpus if point.time >= row.time]
    assert len(before) == 5
    assert len(after) >= 5
    for point in (*before, *after):
        assert point.gpus == 2, "another's GPU and a recording's samples are none of it"
        assert point.busy == pytest.approx(0.7)
        assert point.power_watts == 600
    assert {point.slowed for point in before} == {0.0}
    assert {point.slowed for point in after} == {0.5}
    assert {point.clock_hertz for point in after} == {1.2e9}
    assert {point.memory for point in after} == {0.75}


def test_so_do_its_machine_and_what_its_processes_waited_for(told: Story, row: RequestRow) -> None:
    assert {point.used for point in told.hosts} == {0.75}
    assert {point.pressed for point in told.hosts} == {0.25}
    first, *rest = told.hosts
    assert (first.cpus, first.delayed) == (None, None), "no increase is known of the first sample"
    assert [point.cpus for point in rest] == [pytest.approx(1.0)] * len(rest)
    late = [point.delayed for point in rest if point.time > row.time]
    assert late == [pytest.approx(0.8)] * len(late)
    assert {point.delayed for point in rest if point.time <= row.time} == {0.0}


def test_of_a_server_without_either_nothing_is_told(lab: Lab) -> None:
    other = requests.ask(lab.store, Selection(lab.window, Filter(instance=("triton-0",)))).result.requests[5]
    found = story.ask(lab.store, Selection.one(key=other.key)).result
    assert (found.gpus, found.hosts) == ([], [])


def test_a_gpu_that_was_told_of_seldom_holds_until_it_is_told_of_again_or_is_too_old() -> None:
    def sample(second: float, gpu: str, busy: float | None) -> dict[str, Any]:
        return {"time_ms": second * 1000, "gpu": gpu, "busy": busy, "slowed": None, "memory": None, "clock": None,
                "power": None}  # fmt: skip

    points = gpu_points([sample(0, "a", 1.0), sample(0.2, "b", 0.5), sample(5, "a", 0.0), sample(40, "a", 0.25)])
    assert [(point.time.timestamp(), point.gpus, point.busy) for point in points] == [
        (0.2, 2, 0.75), (5, 2, 0.25), (40, 1, 0.25),
    ]  # fmt: skip
    assert gpu_points([]) == []
    (unknown,) = gpu_points([sample(1, "a", None)])
    assert (unknown.gpus, unknown.busy, unknown.slowed, unknown.power_watts) == (1, None, None, None)
