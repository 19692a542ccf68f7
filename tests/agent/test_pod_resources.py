"""Which pods have which GPUs, by a kubelet's socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from agent.config import AgentConfig
from agent.gpu import pod_resources as kubelets
from agent.gpu.pod_resources import KubeletError, answer, ask, told
from agent.gpu_pods import Holding
from agent.source import Scene
from agent.sources.pod_resources import PodResources, source
from agent.target import Place
from tests.kits.agent_fakes import until
from tests.kits.gpu import Seen
from tests.kits.kubelet import Kubelet

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Iterator

A, B = "GPU-8f2a1c3e-0000-1111-2222-333344445555", "GPU-8f2a1c3e-0000-1111-2222-333344446666"
PART = "MIG-5c1b7b2a-aaaa-bbbb-cccc-ddddeeeeffff"
WHOLE = "nvidia.com/gpu"


@pytest.fixture
def path() -> Iterator[Path]:
    """A socket's path, short enough for one."""
    with tempfile.TemporaryDirectory(prefix="kl") as folder:
        yield Path(folder) / "kubelet.sock"


@pytest.fixture
def place() -> Place:
    return Place(node="n1", pod="agent-x", namespace="servescope", cluster="c")


@asynccontextmanager
async def watching(path: Path, place: Place, **more: Any) -> AsyncIterator[tuple[Seen, PodResources]]:
    """A source that looks as fast as it can."""
    seen = Seen()
    made = PodResources(path, place, **{"interval_seconds": 0.02, "look_again_seconds": 0.02, **more})
    task = asyncio.create_task(made.run(seen.emit))
    try:
        yield seen, made
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def holders(seen: Seen) -> set[tuple[str, str]]:
    return {(whose["hw.id"], whose["k8s.pod.name"]) for whose, _ in seen.rows}


def counts(made: PodResources) -> dict[str, float]:
    return {
        family.name.removeprefix("servescope_agent_"): sample.value
        for family in made.metrics()
        for sample in family.samples
    }


def problems(made: PodResources) -> list[str]:
    return list(made.problems(0.0, 0.0))


async def test_a_pods_gpus_by_whatever_they_were_handed_out(path: Path):
    async with Kubelet(path) as kubelet:
        kubelet.put("whole", {WHOLE: [A, B]})
        kubelet.put("two", {WHOLE: [A]}, {WHOLE: [B], "example.com/nic": ["nic-1"]}, namespace="other")
        kubelet.put("part", {"nvidia.com/mig-1g.10gb": [PART]})
        kubelet.put("old-part", {"nvidia.com/mig-1g.5gb": [f"MIG-{A}/3/0"]})
        kubelet.put("shared", {"nvidia.com/gpu.shared": [f"{A}::0", f"{A}::7", f"{PART}::1"]})
        kubelet.put("renamed", {"example.com/fast": [B]})
        kubelet.put("none", {})
        found = await ask(path)
    assert found.holdings == {
        Holding(A, "models", "whole"),
        Holding(B, "models", "whole"),
        Holding(A, "other", "two"),
        Holding(B, "other", "two"),
        Holding(PART, "models", "part"),
        Holding(f"MIG-{A}/3/0", "models", "old-part"),
        Holding(A, "models", "shared"),
        Holding(PART, "models", "shared"),
        Holding(B, "models", "renamed"),
    }
    assert (found.strange, found.passed_over) == (set(), 0)


