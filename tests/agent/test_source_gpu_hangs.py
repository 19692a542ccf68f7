"""Calls of the driver that hang: what is left behind, told, and let go."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from agent.sources.gpu import Gpus
from agent.target import Place
from tests.kits.gpu import LOST, SOON, Driver, Seen, watching

ROOT = Path(__file__).parents[2]


async def test_a_call_that_hangs_is_left_behind_and_the_others_go_on(driver: Driver):
    driver.reset(3)
    async with watching(patience_seconds=0.3) as seen:
        await seen.until(lambda: len(seen.of("GPU-stub-2")) >= 2)
        driver.hang("nvmlDeviceGetPowerUsage", gpu=1)
        await seen.until(lambda: seen.told("gpu_driver_hung"))
        hung, others = len(seen.of("GPU-stub-1")), len(seen.of("GPU-stub-2"))
        await seen.until(lambda: len(seen.of("GPU-stub-2")) >= others + 20)
        assert driver.hanging == 1, "it is not called again and again"
        assert len(seen.of("GPU-stub-1")) == hung
        driver.answer()
        await seen.until(lambda: len(seen.of("GPU-stub-1")) > hung + 2)
    assert seen.told("gpu_driver_hung") == [
        "The driver does not answer about GPU 1 (GPU-stub-1): it has no figures until it does"
    ]
    assert "The driver answers about GPU 1 (GPU-stub-1) again" in seen.told("gpu_found")


async def test_a_gpu_that_hangs_is_not_asked_again_for_the_sake_of_one_that_is_lost(driver: Driver):
    driver.reset(3)
    gpus = Gpus(Place(), interval_seconds=0.02, look_again_seconds=0.2, patience_seconds=0.3)
    seen = Seen()
    task = asyncio.create_task(gpus.run(seen.emit))
    await seen.until(lambda: len(seen.of("GPU-stub-2")) >= 2)
    driver.hang("nvmlDeviceGetPowerUsage", gpu=1)
    await seen.until(lambda: seen.told("gpu_driver_hung"))
    driver.hang("nvmlDeviceGetUUID", gpu=1)
    driver.lose(0)
    await seen.until(lambda: seen.told("gpu_unavailable"))
    there = len(seen.of("GPU-stub-2"))
    await seen.until(lambda: len(seen.of("GPU-stub-2")) >= there + 40)
    assert driver.hanging == 1
    assert "GPU 1 (GPU-stub-1) does not answer" in gpus.problems(0, 0)
    driver.answer()
    driver.lose(0, lost=False)
    lost = len(seen.of("GPU-stub-0"))
    await seen.until(lambda: len(seen.of("GPU-stub-0")) > lost)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class Slow:
    """The binding of a driver whose GPUs are asleep."""

    def __init__(self) -> None:
        import pynvml  # noqa: PLC0415 - there is a driver now

        self._real = pynvml

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def nvmlInit(self) -> None:  # noqa: N802 - the binding's
        time.sleep(0.5)
        self._real.nvmlInit()


@pytest.mark.parametrize(("patience", "told"), [(30.0, 0), (0.1, 1)])
async def test_gpus_that_take_long_to_open_are_watched(driver: Driver, patience: float, told: int):
    driver.reset(1)
    more = {"opening_patience_seconds": patience, "patience_seconds": 0.3, "look_again_seconds": 0.05}
    async with watching(nvml=Slow(), **more) as seen:
        await seen.until(lambda: len(seen.rows) >= 2)
    assert len(seen.told("gpu_driver_hung")) == told


async def test_a_driver_that_hangs_at_once_is_told_and_waited_for(driver: Driver):
    driver.reset(1)
    driver.hang("nvmlInitWithFlags")
    gpus = Gpus(opening_patience_seconds=0.1, look_again_seconds=0.05)
    seen = Seen()
    task = asyncio.create_task(gpus.run(seen.emit))
    await seen.until(lambda: seen.events)
    assert seen.events == [("gpu_driver_hung", "The GPU driver does not answer when asked for its GPUs")]
    values = {family.name: family.samples[0].value for family in gpus.metrics()}
    assert values == {"servescope_agent_gpus": 0, "servescope_agent_gpu_calls_hung": 1}
    assert list(gpus.problems(0, 0)) == ["The GPU driver does not answer when asked for its GPUs"]
    driver.answer()
    await seen.until(lambda: seen.rows)
    assert list(gpus.problems(0, 0)) == []
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_an_agent_whose_driver_hangs_can_end(driver: Driver, tmp_path: Path):
    """A process of its own: what is asked is whether it ends while its thread never does."""
    program = """
