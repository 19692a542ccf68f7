"""How an answer looks on the wire: headers, content types, compression, errors before and inside a stream."""

from __future__ import annotations

import json
import secrets
import zlib
from typing import TYPE_CHECKING, Protocol

import lz4.frame
import zstandard

if TYPE_CHECKING:
    from collector.embedded.engine import Outcome
    from collector.embedded.errors import QueryError
    from collector.embedded.request import Ask

_TYPES = {
    "json": "application/json; charset=UTF-8",
    "csv": "text/csv; charset=UTF-8; header={}",
    "tab": "text/tab-separated-values; charset=UTF-8",
    "xml": "application/xml; charset=UTF-8",
    "text": "text/plain; charset=UTF-8",
    "binary": "application/octet-stream",
}

_TEXTUAL = ("pretty", "vertical", "values", "markdown", "sql", "customseparated", "template", "raw", "line")


class Packer(Protocol):
    """A streaming compressor."""

    def compress(self, data: bytes, /) -> bytes:
        """Compressed bytes that are ready, may be none."""

    def flush(self) -> bytes:
        """The rest, with what marks the end."""

    def cut(self) -> bytes:
        """The rest as far as it can be read, but no end: whoever unpacks it sees that some is missing."""


class _Zlib:
    def __init__(self, window: int) -> None:
        self._stream = zlib.compressobj(3, zlib.DEFLATED, window)

    def compress(self, data: bytes, /) -> bytes:
        return self._stream.compress(data)

    def flush(self) -> bytes:
        return self._stream.flush()

    def cut(self) -> bytes:
        return self._stream.flush(zlib.Z_SYNC_FLUSH)


class _Zstd:
    def __init__(self) -> None:
        self._stream = zstandard.ZstdCompressor(level=1).compressobj()

    def compress(self, data: bytes, /) -> bytes:
        return self._stream.compress(data)

    def flush(self) -> bytes:
        return self._stream.flush()

    def cut(self) -> bytes:
        return self._stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)


class _Lz4:
    def __init__(self) -> None:
        # Nothing is held back, so that there is nothing left where the stream is cut.
        self._frame = lz4.frame.LZ4FrameCompressor(auto_flush=True)
        self._head: bytes = self._frame.begin()

    def compress(self, data: bytes, /) -> bytes:
        packed: bytes = self._head + self._frame.compress(data)
        self._head = b""
        return packed

    def flush(self) -> bytes:
        rest: bytes = self._head + self._frame.flush()
        return rest

    def cut(self) -> bytes:
        head, self._head = self._head, b""
        return head


def packer(accept: str) -> tuple[str, Packer | None]:
    """Choose the answer's compression from ``Accept-Encoding``: (encoding, compressor), ('', None) for none."""
    offered = {part.split(";")[0].strip() for part in accept.split(",")}
    if "zstd" in offered:
        return "zstd", _Zstd()
    if "lz4" in offered:
        return "lz4", _Lz4()
    if "gzip" in offered:
        return "gzip", _Zlib(31)
    if "deflate" in offered:
        return "deflate", _Zlib(15)
    return "", None


def exception_tag() -> str:
    """Sixteen letters that mark an error inside this answer's stream; they can't be guessed from data."""
    return secrets.token_hex(8)


def content_type(form: str) -> str:
    """The content type that a ClickHouse server gives for a format."""
    low = form.lower()
    if low.startswith("csv"):
        return _TYPES["csv"].format("present" if "withnames" in low else "absent")
    if low.startswith(("tabseparated", "tsv", "tskv")):
        return _TYPES["tab"]
    if low.startswith("json"):
        lines = "eachrow" in low
        return "application/x-ndjson; charset=UTF-8" if lines else _TYPES["json"]
    if low == "xml":
        return _TYPES["xml"]
    if low.startswith(
        ("pretty", "vertical", "values", "markdown", "sql", "customseparated", "template", "raw", "line")
    ):
        return _TYPES["text"]
    return _TYPES["binary"]


def headers(ask: Ask, tag: str, form: str = "", timezone: str = "UTC") -> dict[str, str]:
    """Headers of an answer; ``form`` is '' where the statement has no result set (clients would parse it)."""
    found = {
        "X-ClickHouse-Query-Id": ask.query_id.replace("\r", "").replace("\n", ""),
        "X-ClickHouse-Server-Display-Name": "servescope",
        "X-ClickHouse-Timezone": timezone,
        "X-ClickHouse-Exception-Tag": tag,
        "Content-Type": content_type(form) if form else _TYPES["text"],
    }
    if form:
        found["X-ClickHouse-Format"] = form
    return found


def summary(outcome: Outcome | None) -> str:
    """The JSON of ``X-ClickHouse-Summary``: every number as a string, as the server writes it."""
    counts: dict[str, int] = dict.fromkeys(
        ("read_rows", "read_bytes", "written_rows", "written_bytes", "total_rows_to_read", "result_rows"), 0
    )
    if outcome is not None:
        counts |= {
            "read_rows": outcome.rows_read,
            "read_bytes": outcome.bytes_read,
            "written_rows": outcome.rows_written,
            "written_bytes": outcome.bytes_written,
            "elapsed_ns": int(outcome.seconds * 1e9),
        }
    return json.dumps({key: str(value) for key, value in counts.items()}, separators=(",", ":"))


def error_in_stream(error: QueryError, tag: str) -> bytes:
    """The block that ends a stream whose query failed after the headers were sent."""
    message = error.text.rstrip("\n").encode()
    return b"\r\n__exception__\r\n%b\r\n%b\n%d %b\r\n__exception__\r\n" % (
        tag.encode(),
        message,
        len(message) + 1,
        tag.encode(),
    )
