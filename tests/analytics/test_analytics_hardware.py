from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from analytics.outliers import outliers
from analytics.questions import gpus, hosts
from analytics.selection import Filter, Selection
from analytics.window import Window

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.analytics.lab import Lab

ON = {"GPU-0": "vllm-0", "GPU-1": "vllm-0", "GPU-2": "vllm-1", "GPU-3": "", "GPU-4": ""}
SECONDS = 600


def insert(lab: Lab, table: str, rows: Iterable[dict[str, Any]]) -> None:
    lab.owner.insert(table, list(rows))


@pytest.fixture(scope="module")
def hardware(lab: Lab) -> Lab:
    """GPU-2 is throttled and slow; GPU-3 is used by nobody that is known; GPU-4 tells hardly anything."""
    times = [lab.start + timedelta(seconds=second + 0.5) for second in range(SECONDS)]
    told = {
        "gpu_name": "H100", "node": "n1", "gpu_utilization_ratio": 1.0, "sm_active_ratio": 0.5,
        "memory_used_bytes": 60.0, "memory_total_bytes": 80.0, "power_limit_watts": 700.0, "xid_total": 0.0,
    }  # fmt: skip
    for index, (gpu, _) in enumerate(ON.items()):
        slow = gpu == "GPU-2"
        own = {"gpu": gpu, "gpu_index": str(index), "power_watts": 500.0 if not slow else 300.0,
               "sm_clock_hertz": 1.98e9 if not slow else 1.2e9, "throttle_reasons": 0x41 if slow else 0x1}  # fmt: skip
        if gpu == "GPU-4":
            own = {"gpu": gpu, "gpu_index": "4"}
            told = {"gpu_name": "T4", "node": "n1", "gpu_utilization_ratio": 0.25}
        rows = [{**told, **own, "time": time} for time in times]
        if slow:
            for place, row in enumerate(rows):
                row["xid_total"] = 5.0 if place < 300 else 7.0
                row["throttle_reasons"] = 0x44 if place % 2 else 0x1
        insert(lab, "gpu_samples", rows)
    insert(lab, "instance_gpus_t", [
        {"instance": instance, "rank": f"TP{gpu[-1]}", "node": "n1", "gpu": gpu, "process_pid": gpu[-1],
         "from": times[0], "to": times[-1]} for gpu, instance in ON.items() if instance
    ])  # fmt: skip
    old = lab.start - timedelta(days=1)
    insert(lab, "instance_gpus_t", [
        {"instance": "vllm-9", "rank": "", "node": "n1", "gpu": "GPU-0", "process_pid": "9", "from": old, "to": old}
    ])  # fmt: skip
    return lab


def generated(lab: Lab, instance: str) -> float:
    within = [row for row in lab.samples if lab.start <= row["time"] < lab.start + timedelta(seconds=SECONDS)]
    return sum(row["generation_tokens_delta"] or 0 for row in within if row["instance"] == instance)


def test_figures_of_a_gpu_stand_beside_its_instances_tokens(hardware: Lab):
    answer = gpus.ask(hardware.store, Selection(hardware.window))
    found = {row.gpu: row for row in answer.result.gpus}
    assert answer.state == "value"
    assert answer.rows == SECONDS * 5
    row = found["GPU-0"]
    assert (row.instances, row.ranks, row.node, row.name) == (["vllm-0"], ["TP0"], "n1", "H100")
    assert (row.activity_ratio, row.utilization_ratio, row.memory_used_ratio) == (0.5, 1.0, 0.75)
    assert (row.power_watts, row.power_limit_watts, row.throttled_ratio, row.throttled_by) == (500, 700, 0, [])
    half = generated(hardware, "vllm-0") / 2
    assert half > 0
    covered = sum(
        value * seconds
        for value, seconds in zip(row.tokens, [answer.result.step] * len(row.tokens), strict=True)
        if value
    )
    assert covered == pytest.approx(half, rel=0.01), "an instance on two GPUs gives each its half"
    assert row.tokens_per_watt == pytest.approx(half / SECONDS / 500, rel=0.02)
    assert len(row.activity) == len(answer.result.times)


