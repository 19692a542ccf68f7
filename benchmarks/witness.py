"""The agent's end of the probe in a process of its own, that counts what came.

Datagrams are read, decoded, made into rows and written to a spool by the agent's own parts; nothing is shipped, and no
page is scraped.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from agent.config import AgentConfig
from agent.host.engines import Engines
from agent.source import METRICS, Scene
from agent.sources.probe import Probe
from agent.spool.writer import SpoolWriter, producer_folder
from agent.target import Place, Target
from base.vocabulary import EVENT_STEPS, Edge

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

INSTANCE: Final = "vllm-a"
"""What the server calls itself."""
_STOP_SECONDS: Final = 30.0


@dataclass(slots=True)
class Received:
    """What the agent made of all that it was told.

    Attributes:
        steps: Rows of engine steps.
        tokens: That these generated.
        requests: Rows of requests to a model, by the middleware.
        lost: Records that were dropped anywhere.
    """

    steps: int = 0
    tokens: int = 0
    requests: int = 0
    lost: int = 0

    def add(self, more: Received) -> None:
        """Count these too."""
        self.steps += more.steps
        self.tokens += more.tokens
        self.requests += more.requests
        self.lost += more.lost


def tally(told: Iterable[tuple[str, bytes]]) -> Received:
    """Count the rows in OTLP bodies; those that were lost are in none.

    Args:
        told: Signal and body of each.
    """
    found = Received()
    for signal, body in told:
        if signal == "logs":
            for group in ExportLogsServiceRequest.FromString(body).resource_logs:
                for record in (one for scope in group.scope_logs for one in scope.log_records):
                    if record.event_name == EVENT_STEPS:
                        columns = {pair.key: pair.value.array_value.values for pair in record.attributes}
                        found.steps += max(map(len, columns.values()), default=0)
                        found.tokens += sum(value.int_value for value in columns.get("generation_tokens", ()))
        elif signal == "traces":
            for spans in ExportTraceServiceRequest.FromString(body).resource_spans:
                for span in (one for scope in spans.scope_spans for one in scope.spans):
                    found.requests += any(pair.key == Edge.OPERATION for pair in span.attributes)
    return found


class Witness:
    """Listens until it is closed.

    Args:
        folder: Data folder of that agent.
        port: Of the server, by which its process is found.
        cores: Where it runs.

    Attributes:
        socket: Where probes tell it.
    """

    def __init__(self, folder: Path, port: int, cores: set[int]) -> None:
        self.socket = folder / "run" / "probe.sock"
        self._pipe, theirs = multiprocessing.Pipe()
        start = multiprocessing.get_context("spawn").Process
        self._process = start(target=_live, args=(folder, self.socket, port, cores, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe.recv()

    def ask(self) -> Received:
        """What came since it was asked last."""
        self._pipe.send("what came")
        answer = self._pipe.recv()
        assert isinstance(answer, Received)  # noqa: S101 - what mypy has to be told
        return answer

    def close(self) -> None:
        """End it."""
        self._pipe.close()
        self._process.join(_STOP_SECONDS)


def _live(folder: Path, socket: Path, port: int, cores: set[int], pipe: Any) -> None:
    os.sched_setaffinity(0, cores)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout is for figures alone
    asyncio.run(_listen(folder, socket, port, pipe))


async def _listen(folder: Path, socket: Path, port: int, pipe: Any) -> None:
    targets = (Target(INSTANCE, "serving", "vllm", url=f"http://127.0.0.1:{port}"),)
    source = Probe(Scene(AgentConfig(), Place(), targets, lambda _: None, folder, Engines(targets)), socket)
    spool = SpoolWriter(producer_folder(folder / "spool", "agent"))
    told: list[tuple[str, bytes]] = []
    before = 0

    def emit(signal: Any, body: bytes) -> bool:
        told.append((signal, body))
        return spool.append(signal, body)

    def answer() -> None:
        nonlocal before
        try:
            pipe.recv()
        except EOFError:  # nobody will ask again
            running.cancel()
            return
        source.flush()
        received = tally(told)
        told.clear()
        lost = _lost(source) + sum(spool.dropped.values())
        received.lost, before = lost - before, lost
        pipe.send(received)

    await source.open()
    running = asyncio.create_task(source.run(emit))
    asyncio.get_running_loop().add_reader(pipe.fileno(), answer)
    pipe.send("listening")
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await source.close()


def _lost(source: Probe) -> int:
    return sum(
        int(sample.value)
        for family in source.metrics()
        if family.name == f"{METRICS}_probe_lost"
        for sample in family.samples
    )
