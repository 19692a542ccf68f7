"""Pods with GPUs as agents tell of them to a store, and whose the GPUs are there."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.gpu.pod_resources import Told
from agent.gpu_pods import GpuPods, Holding
from agent.otlp.encode import Moment, attributes
from agent.pages.follow import Follower
from agent.sources.gpu_pages import GpuPages
from agent.sources.pod_resources import PodResources
from agent.target import Place, Target
from tests.kits.schema_tools import NOW_MS, framed, token

if TYPE_CHECKING:
    from collector.store.client import Store

WORKS = "SELECT instance, gpu, node, process_pid, rank, `from`, `to` FROM instance_gpus ORDER BY gpu, instance, `from`"


def ns(seconds: float) -> int:
    """Unix ns of a moment of the test."""
    return (NOW_MS + int(seconds * 1000)) * 1_000_000


def at(seconds: float) -> datetime:
    """The same as a store has it."""
    return datetime.fromtimestamp((NOW_MS + seconds * 1000) / 1000, UTC)


class Node:
    """An agent of a node, which asks its kubelet and reads an exporter's page."""

    def __init__(self, store: Store, name: str = "n1") -> None:
        self._store = store
        pods, place = GpuPods(), Place(node=name)
        self._source = PodResources(Path("kubelet.sock"), place, pods)
        self._pages = GpuPages(["http://exporter:9400/metrics"], place, pods)

    def look(self, seconds: float, *held: tuple[str, str], namespace: str = "models") -> None:
        """It sees pods with GPUs."""
        holdings = frozenset(Holding(gpu, namespace, pod) for gpu, pod in held)
        told = Told(holdings, frozenset(), 0)
        self._source._tell(told, ns(seconds), self._emit)

    def page(self, seconds: float, *held: tuple[str, str], namespace: str = "models") -> None:
        """It reads the page of a dcgm-exporter, a line for each container that has a GPU."""
        text = ""
        for number, (gpu, pod) in enumerate(held):
            whose = f'UUID="{gpu}",pod="{pod}",namespace="{namespace}",container="server",vgpu="{number}"'
            text += f'DCGM_FI_DEV_GPU_UTIL{{gpu="0",Hostname="n1",{whose}}} 50\n'
        time_ns = ns(seconds)
        (one,) = self._pages._exporters
        self._pages._tell(one, self._pages._rows(one, text.encode(), time_ns), time_ns, self._emit)

    def _emit(self, signal: str, body: bytes) -> None:
        self._store.insert_segment(f"land_{signal}", framed(body), token())


def up(
    store: Store,
    instance: str,
    pod: str,
    namespace: str = "models",
    node: str = "n1",
    seconds: float = 0.0,
    down: float | None = None,
    **more: str,
) -> None:
    """An agent reads the pages of a server, in the pod that it is in itself, until it does not answer."""
    whose = attributes(Target(instance, "chat"), Place(pod=pod, namespace=namespace, node=node)) | more

    def emit(signal: str, body: bytes) -> None:
        store.insert_segment(f"land_{signal}", framed(body), token())

    follower = Follower(instance, whose)
    follower.stranger(Moment(ns(seconds)), emit)
    if down is not None:
        follower.down("refused", ns(down), emit)


def works(store: Store) -> list[tuple[Any, ...]]:
    """(instance, gpu) of who runs where."""
    return [(row["instance"], row["gpu"]) for row in store.rows(WORKS)]