def test_who_stands_out_comes_first_and_says_why(hardware: Lab):
    first, *others = gpus.ask(hardware.store, Selection(hardware.window)).result.gpus
    assert first.gpu == "GPU-2"
    assert first.stands_out == "power 40% below the median, SM clock 39% below the median"
    assert first.throttled_ratio == pytest.approx(0.5)
    assert first.throttled_by == ["power cap", "thermal (hardware)"]
    assert first.xids == 2
    assert [row.stands_out for row in others] == [""] * 4


def test_what_a_gpu_does_not_tell_is_none_and_its_activity_is_of_kernels(hardware: Lab):
    (row,) = [row for row in gpus.ask(hardware.store, Selection(hardware.window)).result.gpus if row.gpu == "GPU-4"]
    assert row.activity_ratio == row.utilization_ratio == 0.25
    for name in (
        "power_watts",
        "sm_occupancy_ratio",
        "throttled_ratio",
        "xids",
        "tokens_per_second",
        "tokens_per_watt",
    ):
        assert getattr(row, name) is None, name
    assert row.instances == []


@pytest.mark.parametrize(
    ("filter_", "shown"),
    [
        (Filter(instance=("vllm-1",)), {"GPU-2"}),
        (Filter(model=("llama",)), {"GPU-0", "GPU-1", "GPU-2"}),
        (Filter(version=("0.32",)), {"GPU-0", "GPU-1"}),
        (Filter(instance=("nobody",)), set()),
        (Filter(recording="only"), set()),
    ],
)
def test_gpus_are_chosen_by_who_runs_on_them(hardware: Lab, filter_: Filter, shown: set[str]):
    assert {row.gpu for row in gpus.ask(hardware.store, Selection(hardware.window, filter_)).result.gpus} == shown


def test_without_a_gpu_the_answer_tells_what_the_agent_said(hardware: Lab):
    early = hardware.start - timedelta(days=3)
    window = Window(early, early + timedelta(seconds=60))
    answer = gpus.ask(hardware.store, Selection(window))
    assert (answer.state, answer.result.gpus, answer.result.told) == ("no_data", [], "")
    insert(hardware, "events", [
        {"time": early - timedelta(hours=hours), "event": "gpu_unavailable", "message": message}
        for hours, message in ((2, "older"), (1, "No GPU can be watched: no driver"), (30, "long ago"))
    ])  # fmt: skip
    assert gpus.ask(hardware.store, Selection(window)).result.told == "No GPU can be watched: no driver"


def test_starvation_is_the_increase_of_counters_over_the_time_that_was_seen(lab: Lab):
    times = [lab.start + timedelta(seconds=second + 0.5) for second in range(SECONDS)]
    machine = {"instance": "vllm-0", "process_name": "host", "process_pid": "", "node": "n2"}
    insert(lab, "host_samples", [
        {**machine, "time": time, "cores": 8.0, "cpu_usage_ratio": 0.5, "cgroup_memory_used_bytes": 3.0 + place % 2,
         "cgroup_memory_limit_bytes": 8.0, "cgroup_cpu_throttled_seconds_total": 100 + place * 0.25,
         "cgroup_oom_kills_total": 4.0 if place < 10 else 5.0, "cpu_pressure_some_ratio": 0.125}
        for place, time in enumerate(times)
    ])  # fmt: skip
    for pid in ("1", "2"):
        insert(lab, "host_samples", [
            {**machine, "process_name": "VLLM::EngineCore", "process_pid": pid, "time": time,
             "cpu_seconds_total": (place if place < 300 else place - 300) * 0.5, "state": "S" if place % 4 else "D",
             "cpu_delay_seconds_total": place * 0.75, "rss_bytes": 2e9 + 1e9 * (pid == "2"),
             "involuntary_switches_total": place * 4.0,
             "open_files": (800.0 if place < 300 else 500.0) + place % 2,
             "open_files_limit": 1024.0 if pid == "1" else 65536.0,
             "uptime_seconds": place + (1000.0 if pid == "1" else 10.0)}
            for place, time in enumerate(times)
        ])  # fmt: skip
    row = next(row for row in hosts.ask(lab.store, Selection(lab.window)).result.hosts if row.node == "n2")
    assert (row.instance, row.cores, row.cpu_usage_ratio, row.cpu_pressure_ratio) == ("vllm-0", 8, 0.5, 0.125)
    assert row.processes == 2, "the machine is none"
    assert row.delay_ratio == pytest.approx(1.5, rel=0.01), "of two processes"
    assert row.cpu_cores == pytest.approx(1.0, rel=0.01), "a counter that began again adds nothing"
    assert row.throttled_ratio == pytest.approx(0.25, rel=0.01)
    assert (row.memory_of_limit_ratio, row.oom_kills, row.stuck_ratio) == (0.5, 1, 0.25)
    assert row.rss_bytes == 5e9, "of two processes"
    assert row.involuntary_switches_per_second == pytest.approx(8, rel=0.01)
    assert (row.open_files, row.open_files_limit, row.open_files_process) == (801, 1024, "VLLM::EngineCore")
    assert row.open_files_ratio == 801 / 1024, "at its fullest"
    assert row.uptime_seconds == SECONDS - 1 + 1000, "the oldest process, as told last"
    assert (row.major_faults_per_second, row.network_bytes_per_second, row.quota_cores) == (None, None, None)
    assert [value for value in row.delay if value is not None][5] == pytest.approx(1.5, rel=0.01)
    hidden = hosts.ask(lab.store, Selection(lab.window, Filter(instance=("vllm-1",)))).result.hosts
    assert all(row.node != "n2" for row in hidden)


