"""Files that are on the disk when a call returns, and the folder of what a log held that nobody can read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

DAMAGED_MAX_BYTES: Final = 256 << 20
TAILS_MAX_BYTES: Final = 64 << 20


class AsideError(Exception):
    """Bytes can't be kept; the text says why and names the file. What they come from must stay as it is."""


class Aside:
    """A bounded folder: torn tails give way to newer ones, damaged requests had been acknowledged and stay.

    Args:
        folder: Made with the first file.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, name: str, data: bytes) -> None:
        """Keep bytes under a name that ends in ``.damaged`` or ``.tail``; they are synced when this returns.

        Raises:
            AsideError: The folder is full of damaged requests, or the disk refuses.
        """
        if name.endswith(".tail"):
            self._make_room(TAILS_MAX_BYTES - len(data))
        elif self._bytes("*.damaged") + len(data) > DAMAGED_MAX_BYTES:
            raise AsideError(f"{self._folder} holds {DAMAGED_MAX_BYTES >> 20} MB of damaged requests: move them away")
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_synced(self._folder / name, [data])
            sync_folder(self._folder)
        except OSError as error:
            raise AsideError(f"{self._folder / name} can't be written: {error.strerror}") from error

    def _bytes(self, pattern: str) -> int:
        return sum(path.stat().st_size for path in self._folder.glob(pattern)) if self._folder.is_dir() else 0

    def _make_room(self, limit: int) -> None:
        if not self._folder.is_dir():
            return
        tails = sorted(self._folder.glob("*.tail"), key=lambda path: path.stat().st_mtime)
        while tails and sum(path.stat().st_size for path in tails) > limit:
            tails.pop(0).unlink()


def write_synced(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a whole file and wait until the disk has its bytes; ``sync_folder`` does the same for its name.

    Raises:
        OSError: The disk refuses; the file may hold a part.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the disk knows the names in a folder.

    Raises:
        OSError: It can't be opened, or the disk refuses.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