async def test_each_pod_of_a_gpu_is_a_row_since_it_has_it(path: Path, place: Place):
    async with Kubelet(path) as kubelet, watching(path, place) as (seen, made):
        kubelet.put("chat-0", {WHOLE: [f"{A}::0"]})
        await seen.until(lambda: len(seen.of(A)) >= 2)
        kubelet.put("chat-1", {WHOLE: [f"{A}::1"]})
        await seen.until(lambda: (A, "chat-1") in holders(seen))
        kubelet.drop("chat-0")
        dropped = kubelet.asked
        await seen.until(lambda: kubelet.asked > dropped + 2)
        left = len(seen.rows)
        await seen.until(lambda: len(seen.rows) > left + 2)
        assert {whose["k8s.pod.name"] for whose, _ in seen.rows[left:]} == {"chat-1"}
        assert counts(made)["pod_gpus"] == 1
    assert seen.rows[0][0] == {
        "hw.type": "gpu",
        "hw.id": A,
        "host.name": "n1",
        "k8s.cluster.name": "c",
        "k8s.pod.name": "chat-0",
        "k8s.namespace.name": "models",
        "k8s.node.name": "n1",
    }, "the pod is whose the GPU is, not the agent's own"
    held = [values for whose, values in seen.rows if whose["k8s.pod.name"] == "chat-1"]
    assert held[0] == {"pod_held_seconds": 0.0}
    assert [one["pod_held_seconds"] for one in held] == sorted(one["pod_held_seconds"] for one in held)
    assert held[-1]["pod_held_seconds"] > 0
    assert seen.events == []


async def test_a_pod_that_comes_back_has_its_gpu_anew(path: Path, place: Place):
    async with Kubelet(path) as kubelet, watching(path, place) as (seen, _):
        kubelet.put("chat-0", {WHOLE: [A]})
        await seen.until(lambda: seen.rows and seen.rows[-1][1]["pod_held_seconds"] > 0)
        kubelet.drop("chat-0")
        gone = kubelet.asked
        await until(lambda: kubelet.asked >= gone + 3)
        before = len(seen.rows)
        kubelet.put("chat-0", {WHOLE: [A]})
        await seen.until(lambda: len(seen.rows) > before)
    assert seen.rows[before][1] == {"pod_held_seconds": 0.0}


def test_where_there_is_no_socket_nobody_is_asked(path: Path, place: Place):
    made = PodResources(path, place)
    assert not made._is_there()
    path.write_text("no socket")
    assert not made._is_there()
    path.unlink()
    assert not PodResources(path / "no" / "folder", place)._is_there()
    assert (problems(made), counts(made)["pod_resources_looks"]) == ([], 0)


async def test_one_that_comes_later_is_asked(path: Path, place: Place):
    async with watching(path, place) as (seen, _), Kubelet(path) as kubelet:
        kubelet.put("chat-0", {WHOLE: [A]})
        await seen.until(lambda: holders(seen) == {(A, "chat-0")})
    assert seen.events == []


async def test_a_kubelet_that_refuses_is_told_once_and_once_when_it_is_back(path: Path, place: Place):
    async with Kubelet(path) as kubelet, watching(path, place) as (seen, made):
        kubelet.put("chat-0", {WHOLE: [A]})
        kubelet.refuse(grpc.StatusCode.PERMISSION_DENIED, "not for you")
        await seen.until(lambda: counts(made)["pod_resources_failures"] >= 1 and seen.events)
        asked = kubelet.asked
        await until(lambda: kubelet.asked >= asked + 3)
        (problem,) = problems(made)
        kubelet.recover()
        await seen.until(lambda: seen.told("gpu_pods_back"))
        await seen.until(lambda: seen.rows)
        assert problems(made) == []
    assert problem.startswith(f"The kubelet at {path} does not tell whose the GPUs are (agent.pod_resources: null ")
    assert problem.endswith(": not for you")
    assert seen.told("gpu_pods_absent") == [problem]
    assert len(seen.told("gpu_pods_back")) == 1


async def test_one_that_hangs_holds_up_nobody_and_is_asked_again(path: Path, place: Place):
    async with Kubelet(path) as kubelet, watching(path, place, patience_seconds=0.2) as (seen, made):
        kubelet.put("chat-0", {WHOLE: [A]})
        kubelet.hang()
        await seen.until(lambda: seen.told("gpu_pods_absent"))
        assert problems(made)[0].endswith("no answer within 0.2 s")
        kubelet.recover()
        await seen.until(lambda: holders(seen) == {(A, "chat-0")})
    assert [name for name, _ in seen.events] == ["gpu_pods_absent", "gpu_pods_back"]


async def test_a_socket_that_nobody_answers_has_an_end_too(path: Path):
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(path))
        with pytest.raises(KubeletError, match=r"\S"):  # refused
            await ask(path, 1.0)
        deaf.listen()
        with pytest.raises(KubeletError, match=r"no answer within 0\.2 s"):
            await ask(path, 0.2)


