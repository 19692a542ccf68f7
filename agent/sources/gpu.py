"""Every GPU of this machine through NVIDIA's driver library, once a second.

A missing driver is told once and looked for again each minute, and its binding (13 MB) is loaded only once there is
one; what a GPU does not have is told once and left out. A call that hangs is left behind with its GPU, and the others
go on; one that fell off the bus is told and tried again with the driver's next look.
"""

from __future__ import annotations

import asyncio
import ctypes
import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

from agent.gpu import faults
from agent.gpu.device import Device, cut_anew, devices, numbered
from agent.gpu.driver import OPENING_PATIENCE_SECONDS, PATIENCE_SECONDS, Caller, HungError
from agent.gpu.looking import begin_inside, look
from agent.gpu.processes import processes
from agent.gpu_table import TOTALS
from agent.host.engines import Engines, rank_of
from agent.otlp.encode import attributes, encode_event, encode_gauges, resource
from agent.source import METRICS, Source
from agent.target import Place
from base.vocabulary import SCOPE_GPU, Resource

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from prometheus_client.metrics_core import Metric

    from agent.gpu.pod_resources import Numbers
    from agent.otlp.emit import Emit
    from agent.source import Scene
    from agent.target import Target

    _Row = tuple[bytes, Mapping[str, float]]

INTERVAL_SECONDS: Final = 1.0
_LOOK_AGAIN_SECONDS: Final = 60.0
_HUNG_SECONDS: Final = 1.0
_SELDOM: Final = 10
"""Rounds between two looks at what hardly changes."""
_TOLD_KEPT: Final = 256
_EVENTS_KEPT: Final = 1024

log = structlog.get_logger()


