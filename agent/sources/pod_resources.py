"""Which pods have which GPUs of this node, by its kubelet, each quarter of a minute.

Where there is no kubelet's socket this is no node of Kubernetes, and nothing is told nor loaded. One that is there and
does not answer is told once, and once again when it does.
"""

from __future__ import annotations

import asyncio
import stat
import time
from typing import TYPE_CHECKING, Final

import structlog
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

from agent.gpu.pod_resources import PATIENCE_SECONDS, KubeletError, ask
from agent.gpu_pods import GpuPods, held_rows
from agent.otlp.encode import attributes, encode_event, encode_gauges
from agent.source import METRICS, Source
from agent.target import Place
from base.vocabulary import SCOPE_GPU

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from prometheus_client.metrics_core import Metric

    from agent.gpu.pod_resources import Numbers, Told
    from agent.otlp.emit import Emit
    from agent.source import Scene

INTERVAL_SECONDS: Final = 15.0
_LOOK_AGAIN_SECONDS: Final = 60.0
_NAMED: Final = 5
_TELLER: Final = "kubelet"

log = structlog.get_logger()


class PodResources(Source):
    """Asks the kubelet.

    Args:
        socket: Its own.
        place: Where this agent runs.
        pods: Since when pods have GPUs, whoever tells it in this agent.
        numbers: UUIDs of this machine's GPUs, as far as its driver told them.
        interval_seconds: Time between two looks.
        look_again_seconds: The same while there is no socket and never was.
        patience_seconds: How long an answer may take.
    """

    def __init__(
        self,
        socket: Path,
        place: Place | None = None,
        pods: GpuPods | None = None,
        numbers: Mapping[Numbers, str] | None = None,
        *,
        interval_seconds: float = INTERVAL_SECONDS,
        look_again_seconds: float = _LOOK_AGAIN_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._socket = socket
        self._place = attributes(None, place or Place())
        self._pods = pods or GpuPods()
        self._numbers = numbers if numbers is not None else {}
        self._interval = interval_seconds
        self._look_again = look_again_seconds
        self._patience = patience_seconds
        self._held = 0
        self._strange: frozenset[str] = frozenset()
        self._strange_told = False
        self._error = ""
        self._is_node = False
        self._looks = self._failures = self._passed_over = 0

    def metrics(self) -> Iterable[Metric]:
        """Looks at the kubelet's list, those that failed, and what was on the last."""
        for name, text, count in (
            ("pod_resources_looks", "Times that the kubelet was asked whose the GPUs are", self._looks),
            ("pod_resources_failures", "Times that it did not tell", self._failures),
            ("pod_resources_passed_over", "GPUs of pods beyond those that are told", self._passed_over),
        ):
            yield CounterMetricFamily(f"{METRICS}_{name}", text, value=count)
        yield GaugeMetricFamily(f"{METRICS}_pod_gpus", "GPUs, and parts of GPUs, of pods", value=self._held)

    def problems(self, now: float, since: float) -> Iterable[str]:  # noqa: ARG002 - of this moment
        """A kubelet that does not tell, or whose names of GPUs are nobody else's."""
        if self._error:
            yield self._untold()
        if self._strange:
            yield self._not_understood()

    async def run(self, emit: Emit) -> None:
        """Ask until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            begun = loop.time()
            if self._is_there():
                await self._look(emit)
            pause = self._interval if self._is_node else self._look_again
            await asyncio.sleep(max(0.0, begun + pause - loop.time()))

    def _is_there(self) -> bool:
        """Whether there is somebody to ask; one that was there and is gone counts as there."""
        try:
            self._is_node |= stat.S_ISSOCK(self._socket.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError:  # a folder that may not be looked into: asking tells why
            self._is_node = True
        return self._is_node

    async def _look(self, emit: Emit) -> None:
        self._looks += 1
        time_ns = time.time_ns()
        try:
            told = await ask(self._socket, self._patience, self._numbers)
        except KubeletError as error:
            self._failed(str(error), emit)
        except Exception as error:  # a fault of ours must not end this for good
            log.exception("pod_resources_failed")
            self._failed(type(error).__name__, emit)
        else:
            self._tell(told, time_ns, emit)

    def _failed(self, why: str, emit: Emit) -> None:
        self._failures += 1
        first, self._error = not self._error, why
        if first:
            self._event("gpu_pods_absent", self._untold(), emit, warning=True)

    def _tell(self, told: Told, time_ns: int, emit: Emit) -> None:
        if self._error:
            self._event("gpu_pods_back", "The kubelet tells again whose the GPUs are", emit)
        self._error = ""
        still, self._strange = bool(told.strange and self._strange), told.strange
        if still and not self._strange_told:  # at the first look the driver may not be open yet
            self._event("gpu_pods_absent", self._not_understood(), emit, warning=True)
        self._strange_told = still
        self._passed_over += told.passed_over
        held = self._pods.tell(_TELLER, told.holdings, time_ns // 1_000_000, first_hand=True)
        self._held = len(held)
        if held:
            emit("metrics", encode_gauges(held_rows(held, self._place), SCOPE_GPU, time_ns))

    def _untold(self) -> str:
        leave = "agent.pod_resources: null does not ask it"
        return f"The kubelet at {self._socket} does not tell whose the GPUs are ({leave}): {self._error}"

    def _not_understood(self) -> str:
        named = sorted(self._strange)
        more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        known = f"{', '.join(named[:_NAMED])}{more}"
        return f"Whose these GPUs are is unknown, what the kubelet calls them leads to no UUID: {known}"

    def _event(self, event: str, message: str, emit: Emit, *, warning: bool = False) -> None:
        log.log(30 if warning else 20, event, message=message)
        emit("logs", encode_event(self._place, event, message, time.time_ns(), warning=warning))


def source(scene: Scene) -> PodResources | None:
    """The kubelet of this node, unless the configuration leaves it out."""
    if scene.config.pod_resources is None:
        return None
    return PodResources(scene.config.pod_resources, scene.place, scene.pods, scene.overheard.gpus)
