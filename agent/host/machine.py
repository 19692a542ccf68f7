"""The whole machine: CPU, load, memory, pressure, disks. Sources: ``proc(5)``, Documentation/admin-guide/iostats."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from agent.host.reading import Pressures, after, read

if TYPE_CHECKING:
    from collections.abc import Mapping

_PRESSURES: Final[Mapping[str, tuple[str, ...]]] = {
    "cpu": ("some",),
    "memory": ("some", "full"),
    "io": ("some", "full"),
}
_SECTOR: Final = 512
_NO_DISKS: Final = ("loop", "ram", "zram", "dm-", "md", "sr", "fd")
"""Devices that are made of others, or of memory: their traffic would count twice."""


class Machine:
    """Figures of the whole machine; rates are over the time since the last sample.

    Args:
        proc: The kernel's ``/proc``.
        sys: The kernel's ``/sys``.
    """

    def __init__(self, proc: str = "/proc", sys: str = "/sys") -> None:
        self._proc = proc
        self._sys = sys
        self._jiffies: tuple[int, int] | None = None
        self._pressures = Pressures()
        self._disks: tuple[int, frozenset[bytes]] = 0, frozenset()

    def sample(self, now: float) -> dict[str, float]:
        """What can be read at ``now`` (monotonic seconds); a kernel without PSI has no pressure figures."""
        values: dict[str, float] = {}
        jiffies = [int(one) for one in read(f"{self._proc}/stat").split(b"\n", 1)[0].split()[1:9]]
        total, idle = sum(jiffies), jiffies[3] + jiffies[4]
        if self._jiffies is not None and total > self._jiffies[0]:
            spent = total - self._jiffies[0]
            values["cpu_usage_ratio"] = max(0.0, 1 - (idle - self._jiffies[1]) / spent)
        self._jiffies = total, idle
        values["load1"] = float(read(f"{self._proc}/loadavg").split(None, 1)[0])
        values["cores"] = float(os.cpu_count() or 1)
        available = after(read(f"{self._proc}/meminfo"), b"MemAvailable:")
        if available is not None:
            values["memory_available_bytes"] = available * 1024
        for resource, kinds in _PRESSURES.items():
            for kind, ratio in self._pressures.of(f"{self._proc}/pressure/{resource}", now, kinds).items():
                values[f"{resource}_pressure_{kind}_ratio"] = ratio
        return values | self._traffic()

    def _traffic(self) -> dict[str, float]:
        try:
            lines = read(f"{self._proc}/diskstats").splitlines()
            if len(lines) != self._disks[0]:  # one came or went
                names = os.listdir(f"{self._sys}/block")  # noqa: PTH208 - names alone
                whole = frozenset(name.encode() for name in names if not name.startswith(_NO_DISKS))
                self._disks = len(lines), whole
        except OSError:
            return {}  # hidden from this container
        fields = [parts for line in lines if len(parts := line.split()) > 9 and parts[2] in self._disks[1]]  # noqa: PLR2004 - sectors written
        if not fields:
            return {}
        return {
            "disk_read_bytes_total": float(sum(int(parts[5]) for parts in fields) * _SECTOR),
            "disk_write_bytes_total": float(sum(int(parts[9]) for parts in fields) * _SECTOR),
        }
