"""The real binding over a stub of NVIDIA's driver library, built with this machine's compiler."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from agent.sources.gpu import Gpus
from agent.target import Place
from benchmarks.stub import NoCompilerError, load
from tests.kits.needs import lack

if TYPE_CHECKING:
    import ctypes
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

SOON = 30.0
NOT_SUPPORTED, NO_PERMISSION, FUNCTION_NOT_FOUND, LOST, UNKNOWN = 3, 4, 13, 15, 999


class Driver:
    """What the stub answers."""

    def __init__(self, folder: Path) -> None:
        try:
            self._stub: ctypes.CDLL = load(folder)
        except NoCompilerError as error:
            lack(str(error))

    def reset(self, gpus: int, *, loaded: bool = True) -> None:
        """So many GPUs, and nothing wrong with them."""
        self._stub.stub_reset(gpus, int(loaded))

    def refuse(self, call: str, code: int = NOT_SUPPORTED, gpu: int = -1) -> None:
        """A call answers with an error, of one GPU or of all."""
        self._stub.stub_rule(gpu, call.encode(), code)

    def hang(self, call: str, gpu: int = -1) -> None:
        """A call does not return until `answer`."""
        self.refuse(call, -1, gpu)

    def answer(self) -> None:
        """All calls return, and none fails."""
        self._stub.stub_rules_over()

    @property
    def hanging(self) -> int:
        """Calls that do not return at this moment."""
        return int(self._stub.stub_hanging())

    def lose(self, gpu: int, *, lost: bool = True) -> None:
        """A GPU falls off the bus, or is back."""
        self._stub.stub_lose(gpu, int(lost))

    def cut(self, gpu: int, parts: int) -> None:
        """MIG cuts a GPU into parts."""
        self._stub.stub_mig(gpu, parts)

    def run(self, gpu: int, pid: int, used: int, percent: int) -> None:
        """A process uses a GPU."""
        self._stub.stub_process(gpu, pid, used, percent)

    def xid(self, gpu: int, number: int) -> None:
        """A GPU reports a fault."""
        self._stub.stub_xid(gpu, number)


class Seen:
    """What a source emitted."""

    def __init__(self) -> None:
        self.rows: list[tuple[dict[str, str], dict[str, float]]] = []
        self.events: list[tuple[str, str]] = []
        self._news = asyncio.Event()

    def emit(self, signal: str, body: bytes) -> None:
        """Take one body."""
        if signal == "metrics":
            for one in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                assert one.scope_metrics[0].scope.name == "servescope.gpu"
                whose = {pair.key: pair.value.string_value for pair in one.resource.attributes}
                values = {
                    found.name: (found.gauge.data_points or found.sum.data_points)[0].as_double
                    for found in one.scope_metrics[0].metrics
                }
                self.rows.append((whose, values))
        else:
            record = ExportLogsServiceRequest.FromString(body).resource_logs[0].scope_logs[0].log_records[0]
            self.events.append((record.event_name, record.body.string_value))
        self._news.set()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for something emitted to make it true."""
        async with asyncio.timeout(SOON):
            while not condition():
                self._news.clear()
                await self._news.wait()

    def of(self, gpu: str) -> list[dict[str, float]]:
        """Figures of a GPU itself."""
        return [values for whose, values in self.rows if whose["hw.id"] == gpu and "process.pid" not in whose]

    def told(self, event: str) -> list[str]:
        """Messages of an event."""
        return [message for name, message in self.events if name == event]


@asynccontextmanager
async def watching(**more: Any) -> AsyncIterator[Seen]:
    """A source that samples as fast as it can."""
    seen = Seen()
    gpus = Gpus(Place(node="n1"), **{"interval_seconds": 0.02, **more})
    task = asyncio.create_task(gpus.run(seen.emit))
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
