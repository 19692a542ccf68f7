"""GPUs that a kubelet calls by numbers: a driver that is here knows which they are."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.config import AgentConfig
from agent.gpu.pod_resources import ask
from agent.gpu_pods import Holding
from agent.source import Scene
from agent.sources import gpu, pod_resources
from agent.sources.pod_resources import PodResources
from agent.target import Place
from tests.kits.gpu import Driver, Seen
from tests.kits.kubelet import Kubelet

if TYPE_CHECKING:
    from collections.abc import Iterator

WHOLE, CLAIMS = "nvidia.com/gpu", "gpu.nvidia.com"
NUMBERED = {(0, None): "GPU-a", (1, None): "GPU-b", (1, 3): "MIG-b3", (0, 0): "MIG-a0"}


@pytest.fixture
def path() -> Iterator[Path]:
    """A socket's path, short enough for one."""
    with tempfile.TemporaryDirectory(prefix="kl") as folder:
        yield Path(folder) / "kubelet.sock"


@pytest.mark.parametrize(
    ("device", "gpu"),
    [
        ("nvidia0", "GPU-a"),
        ("nvidia1/vgpu3", "GPU-b"),
        ("nvidia1/gi3", "MIG-b3"),
        ("nvidia0/gi0/vgpu0", "MIG-a0"),
        ("nvidia2", None),
        ("nvidia1/gi4", None),
        ("gpu-0", None),
        ("nvidia0/vgpu", None),
        ("nvidia", None),
        ("nvidiactl", None),
    ],
)
async def test_a_device_file_leads_to_its_gpu(path: Path, device: str, gpu: str | None):
    async with Kubelet(path) as kubelet:
        kubelet.put("chat-0", {WHOLE: [device]})
        found = await ask(path, numbered=NUMBERED)
    assert found.holdings == ({Holding(gpu, "models", "chat-0")} if gpu else set())
    assert found.strange == (set() if gpu else {device})


@pytest.mark.parametrize(
    ("device", "gpu"),
    [
        ("gpu-1", "GPU-b"),
        ("gpu-7", None),
        ("gpu-1-mig-1g10gb-19-4", None),
        ("gpu-vfio-1", None),
        ("nvidia1", None),
    ],
)
async def test_a_claims_device_leads_to_its_gpu(path: Path, device: str, gpu: str | None):
    async with Kubelet(path) as kubelet:
        kubelet.claim("chat-0", CLAIMS, device)
        kubelet.claim("chat-1", "example.com", "gpu-0")
        found = await ask(path, numbered=NUMBERED)
    assert found.holdings == ({Holding(gpu, "models", "chat-0")} if gpu else set())
    assert found.strange == (set() if gpu else {device})


async def test_what_the_driver_counts_is_what_the_kubelet_calls_them(path: Path, driver: Driver):
    """The stub counts its device files from the last GPU on, so that an index would lead to another."""
    driver.reset(2)
    driver.cut(0, 2)
    scene = Scene(AgentConfig(pod_resources=path), Place(node="n1"), (), lambda _instance: None, Path())
    gpus, kubelets = gpu.source(scene), pod_resources.source(scene)
    assert gpus is not None
    assert kubelets is not None
    kubelets._interval = 0.02
    seen, pods, figures = Seen(), {"whole", "part", "claimed"}, {"GPU-stub-1", "MIG-stub-1"}

    def sampled() -> set[str]:
        return {whose["hw.id"] for whose, values in seen.rows if "hw.gpu.memory.usage" in values}

    async with Kubelet(path) as kubelet:
        kubelet.put("whole", {WHOLE: ["nvidia0/vgpu1"]})
        kubelet.put("part", {WHOLE: ["nvidia1/gi2"]})
        kubelet.claim("claimed", CLAIMS, "gpu-0")
        tasks = [asyncio.create_task(one.run(seen.emit)) for one in (gpus, kubelets)]
        try:
            await seen.until(
                lambda: pods <= {whose.get("k8s.pod.name") for whose, _ in seen.rows} and figures <= sampled()
            )
            held = {
                (whose["k8s.pod.name"], whose["hw.id"]) for whose, values in seen.rows if "pod_held_seconds" in values
            }
            assert list(kubelets.problems(0.0, 0.0)) == []
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    assert held == {("whole", "GPU-stub-1"), ("part", "MIG-stub-1"), ("claimed", "GPU-stub-1")}
    assert {gpu for _, gpu in held} == figures, "under the ids of the figures"


async def test_without_numbers_they_are_told_as_before(driver: Driver):
    driver.reset(2)
    driver.refuse("nvmlDeviceGetMinorNumber")
    scene = Scene(AgentConfig(), Place(node="n1"), (), lambda _instance: None, Path())
    made, seen = gpu.source(scene), Seen()
    assert made is not None
    task = asyncio.create_task(made.run(seen.emit))
    try:
        await seen.until(lambda: seen.of("GPU-stub-1"))
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert scene.overheard.gpus == {}


async def test_a_name_of_the_first_look_alone_is_not_told(path: Path):
    """The driver may take longer to open than the kubelet to answer."""
    numbers: dict[tuple[int, int | None], str] = {}
    made, seen = PodResources(path, Place(), numbers=numbers, interval_seconds=0.02), Seen()
    async with Kubelet(path) as kubelet:
        kubelet.put("chat-0", {WHOLE: ["nvidia0"]})
        await made._look(seen.emit)
        assert list(made.problems(0.0, 0.0)) != []
        numbers[0, None] = "GPU-a"
        await made._look(seen.emit)
        await made._look(seen.emit)
        assert (seen.events, list(made.problems(0.0, 0.0))) == ([], [])
        numbers.clear()
        for _ in range(4):
            await made._look(seen.emit)
    assert len(seen.told("gpu_pods_absent")) == 1
