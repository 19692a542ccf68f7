"""Remembers which requests were taken, so that a sender's retry is answered and not stored a second time.

A sender that got no answer sends again, and the collector can't tell a lost answer from a lost request except by
remembering. A request is known by its batch id or, from senders that give none, by its content (spans, samples and
logs carry times and ids of their own, so equal bytes are a retry).

Identities of requests still in the log are read back from its segments; those of sealed segments are written here
before a segment can be deleted. Two generations bound both memory and disk: the older one goes when the newer is full
or old enough. Age is counted while the collector runs, since a sender may wait for as long as the collector is down.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from typing import TYPE_CHECKING, Final

from collector.framing import DIGEST_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_CURRENT: Final = "taken.current"
_PREVIOUS: Final = "taken.previous"


def identity(signal: str, body: bytes, batch: str = "") -> bytes:
    """16 bytes that name a request: of its batch id where it has one, else of its content."""
    kind = b"batch" if batch else b"body"
    digest = hashlib.blake2b(batch.encode() if batch else body, digest_size=DIGEST_BYTES, person=kind)
    digest.update(signal.encode())
    return digest.digest()


class Journal:
    """Identities of the requests taken lately.

    Args:
        folder: Where the two generations lie.
        generation_seconds: An identity is remembered at least this long (and at most twice).
        generation_limit: Identities in one generation; bounds memory to about 200 bytes times twice this.
    """

    def __init__(self, folder: Path, *, generation_seconds: float = 3600, generation_limit: int = 100_000) -> None:
        self._folder = folder
        self._seconds = generation_seconds
        self._limit = generation_limit
        self._lock = threading.Lock()
        self._started = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        self._previous = self._load(_PREVIOUS)
        self._current = self._load(_CURRENT)
        self._file = os.open(folder / _CURRENT, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.ftruncate(self._file, os.fstat(self._file).st_size // DIGEST_BYTES * DIGEST_BYTES)

    def __contains__(self, digest: bytes) -> bool:
        """Whether this request was taken before."""
        with self._lock:
            return digest in self._current or digest in self._previous

    def __len__(self) -> int:
        """Identities held, both generations."""
        return len(self._current) + len(self._previous)

    def add(self, digest: bytes) -> None:
        """Remember a request that is durable in the log."""
        with self._lock:
            self._current.add(digest)

    def persist(self, digests: Iterable[bytes]) -> None:
        """Write identities to disk and wait until they are there; called before their segment may go.

        Raises:
            OSError: The disk is full or failing; nothing is forgotten in memory.
        """
        data = b"".join(digests)
        if not data:
            return
        size = os.fstat(self._file).st_size
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
            os.fdatasync(self._file)
        except OSError:
            os.ftruncate(self._file, size)
            raise
        self._rotate_if_due()

    def close(self) -> None:
        """Close the file; every identity is on disk by then or still in a segment."""
        os.close(self._file)

    def _rotate_if_due(self) -> None:
        if len(self._current) < self._limit and time.monotonic() - self._started < self._seconds:
            return
        (self._folder / _CURRENT).replace(self._folder / _PREVIOUS)
        os.close(self._file)
        self._file = os.open(self._folder / _CURRENT, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with self._lock:
            self._previous, self._current = self._current, set()
        self._started = time.monotonic()

    def _load(self, name: str) -> set[bytes]:
        try:
            data = (self._folder / name).read_bytes()
        except FileNotFoundError:
            return set()
        return {data[at : at + DIGEST_BYTES] for at in range(0, len(data) - DIGEST_BYTES + 1, DIGEST_BYTES)}
