"""From the bytes of a request to a checked OTLP message: decompressed within a bound, parsed once, scrubbed.

Nothing here walks spans or attributes: the parse (upb, in C) is the check, and the engine does the rest in SQL.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import zstandard
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from agent import otlp_json
from agent.scrub import may_hold_prompts, scrub_request

if TYPE_CHECKING:
    from agent.scrub import OtlpRequest

KINDS: Final[dict[str, type[ExportTraceServiceRequest | ExportMetricsServiceRequest | ExportLogsServiceRequest]]] = {
    "traces": ExportTraceServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
}
ENCODINGS: Final = ("identity", "gzip", "zstd", "deflate")
_STEP: Final = 1024


class MalformedError(ValueError):
    """A body that is no OTLP request; the text names the fault for the sender."""


class TooLargeError(Exception):
    """The body is larger than the bound once decompressed."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A request ready for the log.

    Attributes:
        body: Protobuf bytes, scrubbed.
        records: Spans, data points or log records in it.
        scrubbed: Values removed from it.
    """

    body: bytes
    records: int
    scrubbed: int


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
        MalformedError: It is no export request of this signal; names the fault.
    """
    request: OtlpRequest = KINDS[signal]()
    changed = as_json
    if as_json:
        try:
            otlp_json.parse(body, request)
        except otlp_json.MalformedJsonError as error:
            raise MalformedError(str(error)) from None
    else:
        try:
            request.ParseFromString(body)
        except DecodeError as error:
            raise MalformedError(f"the body is not an OTLP {signal} request: {error}") from None
        if len(UnknownFieldSet(request)):
            # Beside the one known field there may be ours (15001 and on): nobody else writes those.
            request.DiscardUnknownFields()
            changed = True
    scrubbed = 0
    if not store_prompts and (as_json or may_hold_prompts(body, logs=signal == "logs")):
        scrubbed = scrub_request(request)
    if changed or scrubbed:
        body = request.SerializeToString()
    return Decoded(body, count(request), scrubbed)


def count(request: OtlpRequest) -> int:
    """Spans, data points or log records of a request."""
    if isinstance(request, ExportTraceServiceRequest):
        return sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)
    if isinstance(request, ExportLogsServiceRequest):
        return sum(len(scope.log_records) for resource in request.resource_logs for scope in resource.scope_logs)
    return sum(
        len(getattr(metric, kind).data_points)
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if (kind := metric.WhichOneof("data")) is not None
    )
