"""Decompressors of request bodies: bounded memory at each step, and an error where a stream ends early."""

from __future__ import annotations

import gzip
import lzma
import zlib
from typing import TYPE_CHECKING, Protocol, cast

import lz4.block
import lz4.frame
import zstandard

from collector.embedded.errors import QueryError, refused

if TYPE_CHECKING:
    from typing import BinaryIO

ENCODINGS = frozenset({"", "identity", "gzip", "x-gzip", "deflate", "zstd", "lz4", "xz"})
"""Values of ``Content-Encoding`` that are spoken here."""

# A piece of zstd may hold a block of 128 KiB in every four bytes.
_ZSTD_PIECE = 256
# Beyond what zstd's own levels need up to 19, and xz up to -6: a body must not choose how much memory we take.
_ZSTD_WINDOW = 8 << 20
_XZ_MEMORY = 64 << 20
# What unpacks to more than this, and to more than so many times its size, was made to fill a disk.
_PLAIN_FREE = 64 << 20
_PLAIN_RATIO = 100
_BLOCK_HEAD = 25
_BLOCK_LIMIT = 64 << 20
_METHOD_NONE, _METHOD_LZ4, _METHOD_ZSTD = 0x02, 0x82, 0x90


class Readable(Protocol):
    """Anything with ``read(n)``."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to ``size`` bytes, b'' at the end."""


def decompressed(raw: Readable, encoding: str, size: int, limit: int, *, native_blocks: bool) -> Readable:
    """A body's content: ``raw`` itself where it is not compressed.

    Args:
        raw: The body as it came.
        encoding: ``Content-Encoding``.
        size: Bytes of the body.
        limit: Bytes that its content may have.
        native_blocks: Whether ClickHouse's own blocks are inside.

    Raises:
        QueryError: An encoding that the store doesn't speak (48).
    """
    stream = _decoded(raw, encoding)
    if native_blocks:
        stream = _NativeBlocks(stream, min(_BLOCK_LIMIT, limit))
    if stream is raw:
        return raw
    return _Bounded(stream, limit, min(limit, _PLAIN_FREE + _PLAIN_RATIO * size))


def read_some(reader: Readable, size: int) -> bytes:
    """Read up to ``size`` bytes, turning every decompressor's complaint into one error.

    Raises:
        QueryError: The content is not what its encoding says (354).
    """
    try:
        return reader.read(size)
    except (
        zlib.error,
        gzip.BadGzipFile,
        EOFError,
        RuntimeError,
        lzma.LZMAError,
        zstandard.ZstdError,
        MemoryError,
    ) as error:
        raise refused(354, "ZLIB_INFLATE_FAILED", f"Cannot decompress the body: {error}") from None
    except lz4.block.LZ4BlockError as error:
        raise refused(271, "CANNOT_DECOMPRESS", f"Cannot decompress the body: {error}") from None


def unspoken(encoding: str) -> QueryError:
    """The error of a body in an unknown encoding."""
    return refused(
        48,
        "NOT_IMPLEMENTED",
        f"Content-Encoding {encoding!r} is not spoken here",
        "Use gzip, deflate, zstd, lz4, xz or identity",
    )


def too_large(limit: int, more: str = "") -> QueryError:
    """The error of a body with too many bytes."""
    return refused(307, "TOO_MANY_BYTES", f"The body is larger than {limit} bytes{more}", "Send it in several requests")


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
        return _Xz(raw)
    raise unspoken(encoding)


class _Bounded:
    """A decompressed stream that ends in an error where it grows past what it may."""

    def __init__(self, stream: Readable, limit: int, fair: int) -> None:
        self._stream = stream
        self._limit = limit
        self._fair = fair
        self._given = 0

    def read(self, size: int = -1, /) -> bytes:
        piece = self._stream.read(size)
        self._given += len(piece)
        if self._given > self._limit:
            raise too_large(self._limit, " when decompressed")
        if self._given > self._fair:
            raise too_large(self._fair, f" when decompressed, more than {_PLAIN_RATIO} times what was sent")
        return piece


class _Xz:
    """An xz or lzma stream (several one after the other, too), unpacked with bounded memory."""

    def __init__(self, raw: Readable) -> None:
        self._raw = raw
        self._stream = lzma.LZMADecompressor(memlimit=_XZ_MEMORY)
        self._begun = False

    def read(self, size: int = -1, /) -> bytes:
        while True:
            if self._stream.eof:
                pending = self._stream.unused_data or self._raw.read(65536)
                if not pending:
                    return b""
                self._stream = lzma.LZMADecompressor(memlimit=_XZ_MEMORY)
            elif self._stream.needs_input:
                pending = self._raw.read(65536)
                if not pending:
                    if not self._begun:
                        return b""
                    raise EOFError("the compressed stream ends early")
            else:
                pending = b""
            self._begun = True
            if piece := self._stream.decompress(pending, max(size, 1)):
                return piece


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
        self._frame = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
        self._begun = False

    def read(self, size: int = -1, /) -> bytes:
        while not self._plain:
            # Small pieces: even the best compressed body can't grow past eight megabytes at a step.
            pending = (self._frame.unused_data if self._frame.eof else b"") or self._raw.read(_ZSTD_PIECE)
            if not pending:
                if self._begun and not self._frame.eof:
                    raise EOFError("the compressed stream ends early")
                return b""
            if self._frame.eof:
                self._frame = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
            self._begun = True
            self._plain = memoryview(self._frame.decompress(pending))
        size = len(self._plain) if size < 0 else size
        piece, self._plain = self._plain[:size], self._plain[size:]
        return bytes(piece)


class _NativeBlocks:
    """ClickHouse's compressed blocks: 16 bytes checksum, 1 method, 4 packed size, 4 plain size, data.

    Checksums are not verified: the block's own decoder and TCP stand guard on loopback.
    """

    def __init__(self, raw: Readable, limit: int) -> None:
        self._raw = raw
        self._limit = limit
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
        if packed < 0 or max(packed, plain) > self._limit:
            raise EOFError("a block's size is out of bounds; was the body sent with decompress=1 but uncompressed?")
        data = self._exactly(packed)
        if method == _METHOD_LZ4:
            return bytes(lz4.block.decompress(data, uncompressed_size=plain))
        if method == _METHOD_ZSTD:
            # The library believes the frame before it believes us.
            if zstandard.frame_content_size(data) > plain:
                raise EOFError("a block's zstd frame is larger than the block says")
            return zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompress(data, max_output_size=plain)
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
