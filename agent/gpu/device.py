"""The GPUs of this machine, and the parts that MIG cuts one into."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from agent.otlp.encode import resource

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from agent.gpu.activity import Activity
    from agent.gpu.pod_resources import Numbers

PARTS_KEPT: Final = 16
"""Parts of one GPU; NVIDIA's have 7 at most."""


@dataclass(slots=True)
class Device:
    """One GPU, or one part of one.

    Attributes:
        handle: The driver's own.
        identity: Resource attributes: ``hw.id``, ``hw.name``, ``hw.index``, of a part also ``hw.parent``.
        whose: Resource attributes of its records.
        resource: The same as bytes.
        part: The part's number (NVML's GPU instance); None of a whole GPU.
        parent: The driver's own handle of the GPU that a part is of.
        minor: Of the whole GPU's device file (/dev/nvidiaN), by which some device plugins name it; None where unknown.
        unsupported: What it said it does not have: never asked for again.
        activity: What runs inside it, where the driver counts that.
        counters: Counters as they last stood, by name: (Unix seconds, bytes).
        processes_since: Driver time (µs) of the newest process figure that was read.
        lost: It stopped answering.
        hung: Set while a call about it has not returned.
        cut: Of a whole GPU, the parts that it was cut into when it was opened.
        said: How much it lacked when that was said last; None before.
    """

    handle: Any
    identity: dict[str, str]
    whose: dict[str, str]
    resource: bytes = b""
    part: int | None = None
    parent: Any = None
    minor: int | None = None
    unsupported: set[str] = field(default_factory=set)
    activity: Activity | None = None
    counters: dict[str, tuple[float, float]] = field(default_factory=dict)
    processes_since: int = 0
    lost: bool = False
    hung: threading.Event | None = None
    cut: frozenset[str] = frozenset()
    said: int | None = None

    def __post_init__(self) -> None:
        self.resource = resource(self.whose)

    @property
    def name(self) -> str:
        """For people: ``GPU 3 (GPU-…)``."""
        return f"GPU {self.identity['hw.index']} ({self.identity['hw.id']})"

    @property
    def answers(self) -> bool:
        """Whether it is worth a call."""
        return not self.lost and self.hung is None


def devices(
    nvml: Any, place: Mapping[str, str], failed: Callable[[int, Exception], None], at: Callable[[int], None]
) -> Iterator[Device]:
    """All GPUs and their parts.

    Args:
        nvml: The binding.
        place: Resource attributes of this machine.
        failed: Told the index of one that can't be opened.
        at: Told the index of the one that is asked next, should that hang.
    """
    whole = {**place, "hw.type": "gpu"}
    version = _driver(nvml)
    for index in range(int(nvml.nvmlDeviceGetCount())):
        at(index)
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            identity = _identity(nvml, handle, str(index)) | version
        except nvml.NVMLError as error:
            failed(index, error)
            continue
        minor = _minor(nvml, handle)
        parts = _parts(nvml, handle)
        yield Device(handle, identity, whole | identity, minor=minor, cut=_uuids(nvml, parts))
        for number, part in enumerate(parts):
            try:
                own = _identity(nvml, part, f"{index}:{number}") | version | {"hw.parent": identity["hw.id"]}
                instance = int(nvml.nvmlDeviceGetGpuInstanceId(part))
            except nvml.NVMLError as error:
                failed(index, error)
                continue
            yield Device(part, own, whole | own, part=instance, parent=handle, minor=minor)


def cut_anew(nvml: Any, gpus: Iterable[Device], at: Callable[[Device], None]) -> bool:
    """Whether MIG cuts one of these GPUs into other parts than when it was opened.

    Args:
        nvml: The binding.
        gpus: Those that were opened.
        at: Told which one is asked next, should that hang.
    """
    for gpu in gpus:
        if gpu.part is None and gpu.answers:
            at(gpu)
            if _uuids(nvml, _parts(nvml, gpu.handle)) != gpu.cut:
                return True
    return False


def numbered(gpus: Iterable[Device]) -> dict[Numbers, str]:
    """UUIDs by minor number and GPU instance (None of a whole GPU), where just one has these."""
    found: dict[Numbers, set[str]] = {}
    for gpu in gpus:
        if gpu.minor is not None:
            found.setdefault((gpu.minor, gpu.part), set()).add(gpu.identity["hw.id"])
    return {numbers: uuids.pop() for numbers, uuids in found.items() if len(uuids) == 1}


def lacking(nvml: Any) -> tuple[type[Exception], ...]:
    """Errors that say for good that a GPU, its driver or this user does not have what was asked for."""
    return nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound, nvml.NVMLError_NoPermission


def _identity(nvml: Any, handle: Any, index: str) -> dict[str, str]:
    uuid, name = _text(nvml.nvmlDeviceGetUUID(handle)), _text(nvml.nvmlDeviceGetName(handle))
    return {"hw.id": uuid, "hw.name": name, "hw.index": index}


def _minor(nvml: Any, handle: Any) -> int | None:
    try:
        return int(nvml.nvmlDeviceGetMinorNumber(handle))
    except nvml.NVMLError:  # WSL has no such files
        return None


def _driver(nvml: Any) -> dict[str, str]:
    try:
        return {"hw.driver_version": _text(nvml.nvmlSystemGetDriverVersion())}
    except nvml.NVMLError:
        return {}


def _parts(nvml: Any, handle: Any) -> list[Any]:
    try:
        if not nvml.nvmlDeviceGetMigMode(handle)[0]:
            return []
        most = min(PARTS_KEPT, int(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)))
    except nvml.NVMLError:
        return []  # a GPU that can't be cut
    found = []
    for number in range(most):
        try:
            found.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number))
        except nvml.NVMLError:
            continue  # not every place is taken
    return found


def _uuids(nvml: Any, parts: Iterable[Any]) -> frozenset[str]:
    found = set()
    for part in parts:
        try:
            found.add(_text(nvml.nvmlDeviceGetUUID(part)))
        except nvml.NVMLError:
            continue  # as it is opened it is told why
    return frozenset(found)


def _text(name: str | bytes) -> str:
    """Older bindings give bytes."""
    return name.decode() if isinstance(name, bytes) else name