def test_where_no_state_was_sampled_nobody_is_said_not_to_be_stuck(lab: Lab):
    instants = [lab.start + timedelta(seconds=second + 0.5) for second in range(8)]
    told = {"instance": "unseen", "process_name": "host", "process_pid": "", "node": "n3", "cores": 4.0}
    own = {**told, "instance": "seen", "process_name": "engine", "process_pid": "1"}
    insert(lab, "host_samples", [{**told, "time": time} for time in instants])
    states = ["", "", "", "", "S", "D", "S", "S"]
    insert(lab, "host_samples", [
        {**own, "time": time, "state": state} for time, state in zip(instants, states, strict=True)
    ])  # fmt: skip
    rows = hosts.ask(lab.store, Selection(lab.window)).result.hosts
    found = {row.instance: (row.stuck_ratio, row.processes) for row in rows}
    assert (found["unseen"], found["seen"]) == ((None, 0), (0.25, 1))


def test_open_files_without_a_limit_are_a_number_and_those_that_nobody_counted_are_none(lab: Lab):
    told = {"node": "n4", "process_name": "engine", "time": lab.start + timedelta(seconds=3.5)}
    insert(lab, "host_samples", [
        {**told, "instance": instance, "process_pid": pid, "open_files": opened, "open_files_limit": limit}
        for instance, pid, opened, limit in (
            ("counted", "1", 70.0, None), ("counted", "2", 9.0, None), ("hidden", "1", None, 1024.0)
        )
    ])  # fmt: skip
    found = {row.instance: row for row in hosts.ask(lab.store, Selection(lab.window)).result.hosts}
    assert (found["counted"].open_files, found["counted"].open_files_limit) == (70, None)
    hidden = found["hidden"]
    assert (hidden.open_files, hidden.open_files_ratio, hidden.uptime_seconds) == (None, None, None)


@pytest.mark.parametrize(
    ("chosen", "noted"),
    [
        (Filter(model=("llama",)), "model"),
        (Filter(engine=("vllm",)), "engine"),
        (Filter(version=("0.32",)), "version"),
        (Filter(model=("llama",), engine=("vllm",), instance=("vllm-0",)), "model and engine"),
        (Filter(instance=("vllm-0",), region=("eu",)), ""),
    ],
)
def test_what_machines_do_not_know_is_said(lab: Lab, chosen: Filter, noted: str):
    notes = [note for note in hosts.ask(lab.store, Selection(lab.window, chosen)).notes if "go by" in note]
    assert notes == ([f"This does not go by {noted}: it is the same for all."] if noted else [])


