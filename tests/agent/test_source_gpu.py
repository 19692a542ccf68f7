from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.host.engines import Engines, rank_of
from agent.sources.gpu import Gpus
from agent.target import Place, Target
from tests.kits.gpu import FUNCTION_NOT_FOUND, NO_PERMISSION, UNKNOWN, Driver, Seen, watching

ROOT = Path(__file__).parents[2]


async def test_every_figure_in_our_units(driver: Driver):
    driver.reset(2)
    async with watching() as seen:
        await seen.until(lambda: len(seen.of("GPU-stub-1")) >= 2)
    first, second = seen.of("GPU-stub-1")[:2]
    (whose,) = {tuple(sorted(whose.items())) for whose, _ in seen.rows if whose["hw.id"] == "GPU-stub-1"}
    assert dict(whose) == {
        "host.name": "n1",
        "hw.type": "gpu",
        "hw.id": "GPU-stub-1",
        "hw.name": "Stub H100",
        "hw.index": "1",
        "hw.driver_version": "580.00.stub",
    }
    each_second = {
        "hw.gpu.utilization": 0.87,
        "memory_utilization_ratio": 0.4,
        "hw.gpu.memory.usage": 60 * 2**30,
        "hw.gpu.memory.limit": 80 * 2**30,
        "hw.power": 350.5,
        "hw.energy": 1.5,
        "hw.temperature": 61,
        "sm_clock_hertz": 1.98e9,
        "memory_clock_hertz": 2.619e9,
        "throttle_reasons": 0x44,
        "memory_temperature_celsius": 71,
        "sm_active_ratio": pytest.approx(0.64),
        "sm_occupancy_ratio": pytest.approx(0.25),
        "tensor_active_ratio": pytest.approx(0.31),
        "dram_active_ratio": pytest.approx(0.52),
        "pcie_tx_bytes_per_second": 120 * 2**20,
        "pcie_rx_bytes_per_second": 120 * 2**20,
        "nvlink_tx_bytes_per_second": 2000 * 2**20,
        "nvlink_rx_bytes_per_second": 2000 * 2**20,
        "xid_total": 0,
    }
    assert first == each_second | {
        "power_limit_watts": 700,
        "power_limit_default_watts": 700,
        "sm_clock_max_hertz": 1.98e9,
        "ecc_corrected_total": 9,
        "ecc_uncorrected_total": 2,
        "remapped_rows_correctable_total": 1,
        "remapped_rows_uncorrectable_total": 2,
        "remapped_rows_pending": 1,
        "remapped_rows_failed": 0,
        "pcie_replay_total": 3,
    }
    assert second == each_second, "limits and rare faults are looked at seldom"
    assert len(seen.told("gpu_found")) == 2
    assert "does not tell" not in "".join(seen.told("gpu_found"))


async def test_before_hopper_rates_come_from_counters_and_the_inside_is_a_stated_fact(driver: Driver):
    driver.reset(1)
    driver.refuse("nvmlGpmQueryDeviceSupport", FUNCTION_NOT_FOUND)
    async with watching() as seen:
        await seen.until(lambda: len(seen.of("GPU-stub-0")) >= 6)
    (message,) = seen.told("gpu_found")
    assert "does not tell: what works inside it" in message
    rows = seen.of("GPU-stub-0")
    assert all("sm_active_ratio" not in row for row in rows)
    # counters of the stub grow with its clock: 100 MB and 1000 MiB a second
    for name, rate in (("pcie_rx_bytes_per_second", 1e8), ("nvlink_tx_bytes_per_second", 1000 * 2**20)):
        rates = [row[name] for row in rows if name in row]
        assert len(rates) >= 4
        assert sum(rates) / len(rates) == pytest.approx(rate, rel=0.5)


async def test_eight_gpus_are_eight_rows_of_one_instant(driver: Driver):
    driver.reset(8)
    async with watching() as seen:
        await seen.until(lambda: len(seen.rows) >= 16)
    assert [whose["hw.index"] for whose, _ in seen.rows[:8]] == [str(index) for index in range(8)]
    assert len(seen.told("gpu_found")) == 8


async def test_an_unsupported_figure_is_told_once_and_absent(driver: Driver):
    driver.reset(1)
    driver.refuse("nvmlDeviceGetTotalEnergyConsumption")
    driver.refuse("nvmlDeviceGetTotalEccErrors", NO_PERMISSION)
    driver.refuse("memory temperature")
    driver.refuse("nvmlDeviceRegisterEvents")
    async with watching() as seen:
        await seen.until(lambda: len(seen.rows) >= 13)
    for name in ("hw.energy", "ecc_uncorrected_total", "memory_temperature_celsius", "xid_total"):
        assert all(name not in values for values in seen.of("GPU-stub-0")[1:]), name
    assert seen.of("GPU-stub-0")[1]["hw.power"] == 350.5
    ((name, message),) = seen.events
    assert name == "gpu_found"
    assert message.endswith("does not tell: ECC errors, Xid events, energy, memory temperature")