class Gpus(Source):
    """Samples all GPUs.

    Args:
        place: Where this agent runs.
        engines: Whose processes they run.
        interval_seconds: Time between two samples.
        look_again_seconds: Time until the driver is looked for, or a GPU that was lost, again.
        patience_seconds: How long a round of calls may take.
        opening_patience_seconds: How long opening the driver and its GPUs may take.
        nvml: A module with pynvml's functions; None loads it once there is a driver.
        numbers: Given the UUIDs of GPUs and parts by their numbers, each time that they are opened.
    """

    def __init__(
        self,
        place: Place | None = None,
        engines: Engines | None = None,
        *,
        interval_seconds: float = INTERVAL_SECONDS,
        look_again_seconds: float = _LOOK_AGAIN_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
        opening_patience_seconds: float = OPENING_PATIENCE_SECONDS,
        nvml: Any = None,
        numbers: dict[Numbers, str] | None = None,
    ) -> None:
        self._place = attributes(None, place or Place())
        self._where = place or Place()
        self._engines = engines or Engines()
        self._interval = interval_seconds
        self._look_again = look_again_seconds
        self._caller = Caller(patience_seconds)
        self._opening_patience = opening_patience_seconds
        self._nvml = nvml
        self._numbers = numbers if numbers is not None else {}
        self._told: set[str] = set()  # not said again until it changed
        # Written by the driver's threads, handed out on the event loop: an Emit need not be thread-safe.
        self._events: deque[bytes] = deque(maxlen=_EVENTS_KEPT)
        self._gpus: list[Device] = []
        self._unopenable: set[int] = set()
        self._asked = ""
        self._xids: dict[str, int] = {}
        self._hangs = 0
        self._faults: faults.Faults | None = None
        # What the driver was asked for when it did not answer, while its answer is awaited.
        self._awaited = ""
        # Who opens for this run: what another run's thread opened late is let go by that thread.
        self._run: object = None
        self._handing_over = threading.Lock()
        # Of the round that is being read: one that hung must not go on beside the next.
        self._rows: list[_Row] = []

    def watch(self, targets: Sequence[Target]) -> None:
        """Join the processes of these too."""
        self._engines.watch(targets)

    def forget(self, targets: Sequence[Target]) -> None:
        """Join the processes of these no longer."""
        self._engines.forget(targets)

    def metrics(self) -> Iterable[Metric]:
        """GPUs that are sampled, and calls of the driver that hung."""
        yield GaugeMetricFamily(f"{METRICS}_gpus", "GPUs, and parts of GPUs, that answer",
                                value=sum(gpu.answers for gpu in self._gpus))  # fmt: skip
        yield CounterMetricFamily(f"{METRICS}_gpu_calls_hung", "Calls of the GPU driver that did not return in time",
                                  value=self._hangs)  # fmt: skip

    def problems(self, now: float, since: float) -> Iterable[str]:  # noqa: ARG002 - of this moment
        """GPUs that were there and do not answer, and a driver that does not."""
        if self._awaited:
            yield self._awaited
        for gpu in self._gpus:
            if not gpu.answers:
                yield f"{gpu.name} does not answer"
        for index in sorted(self._unopenable):
            yield f"GPU {index} cannot be opened"
        if self._faults is not None and self._faults.problem:
            yield f"Faults of GPUs (Xid) are not watched: {self._faults.problem}"

    async def run(self, emit: Emit) -> None:
        """Sample until cancelled."""
        self._run = run = object()
        self._nvml = self._nvml or await self._binding(emit)
        try:
            while True:
                try:
                    await self._caller.call(self._open, run, patience_seconds=self._opening_patience)
                except HungError as hung:
                    self._awaited = f"The GPU driver does not answer when asked for {self._asked or 'its GPUs'}"
                    self._hung(self._awaited, {})
                    self._hand_out(emit)
                    await self._returned(hung)
                    self._awaited = ""
                self._hand_out(emit)
                again = False
                if self._gpus:
                    self._numbers.clear()
                    self._numbers.update(numbered(self._gpus))
                    try:
                        again = await self._follow(emit)
                    finally:
                        await self._close()
                await asyncio.sleep(0 if again else self._look_again)
        finally:
            with self._handing_over:
                self._run = None
            await self._close()

    async def _returned(self, hung: HungError) -> None:
        while not hung.over.is_set():  # noqa: ASYNC110 - its thread may be stuck for good, and tells nobody
            await asyncio.sleep(min(_HUNG_SECONDS, self._look_again))

    async def _binding(self, emit: Emit) -> Any:
        if not _has_driver():
            self._say("gpu_unavailable", "No GPU can be watched: this machine has no NVIDIA driver", {})
            self._hand_out(emit)
            while not _has_driver():  # noqa: ASYNC110 - nobody tells when a driver is installed
                await asyncio.sleep(self._look_again)
        import pynvml  # noqa: PLC0415 - see above

        return pynvml

    def _hand_out(self, emit: Emit) -> None:
        while self._events:
            emit("logs", self._events.popleft())

    # What follows until `_follow` runs in the driver's thread.

    def _open(self, run: object) -> None:
        nvml = self._nvml
        self._asked = ""
        self._unopenable = set()
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            self._say("gpu_unavailable", f"No GPU can be watched: {error}", {})
            return
        found = []
        try:
            found = [gpu for gpu in devices(nvml, self._place, self._unopened, self._ask) if self._first(gpu)]
        except nvml.NVMLError as error:
            self._say("gpu_unavailable", f"GPUs cannot be counted: {error}", {}, warning=True)
        if not found:
            self._say("gpu_unavailable", "No GPU can be watched: the driver finds none that answers", {})
            self._shutdown([], None)
            return
        watch = faults.Faults(nvml, [gpu for gpu in found if gpu.part is None], self._xid)
        with self._handing_over:
            if wanted := run is self._run:
                self._gpus, self._faults = found, watch
        if not wanted:
            self._shutdown(found, watch)
            return
        for gpu in found:
            self._introduce(gpu)

    def _ask_about(self, gpu: Device) -> None:
        self._asked = gpu.identity["hw.id"]

    def _ask(self, index: int) -> None:
        self._asked = f"GPU {index}"

    def _unopened(self, index: int, error: Exception) -> None:
        self._unopenable.add(index)
        self._say("gpu_unavailable", f"GPU {index} cannot be opened: {error}", {}, warning=True)

    def _first(self, gpu: Device) -> bool:
        """Whether it answers at all; finds out what it does not have."""
        begin_inside(self._nvml, gpu)
        answers = bool(self._sample(gpu, seldom=True))
        if answers:
            self._processes(gpu)
        return answers

    def _introduce(self, gpu: Device) -> None:
        """Say what it is and what it does not have, again where that became more."""
        if gpu.said == len(gpu.unsupported):
            return
        gpu.said = len(gpu.unsupported)
        without = ", ".join(sorted(gpu.unsupported))
        what = f"{gpu.name} is a {gpu.identity['hw.name']}"
        message = what + (f"; it does not tell: {without}" if without else "")
        self._say("gpu_found", message, {**gpu.identity, "unsupported": without})

    def _shutdown(self, gpus: Sequence[Device], watch: faults.Faults | None) -> None:
        if watch is not None:
            watch.close()
        try:
            for gpu in gpus:
                if gpu.activity is not None:
                    gpu.activity.close()
            self._nvml.nvmlShutdown()
        except self._nvml.NVMLError as error:
            log.warning("nvml_shutdown_failed", error=str(error))

    def _sample(self, gpu: Device, *, seldom: bool) -> dict[str, float]:
        values, problem = look(self._nvml, gpu, seldom=seldom)
        if values and gpu.part is None and "Xid events" not in gpu.unsupported:
            values["xid_total"] = float(self._xids.get(gpu.identity["hw.id"], 0))
        if problem is not None:
            gpu.lost = True
            message = f"{gpu.name} stopped answering: {problem}"
            self._forget(gpu)
            self._say("gpu_unavailable", message, gpu.identity, warning=True)
        return values

    def _round(self, gpus: Sequence[Device], rows: list[_Row], *, seldom: bool) -> None:
        """Add a row of each GPU and of each process on one; ``rows`` has what was read also where a call hangs."""
        self._rows = rows
        for gpu in gpus:
            self._asked = gpu.identity["hw.id"]
            values = self._sample(gpu, seldom=seldom)
            if self._rows is not rows:
                return  # this round was given up: the others are another thread's
            if values:
                rows.append((gpu.resource, values))
            if values and seldom:
                rows += self._processes(gpu)
            if values:
                self._introduce(gpu)

    def _processes(self, gpu: Device) -> list[_Row]:
        try:
            found = processes(self._nvml, gpu)
        except self._nvml.NVMLError as error:
            log.debug("gpu_processes_unreadable", gpu=gpu.name, error=str(error))
            return []
        rows: list[_Row] = []
        for pid, values in found.items():
            owner = self._engines.owner(pid)
            target, name = owner or (None, "")
            whose = attributes(target, self._where) | gpu.whose | {"process.pid": str(pid)}
            rank = rank_of(name)
            more = {"process.name": name, Resource.RANK: rank}
            rows.append((resource(whose | {key: value for key, value in more.items() if value}), values))
        return rows

    def _xid(self, gpu: Device, xid: int) -> None:
        uuid = gpu.identity["hw.id"]
        self._xids[uuid] = self._xids.get(uuid, 0) + 1
        message = f"{gpu.name} reports Xid {xid}: {faults.meaning(xid)}"
        log.warning("gpu_xid", message=message)
        details = {**gpu.identity, "xid": str(xid)}
        self._events.append(encode_event(self._place, "gpu_xid", message, time.time_ns(), details, warning=True))

    # What follows runs on the event loop.

    async def _follow(self, emit: Emit) -> bool:
        """Until no GPU answers, or one is to be looked for again (True)."""
        loop = asyncio.get_running_loop()
        start, turn, seldom, again = loop.time(), 0, 0, loop.time() + self._look_again
        while any(gpu.answers or gpu.hung for gpu in self._gpus):
            self._unhang()
            stuck = any(gpu.hung is not None for gpu in self._gpus)  # it would be asked again as it is opened
            if loop.time() >= again and not stuck:
                # the driver sees a GPU that came back, and MIG's new parts are opened, only when it is opened anew
                if self._unopenable or any(gpu.lost for gpu in self._gpus) or await self._cut_anew():
                    return True
                again = loop.time() + self._look_again
            await self._engines.look(loop.time())
            rows: list[_Row] = []
            answering = [gpu for gpu in self._gpus if gpu.answers]
            time_ns, due = time.time_ns(), turn >= seldom
            try:
                if answering:
                    await self._caller.call(partial(self._round, answering, rows, seldom=due))
            except HungError as hung:
                self._rows = []
                self._abandon(hung)
            seldom = turn + _SELDOM if due else seldom
            self._hand_out(emit)
            if rows:
                emit("metrics", encode_gauges(rows, SCOPE_GPU, time_ns, TOTALS))
            turn = max(turn + 1, int((loop.time() - start) / self._interval) + 1)
            await asyncio.sleep(max(0.0, start + turn * self._interval - loop.time()))
        return False

    async def _cut_anew(self) -> bool:
        try:
            return await self._caller.call(cut_anew, self._nvml, self._gpus, self._ask_about)
        except HungError as hung:
            self._abandon(hung)
            return False

    def _abandon(self, hung: HungError) -> None:
        for gpu in self._gpus:
            if gpu.identity["hw.id"] == self._asked:
                gpu.hung = hung.over
                message = f"The driver does not answer about {gpu.name}: it has no figures until it does"
                self._hung(message, gpu.identity)

    def _unhang(self) -> None:
        for gpu in self._gpus:
            if gpu.hung is not None and gpu.hung.is_set():
                gpu.hung = None
                self._forget(gpu)
                self._event("gpu_found", f"The driver answers about {gpu.name} again", gpu.identity)

    async def _close(self) -> None:
        """Let go of the driver; a library with a call in it is left as it is."""
        gpus, self._gpus = self._gpus, []
        watch, self._faults = self._faults, None
        if not gpus or any(gpu.hung is not None and not gpu.hung.is_set() for gpu in gpus):
            if watch is not None:
                watch.stop()
            self._caller.close()
            return
        try:
            await self._caller.call(self._shutdown, gpus, watch)
        except HungError:
            self._hung("The GPU driver does not answer when it is closed", {})
        self._caller.close()

    def _forget(self, gpu: Device) -> None:
        """Say again what was said of it: it changed."""
        self._told = {message for message in self._told if gpu.name not in message}

    def _hung(self, message: str, details: Mapping[str, str]) -> None:
        self._hangs += 1
        self._say("gpu_driver_hung", message, details, warning=True)

    def _say(self, event: str, message: str, details: Mapping[str, str], *, warning: bool = False) -> None:
        if message in self._told:
            return
        if len(self._told) >= _TOLD_KEPT:
            self._told.clear()
        self._told.add(message)
        self._event(event, message, details, warning=warning)

    def _event(self, event: str, message: str, details: Mapping[str, str], *, warning: bool = False) -> None:
        log.log(30 if warning else 20, event, message=message)
        self._events.append(encode_event(self._place, event, message, time.time_ns(), details, warning=warning))


def _has_driver() -> bool:
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


def source(scene: Scene) -> Gpus | None:
    """The GPUs, unless the configuration leaves them out."""
    if not scene.config.gpu:
        return None
    interval, numbers = scene.config.interval_seconds, scene.overheard.gpus
    return Gpus(scene.place, scene.engines, interval_seconds=interval, numbers=numbers)
