"""Request bodies: received to memory or to a file, decompressed with bounded memory, handed to the engine as a file."""

from __future__ import annotations

import gzip
import io
import lzma
import shutil
import uuid
import zlib
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

import lz4.block
import lz4.frame
import zstandard

from collector.embedded.errors import refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

IN_MEMORY = 256 * 1024
_PIECE = 1 << 20
_ZSTD_PIECE = 4096
_BLOCK_HEAD = 25
_BLOCK_LIMIT = 64 << 20
_METHOD_NONE, _METHOD_LZ4, _METHOD_ZSTD = 0x02, 0x82, 0x90


class Readable(Protocol):
    """Anything with ``read(n)``."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to ``size`` bytes, b'' at the end."""


class Body:
    """The bytes of one request as they came; small ones stay in memory.

    Args:
        folder: Spool folder of the store, on the data disk.
        limit: Bytes that a body may have, as sent and after decompression.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._memory = bytearray()
        self._file: BinaryIO | None = None
        self._paths: list[Path] = []
        self.size = 0

    async def receive(self, chunks: AsyncIterator[bytes]) -> None:
        """Take the body off the wire.

        Raises:
            QueryError: Larger than the limit (307), or the disk is full (243).
        """
        async for chunk in chunks:
            self.size += len(chunk)
            if self.size > self._limit:
                raise refused(
                    307,
                    "TOO_MANY_BYTES",
                    f"The body is larger than {self._limit} bytes",
                    "Send it in several inserts",
                )
            if self._file is None and self.size > IN_MEMORY:
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
        stream = _decoded(raw, encoding)
        if native_blocks:
            stream = _NativeBlocks(stream)
        return stream

    def as_file(self, reader: Readable, head: bytes) -> Path:
        """Put ``head`` and the rest of ``reader`` into a file and return its path.

        A large body that was sent uncompressed and is data alone stays where it is.

        Raises:
            QueryError: The content can't be decompressed (354), is too large (307) or the disk is full (243).
        """
        if reader is self._file and not head and self._file.tell() == 0:
            return self._paths[0]
        path = self._new_path()
        written = len(head)
        try:
            with path.open("wb") as file:
                file.write(head)
                while piece := read_some(reader, _PIECE):
                    written += len(piece)
                    if written > self._limit:
                        raise refused(
                            307, "TOO_MANY_BYTES", f"The body is larger than {self._limit} bytes when decompressed"
                        )
                    file.write(piece)
        except OSError as error:
            raise refused(243, "NOT_ENOUGH_SPACE", f"Cannot spool the body: {error}") from None
        return path

    def close(self) -> None:
        """Remove the files."""
        if self._file is not None:
            self._file.close()
        for path in self._paths:
            path.unlink(missing_ok=True)

    def _put(self, data: bytes | bytearray) -> None:
        try:
            view = memoryview(data)
            while view:
                view = view[cast("io.FileIO", self._file).write(view) :]
        except OSError as error:
            raise refused(243, "NOT_ENOUGH_SPACE", f"Cannot spool the body: {error}") from None

    def _new_path(self) -> Path:
        path = self._folder / f"{uuid.uuid4().hex}.body"
        self._paths.append(path)
        return path


def read_some(reader: Readable, size: int) -> bytes:
    """Read up to ``size`` bytes, turning every decompressor's complaint into one error.

    Raises:
        QueryError: The content is not what its encoding says (354).
    """
    try:
        return reader.read(size)
    except (zlib.error, gzip.BadGzipFile, EOFError, RuntimeError, lzma.LZMAError, zstandard.ZstdError) as error:
        raise refused(354, "ZLIB_INFLATE_FAILED", f"Cannot decompress the body: {error}") from None
    except lz4.block.LZ4BlockError as error:
        raise refused(271, "CANNOT_DECOMPRESS", f"Cannot decompress the body: {error}") from None


def clear_spool(folder: Path) -> None:
    """Empty the spool folder, making it where it is missing: a killed process leaves files behind.

    Raises:
        OSError: The folder can't be written.
    """
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


def _decoded(raw: Readable, encoding: str) -> Readable:
    file = cast("BinaryIO", raw)
    if encoding in {"", "identity"}:
        return raw
    if encoding in {"gzip", "x-gzip"}:
        return gzip.GzipFile(fileobj=file)
    if encoding == "deflate":
        return _Deflate(raw)
    if encoding == "zstd":
        return _Zstd(raw)
    if encoding == "lz4":
        return cast("Readable", lz4.frame.LZ4FrameFile(file))
    if encoding == "xz":
        return lzma.LZMAFile(file)
    raise refused(
        48,
        "NOT_IMPLEMENTED",
        f"Content-Encoding {encoding!r} is not spoken here",
        "Use gzip, deflate, zstd, lz4, xz or identity",
    )


class _Deflate:
    """A zlib stream, read in bounded pieces."""

    def __init__(self, raw: Readable) -> None:
        self._raw = raw
        self._inflate = zlib.decompressobj()

    def read(self, size: int = -1, /) -> bytes:
        while not self._inflate.eof:
            pending = self._inflate.unconsumed_tail or self._raw.read(65536)
            if not pending:
                raise EOFError("the compressed stream ends early")
            piece = self._inflate.decompress(pending, max(size, 0))
            if piece:
                return piece
        return b""


class _Zstd:
    """Zstandard frames one after the other; a frame that ends early is an error, which the library's reader hides."""

    def __init__(self, raw: Readable) -> None:
        self._raw = raw
        self._plain = memoryview(b"")
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._begun = False

    def read(self, size: int = -1, /) -> bytes:
        while not self._plain:
            # Small pieces: even the best compressed body can't grow much past a hundred megabytes at a step.
            pending = (self._frame.unused_data if self._frame.eof else b"") or self._raw.read(_ZSTD_PIECE)
            if not pending:
                if self._begun and not self._frame.eof:
                    raise EOFError("the compressed stream ends early")
                return b""
            if self._frame.eof:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._begun = True
            self._plain = memoryview(self._frame.decompress(pending))
        size = len(self._plain) if size < 0 else size
        piece, self._plain = self._plain[:size], self._plain[size:]
        return bytes(piece)


