"""Small files of the kernel, read without a Python file object: they are read each second."""

from __future__ import annotations

import os
from typing import Final

_READ_BYTES: Final = 16384
_MOST_BYTES: Final = 1 << 20


def read(path: str) -> bytes:
    """A file, or the first MiB of one that is longer.

    Raises:
        OSError: It is not there, or not ours to read.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        # The kernel hands out many of its lists a page at a time: less than was asked for is not the end.
        parts = [os.read(descriptor, _READ_BYTES)]
        while parts[-1] and len(parts) * _READ_BYTES < _MOST_BYTES:
            parts.append(os.read(descriptor, _READ_BYTES))
        return b"".join(parts)
    finally:
        os.close(descriptor)


class Kept:
    """A small file of the kernel that is read again and again: opened once, which costs several times the reading.

    Of a process that ended it tells nothing more, though another has its number.

    Args:
        path: Where it is.
    """

    __slots__ = ("_descriptor", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._descriptor = -1

    def read(self) -> bytes:
        """What it says now, up to 16 kB; the kernel makes such a file whole at each reading from its start.

        Raises:
            OSError: It is not there, not ours to read, or of a process that ended.
        """
        if self._descriptor < 0:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        return os.pread(self._descriptor, _READ_BYTES, 0)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


def after(text: bytes, key: bytes) -> float | None:
    """The number behind ``key`` in a file of ``key number`` lines; None where it is not there."""
    _, found, rest = text.partition(key)
    return float(rest.split(None, 1)[0]) if found else None


class Pressures:
    """Shares of time that tasks waited, out of the counters of a file of PSI.

    https://docs.kernel.org/accounting/psi.html
    """

    def __init__(self) -> None:
        self._stalled: dict[tuple[str, str], tuple[float, float]] = {}

    def of(self, path: str, now: float, kinds: tuple[str, ...] = ("some",)) -> dict[str, float]:
        """Ratio by kind since the last look at ``now`` (monotonic seconds); none at the first, or where PSI is off."""
        found: dict[str, float] = {}
        try:
            text = read(path)
        except OSError:
            return found  # PSI is off in this kernel, or hidden from this container
        for line in text.splitlines():
            kind = line.split(None, 1)[0].decode()
            if kind not in kinds:
                continue
            stalled = float(line.rpartition(b"total=")[2])
            before = self._stalled.get((path, kind))
            self._stalled[path, kind] = stalled, now
            if before is not None and now > before[1]:
                found[kind] = min(1.0, max(0.0, (stalled - before[0]) / 1e6 / (now - before[1])))
        return found