import asyncio, sys
from pathlib import Path
from agent.sources.gpu import Gpus
from benchmarks.stub import load
library = load(Path(sys.argv[1]))
library.stub_reset(1, 1)
library.stub_rule(-1, b"nvmlDeviceGetUUID", -1)
async def main():
    told = asyncio.Event()
    task = asyncio.create_task(Gpus(opening_patience_seconds=0.1).run(lambda signal, body: told.set()))
    await told.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
asyncio.run(main())
print("ended with", library.stub_hanging(), "hanging")
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "ended with 1 hanging"


async def test_an_xid_is_an_event_and_a_count_as_it_happens(driver: Driver):
    driver.reset(2)
    async with watching() as seen:
        await seen.until(lambda: len(seen.rows) >= 2)
        driver.xid(1, 79)
        await seen.until(lambda: seen.told("gpu_xid"))
        driver.xid(1, 31)
        await seen.until(lambda: len(seen.told("gpu_xid")) == 2)
        await seen.until(lambda: seen.of("GPU-stub-1")[-1]["xid_total"] == 2)
    assert seen.told("gpu_xid") == [
        "GPU 1 (GPU-stub-1) reports Xid 79: GPU has fallen off the bus",
        "GPU 1 (GPU-stub-1) reports Xid 31: memory page fault of an application",
    ]
    assert seen.of("GPU-stub-0")[-1]["xid_total"] == 0


async def test_a_source_that_ends_while_a_call_hangs_waits_for_no_more_faults(driver: Driver):
    driver.reset(2)
    async with watching(patience_seconds=0.3) as seen:
        await seen.until(lambda: len(seen.rows) >= 2)
        driver.hang("nvmlDeviceGetPowerUsage", gpu=1)
        await seen.until(lambda: seen.told("gpu_driver_hung"))
    waiting = [thread for thread in threading.enumerate() if thread.name == "gpu-faults"]
    for thread in waiting:
        await asyncio.to_thread(thread.join, SOON)
    assert not any(thread.is_alive() for thread in waiting)
    driver.answer()


@pytest.mark.parametrize("patience", [SOON, 0.2])
async def test_what_is_opened_for_a_source_that_has_ended_is_let_go(driver: Driver, patience: float):
    driver.reset(2)
    driver.hang("nvmlDeviceGetPowerUsage", gpu=1)
    before = set(threading.enumerate())
    async with watching(opening_patience_seconds=patience) as seen, asyncio.timeout(SOON):
        while not driver.hanging or (patience < SOON and not seen.told("gpu_driver_hung")):  # noqa: ASYNC110 - C tells nobody
            await asyncio.sleep(0.01)
    opening = [thread for thread in threading.enumerate() if thread not in before and thread.name == "gpu-driver"]
    assert opening
    driver.answer()
    for thread in opening:
        await asyncio.to_thread(thread.join, SOON)
    left = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("gpu-")]
    assert left == []


async def test_faults_are_watched_again_after_a_wait_that_failed(driver: Driver, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("agent.gpu.faults._AGAIN_SECONDS", 0.02)
    driver.reset(1)
    driver.refuse("nvmlEventSetWait_v2", LOST)
    gpus, seen = Gpus(Place(), interval_seconds=0.02), Seen()
    task = asyncio.create_task(gpus.run(seen.emit))
    await seen.until(lambda: list(gpus.problems(0, 0)) == ["Faults of GPUs (Xid) are not watched: GPU is lost"])
    driver.answer()
    driver.xid(0, 79)
    await seen.until(lambda: seen.told("gpu_xid"))
    await seen.until(lambda: not list(gpus.problems(0, 0)))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