async def test_a_kubelet_that_was_restarted_goes_on_where_it_was(path: Path, place: Place):
    kubelet = Kubelet(path)
    kubelet.put("chat-0", {WHOLE: [A]})
    async with watching(path, place, patience_seconds=1.0) as (seen, _):
        async with kubelet:
            await seen.until(lambda: len(seen.rows) >= 2)
        await seen.until(lambda: seen.told("gpu_pods_absent"))
        before = len(seen.rows)
        async with kubelet:
            await seen.until(lambda: len(seen.rows) >= before + 2)
    assert [name for name, _ in seen.events] == ["gpu_pods_absent", "gpu_pods_back"], "one that was there may come back"


class Locked(type(Path())):  # type: ignore[misc] # the system's kind of path
    """In a folder that may not be looked into."""

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:  # noqa: ARG002 - as a path has it
        raise PermissionError(13, "Permission denied", str(self))


async def test_a_folder_that_may_not_be_looked_into_is_told(path: Path, place: Place):
    async with watching(Locked(path), place) as (seen, _):
        await seen.until(lambda: seen.told("gpu_pods_absent"))


async def test_an_answer_without_an_end_is_not_read(path: Path):
    async with Kubelet(path) as kubelet:
        kubelet.put("chat-0", {WHOLE: [A]})
        kubelet.pad(1 << 20)
        assert len((await ask(path)).holdings) == 1, "what is not known is skipped"
        kubelet.pad(kubelets.MOST_BYTES)
        with pytest.raises(KubeletError, match="larger than max"):
            await ask(path)


def test_what_no_kubelet_tells_is_refused():
    with pytest.raises(KubeletError, match="cannot be decoded"):
        told(b"\xff\xff")


def test_holdings_are_bounded_and_those_beyond_counted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kubelets, "MOST_HOLDINGS", 2)
    message = answer()()
    for name in ("a", "b", "c"):
        container = message.pod_resources.add(name=name).containers.add()
        container.devices.add(resource_name=WHOLE, device_ids=[f"{A}::0", f"{A}::1"])
    found = told(message.SerializeToString())
    assert (len(found.holdings), found.passed_over) == (2, 2)


async def test_names_that_are_no_uuid_are_told_once(path: Path, place: Place):
    async with Kubelet(path) as kubelet, watching(path, place) as (seen, made):
        kubelet.put("gke", {WHOLE: ["nvidia0", "nvidia1/gi3"]})
        kubelet.claim("claimed", "gpu.nvidia.com", "gpu-2")
        kubelet.claim("other", "example.com", "thing-2")
        kubelet.put("known", {WHOLE: [A]})
        await seen.until(lambda: len(seen.rows) >= 3)
        (problem,) = problems(made)
    assert problem.endswith("what the kubelet calls them leads to no UUID: gpu-2, nvidia0, nvidia1/gi3")
    assert seen.told("gpu_pods_absent") == [problem]
    assert holders(seen) == {(A, "known")}


def test_it_is_left_out_by_its_setting(path: Path):
    def made(**more: Any) -> PodResources | None:
        return source(Scene(AgentConfig(**more), Place(), (), lambda _instance: None, Path()))

    assert made(pod_resources=None) is None
    assert made(pod_resources=path)._socket == path  # type: ignore[union-attr]
    assert str(made()._socket) == "/var/lib/kubelet/pod-resources/kubelet.sock"  # type: ignore[union-attr]


def test_grpc_is_loaded_only_where_there_is_a_kubelet(path: Path):
    code = (
        "import asyncio, sys\nfrom pathlib import Path\n"
        "from agent.sources.pod_resources import PodResources\n"
        "async def main():\n"
        "    made = PodResources(Path(sys.argv[1]), look_again_seconds=0.01)\n"
        "    task = asyncio.create_task(made.run(lambda *_: None))\n"
        "    await asyncio.sleep(0.1)\n"
        "    assert not task.done() and 'grpc' not in sys.modules\n"
        "    task.cancel()\n"
        "asyncio.run(main())\n"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