class _NativeBlocks:
    """ClickHouse's compressed blocks: 16 bytes checksum, 1 method, 4 packed size, 4 plain size, data.

    Checksums are not verified: the block's own decoder and TCP stand guard on loopback.
    """

    def __init__(self, raw: Readable) -> None:
        self._raw = raw
        self._plain = memoryview(b"")

    def read(self, size: int = -1, /) -> bytes:
        if not self._plain:
            self._plain = memoryview(self._block())
        if size < 0:
            pieces = [bytes(self._plain)]
            while block := self._block():
                pieces.append(block)
            self._plain = memoryview(b"")
            return b"".join(pieces)
        piece, self._plain = self._plain[:size], self._plain[size:]
        return bytes(piece)

    def _block(self) -> bytes:
        head = self._exactly(_BLOCK_HEAD, ends=True)
        if not head:
            return b""
        method = head[16]
        packed = int.from_bytes(head[17:21], "little") - 9
        plain = int.from_bytes(head[21:25], "little")
        if packed < 0 or max(packed, plain) > _BLOCK_LIMIT:
            raise EOFError("a block's size is out of bounds; was the body sent with decompress=1 but uncompressed?")
        data = self._exactly(packed)
        if method == _METHOD_LZ4:
            return bytes(lz4.block.decompress(data, uncompressed_size=plain))
        if method == _METHOD_ZSTD:
            return zstandard.ZstdDecompressor().decompress(data, max_output_size=plain)
        if method == _METHOD_NONE:
            return data
        raise EOFError(f"unknown block compression method {method:#x}")

    def _exactly(self, size: int, *, ends: bool = False) -> bytes:
        data = bytearray()
        while len(data) < size:
            piece = self._raw.read(size - len(data))
            if not piece:
                if ends and not data:
                    return b""
                raise EOFError("the body ends inside a compressed block")
            data += piece
        return bytes(data)