async def test_a_gpu_that_falls_off_the_bus_is_told_once_and_is_taken_back(driver: Driver):
    driver.reset(2)
    async with watching(look_again_seconds=0.2) as seen:
        await seen.until(lambda: len(seen.rows) >= 4)
        driver.lose(0)
        await seen.until(lambda: seen.told("gpu_unavailable"))
        lost = len(seen.of("GPU-stub-0"))
        there = len(seen.of("GPU-stub-1"))
        await seen.until(lambda: any("cannot be opened" in message for message in seen.told("gpu_unavailable")))
        await seen.until(lambda: len(seen.of("GPU-stub-1")) >= there + 20)
        assert len(seen.of("GPU-stub-0")) == lost
        assert [message for message in seen.told("gpu_unavailable") if "stopped answering" in message] == [
            "GPU 0 (GPU-stub-0) stopped answering: GPU is lost"
        ]
        driver.lose(0, lost=False)
        await seen.until(lambda: len(seen.of("GPU-stub-0")) > lost)
    assert len(seen.told("gpu_unavailable")) == 2


async def test_a_source_that_was_ended_can_begin_again(driver: Driver):
    driver.reset(1)
    gpus, seen = Gpus(Place(node="n1"), interval_seconds=0.02), Seen()
    for _ in range(2):
        seen.rows.clear()
        task = asyncio.create_task(gpus.run(seen.emit))
        await seen.until(lambda: seen.rows)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_parts_of_a_gpu_are_rows_of_their_own(driver: Driver):
    driver.reset(1)
    driver.cut(0, 2)
    driver.run(0, 4711, 3 * 2**30, 80)
    async with watching() as seen:
        await seen.until(lambda: len(seen.of("MIG-stub-1")) >= 2)
    (whole, *parts) = {
        whose["hw.id"]: (whose["hw.index"], whose.get("hw.parent"))
        for whose, _ in seen.rows
        if "process.pid" not in whose
    }.items()
    assert whole == ("GPU-stub-0", ("0", None))
    assert parts == [("MIG-stub-0", ("0:0", "GPU-stub-0")), ("MIG-stub-1", ("0:1", "GPU-stub-0"))]
    values = seen.of("MIG-stub-0")[1]
    assert values["hw.gpu.memory.limit"] == 10 * 2**30
    assert values["sm_active_ratio"] == pytest.approx(0.64), "the parts' own activity"
    assert "hw.gpu.utilization" not in values, "the driver keeps none of a part"


async def test_processes_are_joined_to_their_engine(driver: Driver):
    """Each has its memory and activity; a stranger's has no instance."""
    driver.reset(2)
    driver.run(1, 4711, 50 * 2**30, 90)
    driver.run(1, 4712, 2**30, 3)
    target = Target(instance="vllm-a", deployment="chat", url="http://127.0.0.1:1", engine="vllm")
    engines = Engines([target])
    engines.know({"vllm-a": {4711: "VLLM::Worker_DP1_TP0"}})
    async with watching(engines=engines) as seen:
        await seen.until(lambda: len([1 for whose, _ in seen.rows if "process.pid" in whose]) >= 2)
    found = {whose["process.pid"]: (whose, values) for whose, values in seen.rows if "process.pid" in whose}
    whose, values = found["4711"]
    assert values == {"process_present": 1, "process_memory_bytes": 50 * 2**30, "process_sm_ratio": 0.9}
    assert {key: whose.get(key) for key in ("hw.id", "service.instance.id", "process.name", "servescope.rank")} == {
        "hw.id": "GPU-stub-1",
        "service.instance.id": "vllm-a",
        "process.name": "VLLM::Worker_DP1_TP0",
        "servescope.rank": "DP1_TP0",
    }
    assert "service.instance.id" not in found["4712"][0]


@pytest.mark.parametrize(
    ("name", "rank"),
    [
        ("VLLM::Worker_TP1", "TP1"),
        ("VLLM::Worker_DP0_TP1_EP1", "DP0_TP1_EP1"),
        ("VLLM::EngineCore_DP3", "DP3"),
        ("sglang::scheduler_DP0_TP1_EP0", "DP0_TP1_EP0"),
        ("VLLM::EngineCore", ""),
        ("python3", ""),
        ("", ""),
    ],
)
def test_a_rank_is_read_from_its_workers_name(name: str, rank: str):
    assert rank_of(name) == rank


