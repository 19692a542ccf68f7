"""Faults that the driver tells as they happen: Xid events, waited for by a thread of its own.

Numbers and what to do: https://docs.nvidia.com/deploy/xid-errors/
"""

from __future__ import annotations

import ctypes
import threading
from typing import TYPE_CHECKING, Any, Final

import structlog

from agent.xids import meaning

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.gpu.device import Device

__all__ = ["Faults", "meaning"]

_WAIT_MILLISECONDS: Final = 250
"""How long a wait takes that nothing ends; closing waits for it."""
_AGAIN_SECONDS: Final = 1.0
"""After a wait that failed."""

log = structlog.get_logger()


class Faults:
    """Waits for Xid events until closed.

    Args:
        nvml: The binding.
        gpus: Whole GPUs to be told of; those whose driver can't tell get ``Xid events`` among what they do not have.
        tell: Called in this thread with a GPU and its Xid.

    Attributes:
        problem: Why none is told of at this moment; empty while all are.
    """

    def __init__(self, nvml: Any, gpus: Sequence[Device], tell: Callable[[Device, int], None]) -> None:
        self._nvml = nvml
        self._tell = tell
        self.problem = ""
        self._closing = threading.Event()
        self._over = threading.Event()
        self._gpus: dict[int, Device] = {}
        try:
            self._set: Any = nvml.nvmlEventSetCreate()
        except nvml.NVMLError:
            self._set = None
        for gpu in gpus:
            if self._set is None:
                gpu.unsupported.add("Xid events")
                continue
            try:
                nvml.nvmlDeviceRegisterEvents(gpu.handle, nvml.nvmlEventTypeXidCriticalError, self._set)
            except nvml.NVMLError:
                gpu.unsupported.add("Xid events")
                continue
            self._gpus[_address(gpu.handle)] = gpu
        if self._gpus:
            threading.Thread(target=self._wait, name="gpu-faults", daemon=True).start()
        else:
            self._over.set()

    def stop(self) -> None:
        """Let the thread end with its wait."""
        self._closing.set()

    def close(self, seconds: float = 2.0) -> None:
        """End the thread before the driver library is shut down; a wait that hangs is left behind."""
        self.stop()
        if self._over.wait(seconds) and self._set is not None:
            self._nvml.nvmlEventSetFree(self._set)

    def _wait(self) -> None:
        nvml = self._nvml
        try:
            while not self._closing.is_set():
                try:
                    event = nvml.nvmlEventSetWait_v2(self._set, _WAIT_MILLISECONDS)
                except nvml.NVMLError_Timeout:
                    self.problem = ""
                    continue
                except nvml.NVMLError as error:
                    # A GPU that fell off the bus fails the wait for all until the driver is opened anew.
                    self._fail(str(error))
                    continue
                self.problem = ""
                gpu = self._gpus.get(_address(event.device))
                if gpu is not None and event.eventType & nvml.nvmlEventTypeXidCriticalError:
                    self._tell(gpu, int(event.eventData))
        finally:
            self._over.set()

    def _fail(self, error: str) -> None:
        if not self.problem:
            log.warning("gpu_faults_not_watched", error=error)
        self.problem = error
        self._closing.wait(_AGAIN_SECONDS)


def _address(handle: Any) -> int:
    return ctypes.cast(handle, ctypes.c_void_p).value or 0