FAULTS: dict[str, tuple[list[float | None], float | None]] = {
    # values of ten minutes, of which the last eight are asked, and what was gained in those
    "goes on": ([4, 4, 4, 4, 6, 6, 6, 6, 6, 7], 3),
    "restarted": ([4, 4, 4, 4, 1, 1, 1, 3, 3, 3], 3),
    "restarted twice": ([9, 9, 9, 0, 2, 0, 0, 1, 1, 1], 3),
    "between two windows": ([4, 4, 5, 5, 5, 5, 5, 5, 5, 5], 1),
    "before it": ([4, 5, 5, 5, 5, 5, 5, 5, 5, 5], 0),
    "away for a while": ([4, 4, 4, None, None, None, 4, 4, 5, 5], 1),
    "tells none": ([None] * 10, None),
}


def test_faults_of_a_gpu_are_the_increases_of_its_counter(lab: Lab):
    at = (lab.start - timedelta(days=5)).replace(second=0, microsecond=0)
    window = Window(at + timedelta(minutes=2), at + timedelta(minutes=10))
    insert(lab, "gpu_samples", [
        {"time": at + timedelta(minutes=minute), "gpu": gpu, "node": "n5", "xid_total": value,
         "ecc_uncorrected_total": value}
        for gpu, (values, _) in FAULTS.items() for minute, value in enumerate(values)
    ])  # fmt: skip
    found = {row.gpu: row for row in gpus.ask(lab.store, Selection(window)).result.gpus}
    assert {gpu: row.xids for gpu, row in found.items()} == {gpu: gained for gpu, (_, gained) in FAULTS.items()}
    assert {gpu: row.ecc_uncorrected for gpu, row in found.items()} == {gpu: row.xids for gpu, row in found.items()}


def test_a_new_gpu_gained_what_it_shows_and_what_was_ever_first_did_not(lab: Lab):
    at = (lab.start - timedelta(days=6)).replace(second=0, microsecond=0)
    window = Window(at, at + timedelta(minutes=10))
    came = {"first": ("", 0, 3), "new": ("", 4, 2), "first replayed": ("old", 6, 5), "live and replayed": ("", 0, 1)}
    rows = [
        {"time": at + timedelta(minutes=minute), "gpu": gpu, "node": "n6", "recording": recording,
         "xid_total": shown + (minute == 9), "ecc_uncorrected_total": shown}
        for gpu, (recording, since, shown) in came.items() for minute in range(since, 10)
    ]  # fmt: skip
    again = {
        "gpu": "live and replayed",
        "node": "n6",
        "recording": "old",
        "xid_total": 40.0,
        "ecc_uncorrected_total": 40.0,
    }
    rows += [{**again, "time": at + timedelta(minutes=minute, seconds=1)} for minute in range(6, 10)]
    insert(lab, "gpu_samples", rows)
    found = {row.gpu: (row.xids, row.ecc_uncorrected) for row in gpus.ask(lab.store, Selection(window)).result.gpus}
    assert found["first"] == (1, 0)
    assert found["new"] == (3, 0), "memory errors are older than the agent"
    assert found["first replayed"] == (1, 0)
    live = gpus.ask(lab.store, Selection(window, Filter(recording="exclude"))).result.gpus
    assert {row.gpu: row.xids for row in live} == {"first": 1, "new": 3, "live and replayed": 1}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"a": 10.0, "b": 10.2, "c": 9.9, "d": 5.0}, {"d"}),
        ({"a": 10.0, "b": 10.1, "c": 10.9}, set()),  # hardly differs
        ({"a": 1.0, "b": 5.0, "c": 9.0, "d": 13.0}, set()),  # all differ
        ({"a": 1.0, "b": 9.0}, set()),  # too few
        ({"a": 0.0, "b": 0.0, "c": 0.0, "d": 3.0}, set()),  # nothing usual to measure by
        ({"a": None, "b": None, "c": 1.0}, set()),
        ({}, set()),
    ],
)
def test_an_outlier_is_far_from_what_is_usual(values: dict[str, float | None], expected: set[str]):
    assert set(outliers(values)) == expected
