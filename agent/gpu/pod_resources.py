"""Which pods have which GPUs, as the kubelet of this node tells over its socket.

Devices are those that device plugins handed out, by the ids that these gave them, and those that claims were made for:

- NVIDIA's plugin gives the UUID of a GPU or part, with ``::0``, ``::1``, … where it hands one out several times.
- Google's on GKE gives the name of the device file, ``nvidia0``; of a part with the number of its GPU instance,
  ``nvidia0/gi3``; of what it hands out several times ``/vgpu0``, ``/vgpu1``, … beside.
- NVIDIA's driver for claims (DRA) gives the number of that file, ``gpu-0``, in each release since 25.3.0. Its parts
  have profile and place in their names, ``gpu-0-mig-1g10gb-19-4``: where a part lies NVML tells a privileged user
  alone, so that these, and GPUs lent to virtual machines (``gpu-vfio-0``), are told as not understood.

Numbers become UUIDs by what the driver tells of them, where this agent has it.

API: https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/device-plugins/. Ids:
https://github.com/NVIDIA/k8s-device-plugin;
https://github.com/GoogleCloudPlatform/container-engine-accelerators (``pkg/gpu/nvidia``: ``mig/mig.go``,
``gpusharing/gpusharing.go``); https://github.com/kubernetes-sigs/dra-driver-nvidia-gpu
(``cmd/gpu-kubelet-plugin``: ``deviceinfo.go``, ``mig.go``; pull request 428).
"""

from __future__ import annotations

import re
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from agent.gpu_pods import MOST_HOLDINGS, Holding
from base.formats import spell

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

PATIENCE_SECONDS: Final = 5.0
MOST_BYTES: Final = 16 << 20
_METHOD: Final = "/v1.PodResourcesLister/List"
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MOST_BYTES),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),  # one that waits to connect again would not ask a kubelet that is back
)
_UUID: Final = re.compile(r"((?:GPU|MIG)-[0-9A-Za-z-]{1,100}(?:/\d{1,3}/\d{1,3})?)(?:::\d{1,5})?")
_FILE: Final = re.compile(r"nvidia(\d{1,5})(?:/gi(\d{1,3}))?(?:/vgpu\d{1,5})?")
_CLAIMED: Final = re.compile(r"gpu-(\d{1,5})()")
_RESOURCES: Final = ("nvidia.com/gpu", "nvidia.com/mig-")
_DRIVER: Final = "gpu.nvidia.com"
_TEXT_KEPT: Final = 300
_STRANGE_KEPT: Final = 64

_Field: Final = descriptor_pb2.FieldDescriptorProto
_MESSAGES: Final[dict[str, tuple[tuple[str, int, str], ...]]] = {
    "ListPodResourcesResponse": (("pod_resources", 1, "PodResources"),),
    "PodResources": (("name", 1, ""), ("namespace", 2, ""), ("containers", 3, "ContainerResources")),
    "ContainerResources": (("devices", 2, "ContainerDevices"), ("dynamic_resources", 5, "DynamicResource")),
    "ContainerDevices": (("resource_name", 1, ""), ("device_ids", 2, "string")),
    "DynamicResource": (("claim_resources", 4, "ClaimResource"),),
    "ClaimResource": (("driver_name", 2, ""), ("device_name", 4, "")),
}
"""What is read of each message: field name, number, and of what it has many; "" is one string."""


Numbers = tuple[int, int | None]
"""Minor number of a GPU, and GPU instance of a part of it; None of the whole."""
_NONE: Final[Mapping[Numbers, str]] = MappingProxyType({})


class KubeletError(Exception):
    """The kubelet does not tell; says why."""


class Told(NamedTuple):
    """What the kubelet told.

    Attributes:
        holdings: Each once, however many containers and shares of a GPU a pod has.
        strange: Ids of NVIDIA's devices of which it is unknown which GPU they are.
        passed_over: Holdings beyond the bound.
    """

    holdings: frozenset[Holding]
    strange: frozenset[str]
    passed_over: int


@cache
def answer() -> Any:
    """The answer's protobuf class. What is not described of it is skipped."""
    file = descriptor_pb2.FileDescriptorProto(name="servescope/pod_resources.proto", package="v1", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for one, number, many in fields:
            field = message.field.add(name=one, number=number, type=_Field.TYPE_STRING)
            field.label = _Field.LABEL_REPEATED if many else _Field.LABEL_OPTIONAL
            if many in _MESSAGES:
                field.type, field.type_name = _Field.TYPE_MESSAGE, f".v1.{many}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("v1.ListPodResourcesResponse"))


async def ask(
    socket: Path, patience_seconds: float = PATIENCE_SECONDS, numbered: Mapping[Numbers, str] = _NONE
) -> Told:
    """Ask the kubelet once, over a connection of its own.

    Args:
        socket: The kubelet's.
        patience_seconds: How long an answer may take.
        numbered: UUIDs of this machine's GPUs.

    Raises:
        KubeletError: It refuses, hangs, tells more than 16 MiB, or what no kubelet tells.
    """
    import grpc  # noqa: PLC0415 - 20 MB that only nodes of Kubernetes pay

    async with grpc.aio.insecure_channel(f"unix:{socket}", options=_OPTIONS) as channel:
        call = channel.unary_unary(_METHOD)  # without serializers: bytes as they come
        try:
            body = await call(b"", timeout=patience_seconds)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise KubeletError(f"no answer within {spell(patience_seconds)}") from error
            raise KubeletError((error.details() or error.code().name)[:_TEXT_KEPT]) from error
    return told(body, numbered)


def told(body: bytes, numbered: Mapping[Numbers, str] = _NONE) -> Told:
    """Read an answer.

    Args:
        body: It.
        numbered: UUIDs of this machine's GPUs.

    Raises:
        KubeletError: It is none.
    """
    try:
        message = answer().FromString(body)
    except DecodeError as error:
        raise KubeletError("an answer that cannot be decoded") from error
    found: set[Holding] = set()
    strange: set[str] = set()
    beyond = 0
    for pod in message.pod_resources:
        for device, numbers in _devices(pod):
            uuid = _uuid(device, numbers, numbered)
            if not uuid:
                if len(strange) < _STRANGE_KEPT:
                    strange.add(device[:_TEXT_KEPT])
                continue
            holding = Holding(uuid, pod.namespace, pod.name)
            if len(found) < MOST_HOLDINGS:
                found.add(holding)
            elif holding not in found:
                beyond += 1
    return Told(frozenset(found), frozenset(strange), beyond)


def _uuid(device: str, numbers: re.Pattern[str], numbered: Mapping[Numbers, str]) -> str:
    """UUID of a device, "" where it has none here."""
    if uuid := _UUID.fullmatch(device):
        return uuid[1]
    named = numbers.fullmatch(device)
    return numbered.get((int(named[1]), int(named[2]) if named[2] else None), "") if named else ""


def _devices(pod: Any) -> Iterator[tuple[str, re.Pattern[str]]]:
    """Ids of its GPUs, and how who gave them writes numbers; what no UUID tells to be one must be named as NVIDIA's."""
    for container in pod.containers:
        for devices in container.devices:
            named = devices.resource_name.startswith(_RESOURCES)
            yield from ((one, _FILE) for one in devices.device_ids if named or _UUID.fullmatch(one))
        for resource in container.dynamic_resources:
            for claimed in resource.claim_resources:
                if claimed.driver_name == _DRIVER:
                    yield claimed.device_name, _CLAIMED
