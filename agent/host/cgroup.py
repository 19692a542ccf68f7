"""The cage that an engine runs in: what its cgroup allows, took away, and killed; version 2 and 1.

Limits are those of the cgroup itself, which is where a container's stand. Sources:
https://docs.kernel.org/admin-guide/cgroup-v2.html, https://docs.kernel.org/admin-guide/cgroup-v1/memory.html,
https://docs.kernel.org/scheduler/sched-bwc.html
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent.host.reading import Pressures, after, read

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_UNLIMITED: Final = 2.0**60
"""Version 1 writes a limit near 2^63 where there is none."""
_PRESSURES: Final[Mapping[str, tuple[str, ...]]] = {"cpu": ("some",), "memory": ("some", "full"), "io": ("some",)}
_IO: Final = re.compile(rb"\b(rbytes|wbytes)=(\d+)")


class Cgroup:
    """One cgroup.

    Args:
        folders: Where its files are, by controller; version 2 has one folder for all, named ``""``.
    """

    def __init__(self, folders: Mapping[str, str]) -> None:
        self.folders = folders
        self._pressures = Pressures()

    def sample(self, now: float) -> dict[str, float]:
        """What can be read at ``now`` (monotonic seconds): what a kernel or container hides is left out."""
        found: dict[str, float] = {}
        for read_part in _VERSION_2 if "" in self.folders else _VERSION_1:
            try:
                found |= {f"cgroup_{name}": value for name, value in read_part(self.folders).items()}
            except (OSError, KeyError, ValueError, IndexError):
                continue  # a controller that is not on, or the root, which has no such file
        if "" in self.folders:
            for resource, kinds in _PRESSURES.items():
                path = f"{self.folders['']}/{resource}.pressure"
                for kind, ratio in self._pressures.of(path, now, kinds).items():
                    found[f"cgroup_{resource}_pressure_{kind}_ratio"] = ratio
        return found


def _told(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}


def _cpu_2(folders: Mapping[str, str]) -> dict[str, float]:
    text = b"\n" + read(f"{folders['']}/cpu.stat")
    used, throttled = after(text, b"\nusage_usec"), after(text, b"\nthrottled_usec")
    return _told({
        "cpu_seconds_total": None if used is None else used / 1e6,
        "cpu_periods_total": after(text, b"\nnr_periods"),
        "cpu_throttled_periods_total": after(text, b"\nnr_throttled"),
        "cpu_throttled_seconds_total": None if throttled is None else throttled / 1e6,
    })  # fmt: skip


def _quota_2(folders: Mapping[str, str]) -> dict[str, float]:
    quota, period = read(f"{folders['']}/cpu.max").split()
    return {} if quota == b"max" else {"cpu_quota_cores": int(quota) / int(period)}


def _memory_2(folders: Mapping[str, str]) -> dict[str, float]:
    found = {"memory_used_bytes": float(read(f"{folders['']}/memory.current"))}
    limit = read(f"{folders['']}/memory.max").strip()
    return found if limit == b"max" else found | {"memory_limit_bytes": float(limit)}


def _kills_2(folders: Mapping[str, str]) -> dict[str, float]:
    return _told({"oom_kills_total": after(b"\n" + read(f"{folders['']}/memory.events"), b"\noom_kill ")})


def _io_2(folders: Mapping[str, str]) -> dict[str, float]:
    text = read(f"{folders['']}/io.stat")
    sums = {b"rbytes": 0, b"wbytes": 0}
    for name, count in _IO.findall(text):
        sums[name] += int(count)
    return {"io_read_bytes_total": float(sums[b"rbytes"]), "io_write_bytes_total": float(sums[b"wbytes"])}


def _cpu_1(folders: Mapping[str, str]) -> dict[str, float]:
    text = b"\n" + read(f"{folders['cpu']}/cpu.stat")
    throttled = after(text, b"\nthrottled_time")
    return _told({
        "cpu_periods_total": after(text, b"\nnr_periods"),
        "cpu_throttled_periods_total": after(text, b"\nnr_throttled"),
        "cpu_throttled_seconds_total": None if throttled is None else throttled / 1e9,
    })  # fmt: skip


def _used_1(folders: Mapping[str, str]) -> dict[str, float]:
    return {"cpu_seconds_total": int(read(f"{folders['cpuacct']}/cpuacct.usage")) / 1e9}


def _quota_1(folders: Mapping[str, str]) -> dict[str, float]:
    quota = int(read(f"{folders['cpu']}/cpu.cfs_quota_us"))
    period = int(read(f"{folders['cpu']}/cpu.cfs_period_us"))
    return {} if quota < 0 or not period else {"cpu_quota_cores": quota / period}


def _memory_1(folders: Mapping[str, str]) -> dict[str, float]:
    found = {"memory_used_bytes": float(read(f"{folders['memory']}/memory.usage_in_bytes"))}
    limit = float(read(f"{folders['memory']}/memory.limit_in_bytes"))
    return found if limit >= _UNLIMITED else found | {"memory_limit_bytes": limit}


def _kills_1(folders: Mapping[str, str]) -> dict[str, float]:
    return _told({"oom_kills_total": after(b"\n" + read(f"{folders['memory']}/memory.oom_control"), b"\noom_kill ")})


def _io_1(folders: Mapping[str, str]) -> dict[str, float]:
    sums = {b"Read": 0, b"Write": 0}
    for line in read(f"{folders['blkio']}/blkio.throttle.io_service_bytes").splitlines():
        parts = line.split()
        if len(parts) == 3 and parts[1] in sums:  # noqa: PLR2004 - device, operation, bytes
            sums[parts[1]] += int(parts[2])
    return {"io_read_bytes_total": float(sums[b"Read"]), "io_write_bytes_total": float(sums[b"Write"])}


_VERSION_2: Final[tuple[Callable[[Mapping[str, str]], dict[str, float]], ...]] = (
    _cpu_2, _quota_2, _memory_2, _kills_2, _io_2,
)  # fmt: skip
_VERSION_1: Final[tuple[Callable[[Mapping[str, str]], dict[str, float]], ...]] = (
    _cpu_1, _used_1, _quota_1, _memory_1, _kills_1, _io_1,
)  # fmt: skip
_CONTROLLERS: Final = ("cpu", "cpuacct", "memory", "blkio")


def folders_of(pid: int, proc: str = "/proc", sys: str = "/sys") -> dict[str, str]:
    """Where the files of a process's cgroup are, by controller; empty where they are not to be seen.

    ``""`` is version 2's one folder. The kernel names a cgroup as it is seen from ours. One beside ours, as that of
    another container of a pod, begins with ``/..``: its own view is then read, through the process's root.
    """
    by_controller, ours = _paths(f"{proc}/{pid}/cgroup"), _paths(f"{proc}/self/cgroup")
    if not by_controller:
        return {}
    theirs = f"{proc}/{pid}/root"
    # Where both versions are mounted, limits are version 1's.
    if not any(name in by_controller for name in _CONTROLLERS):
        found = _first([f"{sys}/fs/cgroup{by_controller.get('', '/')}", f"{theirs}/sys/fs/cgroup"], "cpu.stat")
        return {"": found} if found else {}
    folders: dict[str, str] = {}
    for name, (mounts, file) in _MOUNTS.items():
        path = by_controller.get(name, "")
        inside = [f"{sys}/fs/cgroup/{mount}{path}" for mount in mounts]
        # a container is shown its own cgroup in place of the whole tree, under the name that the tree has for it
        views = [f"{theirs}/sys", *([sys] if ours.get(name) == path else [])]
        roots = [f"{view}/fs/cgroup/{mount}" for view in views for mount in mounts]
        if path and (found := _first(inside + roots, file)):
            folders[name] = found
    return folders


_MOUNTS: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "cpu": (("cpu,cpuacct", "cpu"), "cpu.stat"),
    "cpuacct": (("cpu,cpuacct", "cpuacct"), "cpuacct.usage"),
    "memory": (("memory",), "memory.usage_in_bytes"),
    "blkio": (("blkio",), "blkio.throttle.io_service_bytes"),
}
"""Version 1's controllers: where they are mounted, and a file that each has."""


def _paths(file: str) -> dict[str, str]:
    try:
        lines = read(file).decode(errors="replace").splitlines()
    except OSError:
        return {}
    parts = [line.split(":", 2) for line in lines if line.count(":") >= 2]  # noqa: PLR2004 - number, controllers, path
    return {name: path for _, names, path in parts for name in names.split(",")}


def _first(folders: list[str], file: str) -> str:
    for folder in folders:
        try:
            if "/.." not in folder and Path(folder, file).is_file():
                return folder.rstrip("/")
        except OSError:
            continue  # not ours to look into
    return ""
