"""A socket that a probe writes to, and an agent's source that reads it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from servescope_probe import wire
from servescope_probe.sender import Sender

from agent.config import AgentConfig
from agent.probe import datagram
from agent.source import Scene
from agent.sources.probe import Probe
from agent.target import Known, Place, Target

if TYPE_CHECKING:
    from pathlib import Path

VLLM = Target("vllm-a", "chat", "vllm")
STEP = wire.STEP_BODY.pack(1, 0, 10**18 + 7, *[-1] * 4, 0.25, *[-1] * 20, float("nan"))
"""Of a step of which little is known."""


class Mailbox:
    """The agent's end of the socket, read by hand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(str(path))
        self._senders: list[Sender] = []

    def sender(self, instance: str = "vllm-a") -> Sender:
        """A probe's, which ends with the mailbox."""
        self._senders.append(Sender(str(self.path), instance))
        return self._senders[-1]

    def raw(self) -> list[bytes]:
        found = []
        while True:
            try:
                found.append(self.socket.recv(65_536))
            except BlockingIOError:
                return found

    def datagrams(self) -> list[datagram.Datagram]:
        return [datagram.read(data) for data in self.raw()]

    def records(self) -> list[datagram.Record]:
        return [record for told in self.datagrams() for record in told.records]

    def close(self) -> None:
        for sender in self._senders:
            sender.close()
        self.socket.close()
        self.path.unlink(missing_ok=True)


class Listener:
    """A source without its loop: what is taken is emitted at ``flush``."""

    def __init__(self, folder: Path, *targets: Target, **config: Any) -> None:
        settings = AgentConfig.model_validate(config)
        scene = Scene(
            settings, Place(node="here"), targets or (VLLM,), lambda _instance: Known("vllm", "0.32.0", "tiny"), folder
        )
        self.source = Probe(scene, folder / "probe.sock")
        self.bodies: list[tuple[str, bytes]] = []
        self.source._emit = lambda signal, body: self.bodies.append((signal, body))

    def tables(self) -> list[tuple[dict[str, str], str, dict[str, list[Any]]]]:
        """Resource, event and columns of each log record so far."""
        found = []
        for signal, body in self.bodies:
            if signal == "logs":
                for group in ExportLogsServiceRequest.FromString(body).resource_logs:
                    whose = {pair.key: pair.value.string_value for pair in group.resource.attributes}
                    for record in group.scope_logs[0].log_records:
                        columns = {
                            pair.key: [_value(one) for one in pair.value.array_value.values]
                            for pair in record.attributes
                        }
                        found.append((whose, record.event_name, columns))
        return found

    def spans(self) -> list[Any]:
        return [
            span
            for signal, body in self.bodies
            if signal == "traces"
            for group in ExportTraceServiceRequest.FromString(body).resource_spans
            for span in group.scope_spans[0].spans
        ]


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind else None