async def test_no_driver_is_one_event_and_no_loop(driver: Driver):
    driver.reset(0, loaded=False)
    async with watching(look_again_seconds=0.01) as seen:
        await seen.until(lambda: seen.events)
        await asyncio.sleep(0.1)  # some looks again
        assert seen.events == [("gpu_unavailable", "No GPU can be watched: Driver Not Loaded")]
        driver.reset(1)
        await seen.until(lambda: seen.rows)


async def test_a_gpu_that_cannot_be_opened_hides_no_other(driver: Driver):
    driver.reset(2)
    driver.lose(0)
    async with watching() as seen:
        await seen.until(lambda: len(seen.rows) >= 2)
    assert {whose["hw.id"] for whose, _ in seen.rows} == {"GPU-stub-1"}
    assert [name for name, _ in seen.events] == ["gpu_unavailable", "gpu_found"]


async def test_a_driver_without_gpus_says_so(driver: Driver):
    driver.reset(0)
    async with watching() as seen:
        await seen.until(lambda: seen.events)
    assert seen.events == [("gpu_unavailable", "No GPU can be watched: the driver finds none that answers")]


async def test_gpus_that_do_not_answer_are_a_problem_of_the_agent(driver: Driver):
    driver.reset(2)
    gpus = Gpus(Place(), interval_seconds=0.02)
    seen = Seen()
    task = asyncio.create_task(gpus.run(seen.emit))
    await seen.until(lambda: len(seen.rows) >= 2)
    assert list(gpus.problems(0, 0)) == []
    driver.lose(1)
    await seen.until(lambda: seen.told("gpu_unavailable"))
    assert list(gpus.problems(0, 0)) == ["GPU 1 (GPU-stub-1) does not answer"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_is_refused_only_when_it_is_asked_for_is_told_too(driver: Driver):
    driver.reset(1)
    driver.run(0, 4711, 2**30, 50)
    driver.refuse("nvmlGpmMetricsGet", NO_PERMISSION)
    driver.refuse("nvmlDeviceGetProcessUtilization")
    async with watching() as seen:
        await seen.until(lambda: len(seen.of("GPU-stub-0")) >= 4)
    told = seen.told("gpu_found")
    assert told[0].endswith("it does not tell: activity of processes")
    assert "what works inside it" in told[-1]
    assert len(told) == 2, "each once"
    row = seen.of("GPU-stub-0")[-1]
    assert "sm_active_ratio" not in row
    assert "nvlink_tx_bytes_per_second" in row, "its counters tell"


async def test_rates_that_come_from_the_inside_are_not_said_to_lack(driver: Driver):
    driver.reset(1)
    driver.refuse("counters")
    async with watching() as seen:
        await seen.until(lambda: len(seen.of("GPU-stub-0")) >= 3)
    assert seen.of("GPU-stub-0")[-1]["nvlink_tx_bytes_per_second"] == 2000 * 2**20
    assert "does not tell" not in "".join(seen.told("gpu_found"))


async def test_whose_a_gpu_is_is_known_where_the_activity_of_processes_is_not(driver: Driver):
    driver.reset(1)
    driver.run(0, 4711, 2**30, 50)
    driver.refuse("nvmlDeviceGetProcessUtilization", UNKNOWN)
    async with watching() as seen:
        await seen.until(lambda: any("process.pid" in whose for whose, _ in seen.rows))
    (values,) = {tuple(values.items()) for whose, values in seen.rows if "process.pid" in whose}
    assert dict(values) == {"process_present": 1, "process_memory_bytes": 2**30}


async def test_drivers_that_know_the_older_name_of_throttle_reasons_are_asked_by_it(driver: Driver):
    driver.reset(1)
    driver.refuse("nvmlDeviceGetCurrentClocksEventReasons", FUNCTION_NOT_FOUND)
    async with watching() as seen:
        await seen.until(lambda: len(seen.of("GPU-stub-0")) >= 2)
    assert seen.of("GPU-stub-0")[-1]["throttle_reasons"] == 0x44
    assert "does not tell" not in "".join(seen.told("gpu_found"))


async def test_parts_that_are_cut_later_are_found(driver: Driver):
    driver.reset(1)
    async with watching(look_again_seconds=0.2) as seen:
        await seen.until(lambda: len(seen.of("GPU-stub-0")) >= 2)
        driver.cut(0, 2)
        await seen.until(lambda: seen.of("MIG-stub-1"))
    assert any("MIG-stub-1" in message for message in seen.told("gpu_found"))
