from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pynvml
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from agent.sources.gpu import Gpus
from agent.target import Place

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

SOON = 30.0


class Driver:
    """pynvml's names with figures a test sets; everything that is not faked is pynvml's own."""

    def __init__(self, gpus: int, *, unsupported: tuple[str, ...] = ()) -> None:
        self.gpus = gpus
        self.unsupported = unsupported
        self.missing = False
        self.lost: set[int] = set()
        self.inits = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(pynvml, name)

    def nvmlInit(self) -> None:  # noqa: N802
        self.inits += 1
        if self.missing:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    def nvmlShutdown(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return self.gpus

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetUUID(self, gpu: int) -> str:  # noqa: N802
        return f"GPU-{gpu}"

    def nvmlDeviceGetName(self, _gpu: int) -> bytes:  # noqa: N802
        return b"NVIDIA H100"

    def _figure(self, name: str, gpu: int, value: Any) -> Any:
        if gpu in self.lost:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        if name in self.unsupported:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return value

    def nvmlDeviceGetUtilizationRates(self, gpu: int) -> Any:  # noqa: N802
        return self._figure("utilization", gpu, SimpleNamespace(gpu=87, memory=40))

    def nvmlDeviceGetMemoryInfo(self, gpu: int) -> Any:  # noqa: N802
        return self._figure("memory", gpu, SimpleNamespace(used=60 * 2**30, total=80 * 2**30))

    def nvmlDeviceGetPowerUsage(self, gpu: int) -> Any:  # noqa: N802
        return self._figure("power", gpu, 350_500)

    def nvmlDeviceGetEnforcedPowerLimit(self, gpu: int) -> Any:  # noqa: N802
        return self._figure("power limit", gpu, 700_000)

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu: int) -> Any:  # noqa: N802
        return self._figure("energy", gpu, 1_500)

    def nvmlDeviceGetTemperature(self, gpu: int, _sensor: int) -> Any:  # noqa: N802
        return self._figure("temperature", gpu, 61)

    def nvmlDeviceGetClockInfo(self, gpu: int, clock: int) -> Any:  # noqa: N802
        return self._figure("clock", gpu, {pynvml.NVML_CLOCK_SM: 1980, pynvml.NVML_CLOCK_MEM: 2619}[clock])

    def nvmlDeviceGetCurrentClocksEventReasons(self, gpu: int) -> Any:  # noqa: N802
        return self._figure("reasons", gpu, 4)

    def nvmlDeviceGetTotalEccErrors(self, gpu: int, _kind: int, _since: int) -> Any:  # noqa: N802
        return self._figure("ecc", gpu, 2)

    def nvmlDeviceGetPcieReplayCounter(self, gpu: int) -> Any:  # noqa: N802
        return self._figure("pcie", gpu, 3)


class Seen:
    def __init__(self) -> None:
        self.rows: list[tuple[dict[str, str], dict[str, float]]] = []
        self.events: list[tuple[str, str]] = []
        self._news = asyncio.Event()

    def emit(self, signal: str, body: bytes) -> None:
        if signal == "metrics":
            for one in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                assert one.scope_metrics[0].scope.name == "servescope.gpu"
                whose = {pair.key: pair.value.string_value for pair in one.resource.attributes}
                values = {found.name: found.gauge.data_points[0].as_double for found in one.scope_metrics[0].metrics}
                self.rows.append((whose, values))
        else:
            record = ExportLogsServiceRequest.FromString(body).resource_logs[0].scope_logs[0].log_records[0]
            self.events.append((record.event_name, record.body.string_value))
        self._news.set()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(SOON):
            while not condition():
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def watching(driver: Driver) -> AsyncIterator[Seen]:
    seen = Seen()
    task = asyncio.create_task(Gpus(Place(node="n1"), interval_seconds=0.02, nvml=driver).run(seen.emit))
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_every_figure_in_our_units():
    async with watching(Driver(2)) as seen:
        await seen.until(lambda: len(seen.rows) >= 4)
    whose, values = seen.rows[1]
    assert whose == {
        "host.name": "n1",
        "hw.type": "gpu",
        "hw.id": "GPU-1",
        "hw.name": "NVIDIA H100",
        "hw.index": "1",
    }
    assert values == {
        "gpu_utilization_ratio": 0.87,
        "memory_utilization_ratio": 0.4,
        "memory_used_bytes": 60 * 2**30,
        "memory_total_bytes": 80 * 2**30,
        "power_watts": 350.5,
        "power_limit_watts": 700,
        "energy_joules_total": 1.5,
        "temperature_celsius": 61,
        "sm_clock_hertz": 1.98e9,
        "memory_clock_hertz": 2.619e9,
        "throttle_reasons": 4,
        "ecc_uncorrected_total": 2,
        "pcie_replay_total": 3,
    }
    assert [name for name, _ in seen.events] == ["gpu_found", "gpu_found"]


async def test_an_unsupported_figure_is_told_once_and_absent():
    async with watching(Driver(1, unsupported=("energy", "ecc"))) as seen:
        await seen.until(lambda: len(seen.rows) >= 3)
    assert all({"energy_joules_total", "ecc_uncorrected_total"}.isdisjoint(values) for _, values in seen.rows)
    ((name, message),) = seen.events
    assert name == "gpu_found"
    assert "does not tell: ECC errors, energy" in message


async def test_a_gpu_that_falls_off_the_bus_is_told_once_and_the_other_goes_on():
    driver = Driver(2)
    async with watching(driver) as seen:
        await seen.until(lambda: len(seen.rows) >= 4)
        driver.lost.add(0)
        await seen.until(lambda: any(name == "gpu_unavailable" for name, _ in seen.events))
        rows = len(seen.rows)
        await seen.until(lambda: len(seen.rows) >= rows + 4)
    assert {whose["hw.id"] for whose, _ in seen.rows[rows:]} == {"GPU-1"}
    told = [message for name, message in seen.events if name == "gpu_unavailable"]
    assert len(told) == 1
    assert "GPU-0" in told[0]


async def test_no_driver_is_one_event_and_no_loop():
    driver = Driver(0)
    driver.missing = True
    async with watching(driver) as seen:
        await seen.until(lambda: seen.events)
        for _ in range(50):
            await asyncio.sleep(0)
    assert [name for name, _ in seen.events] == ["gpu_unavailable"]
    assert driver.inits == 1
    assert seen.rows == []


async def test_a_gpu_that_cannot_be_opened_hides_no_other():
    driver = Driver(2)
    driver.lost.add(0)
    async with watching(driver) as seen:
        await seen.until(lambda: len(seen.rows) >= 2)
    assert {whose["hw.id"] for whose, _ in seen.rows} == {"GPU-1"}
    assert [name for name, _ in seen.events] == ["gpu_unavailable", "gpu_found"]


async def test_a_driver_without_gpus_says_so():
    async with watching(Driver(0)) as seen:
        await seen.until(lambda: seen.events)
    assert seen.events == [("gpu_unavailable", "No GPU can be watched: the driver finds none that answers")]


async def test_the_real_library_on_this_machine_says_something_true():
    seen = Seen()
    task = asyncio.create_task(Gpus(interval_seconds=0.02).run(seen.emit))
    await seen.until(lambda: seen.events)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert seen.events[0][0] in {"gpu_found", "gpu_unavailable"}
