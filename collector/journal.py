"""Remembers which requests were taken, so that a sender's retry is answered and not stored a second time.

A sender that got no answer sends again, and the collector can't tell a lost answer from a lost request except by
remembering. A request is known by its batch id or, from senders that give none, by its content (spans, samples and
logs carry times and ids of their own, so equal bytes are a retry).

Identities of requests still in the log are read back from its segments; those of sealed segments are written here
before a segment can be deleted. Two generations bound both memory and disk: the older one goes when the newer is full
or old enough. Age is counted while the collector runs, since a sender may wait for as long as the collector is down.
A replay may come again after months: what came by one is remembered by number alone, whatever its age.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import threading
import time
from typing import TYPE_CHECKING, Final

from base.signing import REPLAYED
from collector.framing import DIGEST_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_REPLAYED_MARK: Final = b"rpld"


def identity(signal: str, body: bytes, batch: str = "") -> bytes:
    """16 bytes that name a request: of its batch id where it has one, else of its content.

    Those of a replay end in four bytes that say so: segments and files keep nothing else of a request's origin.
    """
    kind = b"batch" if batch else b"body"
    digest = hashlib.blake2b(batch.encode() if batch else body, digest_size=DIGEST_BYTES, person=kind)
    digest.update(signal.encode())
    name = digest.digest()
    return name[: -len(_REPLAYED_MARK)] + _REPLAYED_MARK if batch.startswith(REPLAYED) else name


class Journal:
    """Identities of the requests taken lately, and of those of replays into one store.

    Args:
        folder: Where they lie.
        generation_seconds: An identity is remembered at least this long (and at most twice).
        generation_limit: Identities in one generation; bounds memory to about 200 bytes times four times this.
    """

    def __init__(self, folder: Path, *, generation_seconds: float = 3600, generation_limit: int = 100_000) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._limit = generation_limit
        self._lately = _Generations(folder, "taken", generation_seconds, generation_limit)
        self._store = ""
        self._replays: _Generations | None = None
        self._early: set[bytes] = set()

    @property
    def knows_store(self) -> bool:
        """Whether it is known which store replays go into: before, nobody can say whether one is a repeat."""
        return self._replays is not None

    def bind(self, store: str) -> None:
        """Remember replays into this store, and those alone: another one, or one made anew, has none of their rows.

        Args:
            store: What names the store and changes when it is made anew.

        Raises:
            OSError: The folder can't be read or written.
        """
        if store == self._store:
            return
        name = hashlib.blake2b(store.encode(), digest_size=6).hexdigest()
        replays = _Generations(self._folder, f"replayed-{name}", math.inf, self._limit)
        for digest in self._early:
            replays.add(digest)
        replays.persist(self._early)
        # A former file stays open: the log's thread may be writing to it, and stores are made anew rarely.
        self._store, self._replays, self._early = store, replays, set()

    def __contains__(self, digest: bytes) -> bool:
        """Whether this request was taken before."""
        if not digest.endswith(_REPLAYED_MARK):
            return digest in self._lately
        return digest in (self._early if self._replays is None else self._replays)

    def __len__(self) -> int:
        """Identities held."""
        return len(self._lately) + len(self._early) + (0 if self._replays is None else len(self._replays))

    def add(self, digest: bytes) -> None:
        """Remember a request that is durable in the log."""
        if not digest.endswith(_REPLAYED_MARK):
            self._lately.add(digest)
        elif self._replays is None:
            self._early.add(digest)
        else:
            self._replays.add(digest)

    def persist(self, digests: Iterable[bytes]) -> None:
        """Write identities to disk and wait until they are there; called before their segment may go.

        Raises:
            OSError: The disk is full or failing; nothing is forgotten in memory.
        """
        kept = list(digests)
        self._lately.persist([digest for digest in kept if not digest.endswith(_REPLAYED_MARK)])
        replayed = [digest for digest in kept if digest.endswith(_REPLAYED_MARK)]
        if self._replays is None:
            self._early.update(replayed)
        else:
            self._replays.persist(replayed)

    def close(self) -> None:
        """Close the files; every identity is on disk by then or still in a segment."""
        self._lately.close()
        if self._replays is not None:
            self._replays.close()


class _Generations:
    """Identities in two generations, each a file and a set."""

    def __init__(self, folder: Path, name: str, seconds: float, limit: int) -> None:
        self._newer = folder / f"{name}.current"
        self._older = folder / f"{name}.previous"
        self._seconds = seconds
        self._limit = limit
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._previous = _load(self._older)
        self._current = _load(self._newer)
        self._file = os.open(self._newer, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = os.fstat(self._file).st_size // DIGEST_BYTES * DIGEST_BYTES
        self._torn = True

    def __contains__(self, digest: bytes) -> bool:
        with self._lock:
            return digest in self._current or digest in self._previous

    def __len__(self) -> int:
        return len(self._current) + len(self._previous)

    def add(self, digest: bytes) -> None:
        with self._lock:
            self._current.add(digest)

    def persist(self, digests: Iterable[bytes]) -> None:
        data = b"".join(digests)
        if not data:
            return
        if self._torn:  # what follows a part of an identity could not be told apart
            os.ftruncate(self._file, self._size)
            self._torn = False
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
            os.fdatasync(self._file)
        except OSError:
            self._torn = True
            raise
        self._size += len(data)
        with contextlib.suppress(OSError):  # the file that is open goes on; tried again with the next identities
            self._rotate_if_due()

    def close(self) -> None:
        os.close(self._file)

    def _rotate_if_due(self) -> None:
        if len(self._current) < self._limit and time.monotonic() - self._started < self._seconds:
            return
        fresh = self._newer.with_suffix(".next")
        file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        try:
            if self._newer.exists():  # not where this failed between the two names
                self._newer.replace(self._older)
            fresh.replace(self._newer)
        except OSError:
            os.close(file)
            raise
        os.close(self._file)
        self._file, self._size = file, 0
        with self._lock:
            self._previous, self._current = self._current, set()
        self._started = time.monotonic()


def _load(path: Path) -> set[bytes]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return set()
    return {data[at : at + DIGEST_BYTES] for at in range(0, len(data) - DIGEST_BYTES + 1, DIGEST_BYTES)}
