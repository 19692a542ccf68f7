"""Request bodies: judged by their head, received to memory or to a file, handed to the engine as a file."""

from __future__ import annotations

import asyncio
import io
import shutil
import threading
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, cast

from collector.embedded.errors import SOCKET_TIMEOUT, QueryError, refused
from collector.embedded.unpack import ENCODINGS, Readable, decompressed, read_some, too_large, unspoken

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

IN_MEMORY = 256 * 1024
_PIECE = 1 << 20


@dataclass(frozen=True)
class Terms:
    """What a body may be, told from its request's head.

    Attributes:
        limit: Bytes that it may have, as sent and after decompression.
        idle_seconds: Longest wait for its next bytes.
        seconds: Longest time for all of it.
        no_data: Why it can't hold an insert's data; such a body never touches a disk.
    """

    limit: int
    idle_seconds: float
    seconds: float
    no_data: QueryError | None = None

    def check(self, length: int | None, encoding: str) -> None:
        """Judge a body that has not been read.

        Args:
            length: ``Content-Length``, None where it isn't given.
            encoding: ``Content-Encoding``.

        Raises:
            QueryError: It is too large (307), or in an encoding that the store doesn't speak (48).
        """
        if encoding not in ENCODINGS:
            raise unspoken(encoding)
        if length is not None and length > self.limit:
            raise too_large(self.limit)


class SpoolRoom:
    """Bytes of disk that all bodies together may take; threads share it.

    Args:
        limit: How many.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._lock = threading.Lock()

    def take(self, size: int) -> None:
        """Ask for bytes.

        Raises:
            QueryError: The other bodies leave too few (243).
        """
        with self._lock:
            if self._taken + size > self._limit:
                raise refused(
                    243, "NOT_ENOUGH_SPACE", f"Bodies wait on {self._taken} bytes of disk already", "Try again later"
                )
            self._taken += size

    def give_back(self, size: int) -> None:
        """Bytes are free again."""
        with self._lock:
            self._taken -= size


class Body:
    """The bytes of one request as they came; small ones stay in memory.

    Args:
        folder: Spool folder of the store, on the data disk.
        terms: What it may be.
        room: Disk that all bodies share.
    """

    def __init__(self, folder: Path, terms: Terms, room: SpoolRoom) -> None:
        self._folder = folder
        self._terms = terms
        self._room = room
        self._taken = 0
        self._memory = bytearray()
        self._file: BinaryIO | None = None
        self._paths: list[Path] = []
        self.size = 0

    @property
    def held(self) -> bytes:
        """What of it is in memory, as it came: all of a small one."""
        return bytes(self._memory)

    async def receive(self, chunks: AsyncIterator[bytes]) -> None:
        """Take the body off the wire.

        Raises:
            QueryError: Larger than the limit (307), too slow (209), or the disk is full (243).
        """
        try:
            async with asyncio.timeout(self._terms.seconds), asyncio.timeout(self._terms.idle_seconds) as idle:
                async for chunk in chunks:
                    self._take(chunk)
                    idle.reschedule(asyncio.get_running_loop().time() + self._terms.idle_seconds)
        except TimeoutError:
            raise refused(
                SOCKET_TIMEOUT,
                "SOCKET_TIMEOUT",
                f"The body did not come: {self.size} bytes of it did",
                "Send it at once",
            ) from None

    def _take(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self.size > self._terms.limit:
            raise too_large(self._terms.limit)
        if self._file is None and self.size > IN_MEMORY and self._terms.no_data is None:
            self._file = self._new_path().open("w+b", buffering=0)
            self._put(self._memory)
            self._memory = bytearray()
        if self._file is None:
            self._memory += chunk
        else:
            self._put(chunk)

    def reader(self, encoding: str, *, native_blocks: bool = False) -> Readable:
        """The body's content, decompressed from ``Content-Encoding`` and from ClickHouse's own blocks.

        Raises:
            QueryError: An encoding that the store doesn't speak.
        """
        raw: Readable
        if self._file is None:
            raw = io.BytesIO(self._memory)
        else:
            self._file.seek(0)
            raw = self._file
        return decompressed(raw, encoding, self.size, self._terms.limit, native_blocks=native_blocks)

    def as_file(self, reader: Readable, head: bytes) -> Path:
        """Put ``head`` and the rest of ``reader`` into a file and return its path.

        A large body that was sent uncompressed and is data alone stays where it is.

        Raises:
            QueryError: The content can't be decompressed (354), is too large (307), the disk is full (243), or this
                request may not bring data.
        """
        if self._terms.no_data is not None:
            raise self._terms.no_data
        if reader is self._file and not head and self._file.tell() == 0:
            return self._paths[0]
        path = self._new_path()
        try:
            with path.open("wb") as file:
                piece = head
                while piece or (piece := read_some(reader, _PIECE)):
                    self._occupy(len(piece))
                    file.write(piece)
                    piece = b""
        except OSError as error:
            raise refused(243, "NOT_ENOUGH_SPACE", f"Cannot spool the body: {error.strerror}") from None
        return path

    def clear(self) -> None:
        """Let go of the content, which has been read."""
        self.close()
        self._memory = bytearray()
        self._file = None
        self._paths = []
        self.size = 0

    def close(self) -> None:
        """Remove the files."""
        if self._file is not None:
            self._file.close()
        for path in self._paths:
            path.unlink(missing_ok=True)
        self._room.give_back(self._taken)
        self._taken = 0

    def _occupy(self, size: int) -> None:
        self._room.take(size)
        self._taken += size

    def _put(self, data: bytes | bytearray) -> None:
        self._occupy(len(data))
        try:
            view = memoryview(data)
            while view:
                view = view[cast("io.FileIO", self._file).write(view) :]
        except OSError as error:
            raise refused(243, "NOT_ENOUGH_SPACE", f"Cannot spool the body: {error.strerror}") from None

    def _new_path(self) -> Path:
        path = self._folder / f"{uuid.uuid4().hex}.body"
        self._paths.append(path)
        return path


def clear_spool(folder: Path) -> None:
    """Empty the spool folder, making it where it is missing: a killed process leaves files behind.

    Raises:
        OSError: The folder can't be written.
    """
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
