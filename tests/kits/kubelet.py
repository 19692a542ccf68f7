"""A kubelet as far as its socket goes: the service of its pods' devices, by gRPC."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

import grpc

from agent.gpu.pod_resources import answer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    Devices = Mapping[str, Sequence[str]]


class Kubelet:
    """Answers on a socket; a context that stops it, and may be entered again.

    Args:
        socket: Where.

    Attributes:
        asked: Requests so far.
    """

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.asked = 0
        self._answer = answer()()
        self._answers = asyncio.Event()
        self._answers.set()
        self._refusal: tuple[grpc.StatusCode, str] | None = None
        self._padding = 0
        self._server: Any = None

    def put(self, pod: str, *containers: Devices, namespace: str = "models") -> None:
        """A pod with containers, each its ids by resource."""
        one = self._answer.pod_resources.add(name=pod, namespace=namespace)
        for devices in containers:
            container = one.containers.add()
            for name, ids in devices.items():
                container.devices.add(resource_name=name, device_ids=ids)

    def claim(self, pod: str, driver: str, device: str, namespace: str = "models") -> None:
        """A pod with a device that a claim was made for."""
        container = self._answer.pod_resources.add(name=pod, namespace=namespace).containers.add()
        container.dynamic_resources.add().claim_resources.add(driver_name=driver, device_name=device)

    def drop(self, pod: str) -> None:
        """It is gone."""
        left = [one for one in self._answer.pod_resources if one.name != pod]
        self._answer = answer()(pod_resources=left)

    def hang(self) -> None:
        """It answers no more, until `recover`."""
        self._answers.clear()

    def refuse(self, code: grpc.StatusCode, why: str) -> None:
        """It answers with an error, until `recover`."""
        self._refusal = code, why

    def pad(self, size: int) -> None:
        """Its answer has so many bytes more, of a field that nobody knows."""
        self._padding = size

    def recover(self) -> None:
        """All is well again."""
        self._refusal = None
        self._answers.set()

    async def _list(self, _request: bytes, context: Any) -> bytes:
        self.asked += 1
        await self._answers.wait()
        if self._refusal is not None:
            await context.abort(*self._refusal)
        unknown = b"\xfa\x01" + _varint(self._padding) + b"x" * self._padding if self._padding else b""
        return bytes(self._answer.SerializeToString()) + unknown

    async def __aenter__(self) -> Self:
        self._server = grpc.aio.server(options=(("grpc.max_send_message_length", -1),))
        method = grpc.unary_unary_rpc_method_handler(self._list)
        handlers = grpc.method_handlers_generic_handler("v1.PodResourcesLister", {"List": method})
        self._server.add_generic_rpc_handlers((handlers,))
        self._server.add_insecure_port(f"unix:{self.socket}")
        await self._server.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._answers.set()
        await self._server.stop(None)
        self.socket.unlink(missing_ok=True)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes((*out, value))
