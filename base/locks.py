"""Files that are locked for as long as somebody has them open (``flock``).

The kernel lets go when the process ends, however it ends: a lock never outlives its holder, and a file that was left
behind locks nothing. A lock belongs to the open file, so that whoever is handed the descriptor holds it too.
"""

from __future__ import annotations

import fcntl
import os
import time
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from pathlib import Path

_AGAIN_SECONDS: Final = 0.1
_HOLDER_BYTES: Final = 32


class HeldError(Exception):
    """Somebody else has the lock.

    Attributes:
        holder: Process id that the holder wrote into the file; ``unknown`` where it wrote none.
    """

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path} is held by process {holder}")
        self.holder = holder


class Lock:
    """A file that is held.

    Attributes:
        descriptor: Of the open file; whoever inherits it holds the lock as well.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def close(self) -> None:
        """Let go; repeating it does nothing."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def take(path: Path, *, seconds: float = 0.0, signed: bool = False, mode: int = 0o600) -> Lock:
    """Hold a file, which is made when missing.

    Args:
        path: The file; its folder must be there.
        seconds: How long to wait for another holder.
        signed: Whether our process id is written into it.
        mode: Of a file that is made.

    Raises:
        HeldError: Another one holds it.
        OSError: It can't be made, or there are no locks here.
    """
    lock = Lock(os.open(path, os.O_RDWR | os.O_CREAT, mode))
    try:
        ours = _had_within(lock.descriptor, seconds)
        if ours and signed:
            os.ftruncate(lock.descriptor, 0)
            os.pwrite(lock.descriptor, f"{os.getpid()}\n".encode(), 0)
        holder = b"" if ours else os.pread(lock.descriptor, _HOLDER_BYTES, 0)
    except BaseException:
        lock.close()
        raise
    if not ours:
        lock.close()
        raise HeldError(path, holder.decode(errors="replace").strip() or "unknown")
    return lock


def _had_within(descriptor: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not try_lock(descriptor):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_AGAIN_SECONDS)
    return True


def wait_for(path: Path) -> Lock:
    """Hold a file, however long another one does.

    Raises:
        OSError: It can't be made, or there are no locks here.
    """
    lock = Lock(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    try:
        hold(lock.descriptor)
    except BaseException:
        lock.close()
        raise
    return lock


def hold(descriptor: int) -> None:
    """Lock an open file, however long another one has it.

    Raises:
        OSError: There are no locks here.
    """
    fcntl.flock(descriptor, fcntl.LOCK_EX)


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock an open file unless another one has it; with others where `shared`.

    Raises:
        OSError: There are no locks here.
    """
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_free(path: Path) -> bool:
    """Whether nobody holds a file; asking keeps nobody else from taking it for longer than the question.

    Raises:
        FileNotFoundError: There is none.
        OSError: It can't be read, or there are no locks here.
    """
    with Lock(os.open(path, os.O_RDONLY)) as asked:
        return try_lock(asked.descriptor, shared=True)
