"""From the bytes of a request to a checked OTLP message: decompressed within a bound, parsed once, scrubbed.

Nothing here walks attributes without a reason seen in the bytes: the parse (upb, in C) is the check, ids are looked at,
and the engine does the rest in SQL.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import cramjam
import zstandard
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from base import otlp_depth, otlp_json
from base.otlp_depth import Cuts
from base.scrub import may_hold_prompts, scrub_request
from collector.nested import flatten, may_nest, scopes_hold_containers
from collector.sift import KINDS, count, other_door, sift

if TYPE_CHECKING:
    from base.scrub import OtlpRequest
    from collector.sift import Refusal

__all__ = ["ENCODINGS", "KINDS", "Decoded", "MalformedError", "TooLargeError", "decode", "decompress"]

ENCODINGS: Final = ("identity", "gzip", "zstd", "deflate", "snappy")
_STEP: Final = 1024


class MalformedError(ValueError):
    """A body that is no OTLP request, or of which nothing can be kept; the text names the fault for the sender.

    Args:
        text: What is wrong.
        reason: A word for the metric.
        records: How many records are refused.
    """

    def __init__(self, text: str, reason: str = "malformed", records: int = 1) -> None:
        self.reason = reason
        self.records = records
        super().__init__(text)


class TooLargeError(Exception):
    """The body is larger than the bound once decompressed."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A request ready for the log.

    Attributes:
        body: Protobuf bytes, scrubbed.
        records: Spans, data points or log records in it.
        scrubbed: Values removed from it.
        refusal: What of the request is refused and no longer in it; None where nothing is.
        cuts: What lay too deep in its records and is no longer in them.
    """

    body: bytes
    records: int
    scrubbed: int
    refusal: Refusal | None = None
    cuts: Cuts = field(default_factory=Cuts)


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """Undo ``Content-Encoding``, one of ``ENCODINGS``.

    Raises:
        TooLargeError: More than ``limit`` bytes come out.
        MalformedError: The data is not of that encoding, or ends too early.
    """
    if encoding == "identity":
        plain = body
    elif encoding == "zstd":
        plain = _unzstd(body, limit)
    elif encoding == "snappy":
        plain = _unsnap(body, limit)
    else:
        plain = _inflate(body, limit, 31 if encoding == "gzip" else 15)
    if len(plain) > limit:
        raise TooLargeError
    return plain


def _unzstd(body: bytes, limit: int) -> bytes:
    # A frame may demand a window of gigabytes before a single byte comes out.
    window = 1 << max(limit, 1 << 23).bit_length()
    context = zstandard.ZstdDecompressor(max_window_size=window)
    try:
        size = zstandard.frame_content_size(body)
        if size > limit:
            raise TooLargeError
        if size > 0:
            try:
                return context.decompress(body, allow_extra_data=False)
            except zstandard.ZstdError:
                return _unzstd_frames(context, body, limit)
        return _unzstd_frames(context, body, limit)
    except zstandard.ZstdError as error:
        raise MalformedError(f"the body is not zstd: {error}") from None


def _unzstd_frames(context: zstandard.ZstdDecompressor, body: bytes, limit: int) -> bytes:
    # Any number of frames whose sizes nobody stated: small steps in bound what one step can bring out.
    out = bytearray()
    rest = body
    while rest:
        frame = context.decompressobj()
        for at in range(0, len(rest), _STEP):
            out += frame.decompress(rest[at : at + _STEP])
            if len(out) > limit:
                raise TooLargeError
            if frame.eof:
                rest = frame.unused_data + rest[at + _STEP :]
                break
        else:
            raise MalformedError("the zstd body ends too early")
    return bytes(out)


def _unsnap(body: bytes, limit: int) -> bytes:
    """A block without frames, as remote write and OpenTelemetry's exporters send it; its size stands in front."""
    size = shift = 0
    for byte in body[:5]:
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:  # noqa: PLR2004 - the last byte of a varint
            break
    else:
        raise MalformedError("the body is not snappy: it does not begin with a size")
    if size > limit:
        raise TooLargeError
    try:
        return bytes(cramjam.snappy.decompress_raw(body))
    except cramjam.DecompressionError as error:
        raise MalformedError(f"the body is not a snappy block: {error}") from None


def _inflate(body: bytes, limit: int, window_bits: int) -> bytes:
    out = bytearray()
    rest = body
    try:
        while rest:
            engine = zlib.decompressobj(window_bits)
            out += engine.decompress(rest, limit + 1 - len(out))
            if len(out) > limit:
                raise TooLargeError
            if not engine.eof:
                raise MalformedError("the compressed body ends too early")
            rest = engine.unused_data
    except zlib.error as error:
        raise MalformedError(f"the body is not gzip or deflate: {error}") from None
    return bytes(out)


def decode(signal: str, body: bytes, *, as_json: bool, store_prompts: bool) -> Decoded:
    """Check a decompressed request and make it fit to be written.

    Raises:
        MalformedError: It is no export request of this signal, or all of its records are refused; names the fault.
    """
    request: OtlpRequest = KINDS[signal]()
    cuts = Cuts()
    if as_json:
        try:
            otlp_json.parse(body, request, cuts)
        except otlp_json.MalformedJsonError as error:
            raise MalformedError(str(error)) from None
        refusal, changed = sift(request), True
    else:
        try:
            otlp_depth.parse(body, request, cuts)
        except DecodeError as error:
            raise MalformedError(f"the body is not an OTLP {signal} request: {error}") from None
        refusal = sift(request)
        changed = cuts.count > 0
        if len(UnknownFieldSet(request)):
            # Beside the one known field there may be ours (15001 and on): nobody else writes those.
            request.DiscardUnknownFields()
            changed = True
    records = count(request)
    if refusal is not None and not records:
        raise MalformedError(refusal.text, refusal.reason, refusal.records)
    if not records and (other := other_door(signal, body, as_json=as_json)):
        raise MalformedError(f"no {signal} are in it, but {other}: send it to /v1/{other}", "signal")
    scrubbed = 0
    if not store_prompts and (as_json or may_hold_prompts(body, logs=signal == "logs")):
        scrubbed = scrub_request(request)
    rendered = 0
    if as_json or may_nest(body, metrics=signal == "metrics") or scopes_hold_containers(request):
        rendered = flatten(request)
    if changed or scrubbed or rendered or refusal:
        body = request.SerializeToString()
    return Decoded(body, records, scrubbed, refusal, cuts)
