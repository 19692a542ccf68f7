"""Remote write's two messages as protobuf classes, and one reader for both.

The classes are made here from the field numbers of the specification: no library carries them without all of
Prometheus. Version 1.0 spells labels out in every series, 2.0 refers to a table of symbols; histograms are the same.

Source: https://prometheus.io/docs/specs/prw/remote_write_spec/ and
https://prometheus.io/docs/specs/prw/remote_write_spec_2_0/
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from collector.decode import MalformedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_Field = descriptor_pb2.FieldDescriptorProto
_STRING: Final = _Field.TYPE_STRING
_DOUBLE: Final = _Field.TYPE_DOUBLE
_INT64: Final = _Field.TYPE_INT64
_UINT32: Final = _Field.TYPE_UINT32
_UINT64: Final = _Field.TYPE_UINT64
_SINT32: Final = _Field.TYPE_SINT32
_SINT64: Final = _Field.TYPE_SINT64
_MANY: Final = "many"

_SHARED: Final[dict[str, tuple[tuple[Any, ...], ...]]] = {
    "Sample": (("value", 1, _DOUBLE), ("timestamp", 2, _INT64)),
    "BucketSpan": (("offset", 1, _SINT32), ("length", 2, _UINT32)),
    "Histogram": (
        ("count_int", 1, _UINT64),
        ("count_float", 2, _DOUBLE),
        ("sum", 3, _DOUBLE),
        ("schema", 4, _SINT32),
        ("zero_threshold", 5, _DOUBLE),
        ("zero_count_int", 6, _UINT64),
        ("zero_count_float", 7, _DOUBLE),
        ("negative_spans", 8, "BucketSpan", _MANY),
        ("negative_deltas", 9, _SINT64, _MANY),
        ("negative_counts", 10, _DOUBLE, _MANY),
        ("positive_spans", 11, "BucketSpan", _MANY),
        ("positive_deltas", 12, _SINT64, _MANY),
        ("positive_counts", 13, _DOUBLE, _MANY),
        ("timestamp", 15, _INT64),
        ("custom_values", 16, _DOUBLE, _MANY),
    ),
}
"""Field name, number, type or message, and whether there may be many."""
_V1: Final = {
    **_SHARED,
    "Label": (("name", 1, _STRING), ("value", 2, _STRING)),
    "TimeSeries": (
        ("labels", 1, "Label", _MANY),
        ("samples", 2, "Sample", _MANY),
        ("histograms", 4, "Histogram", _MANY),
    ),
    "WriteRequest": (("timeseries", 1, "TimeSeries", _MANY),),
}
_V2: Final = {
    **_SHARED,
    "Metadata": (("type", 1, _INT64), ("help_ref", 3, _UINT32), ("unit_ref", 4, _UINT32)),
    "TimeSeries": (
        ("labels_refs", 1, _UINT32, _MANY),
        ("samples", 2, "Sample", _MANY),
        ("histograms", 3, "Histogram", _MANY),
        ("metadata", 5, "Metadata"),
    ),
    "Request": (("symbols", 4, _STRING, _MANY), ("timeseries", 5, "TimeSeries", _MANY)),
}
_TYPES: Final = ("", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset")
_NAME: Final = "__name__"
STALE_BITS: Final = 0x7FF0000000000002
"""The NaN by which Prometheus says that a series has ended."""


def _made(package: str, messages: Mapping[str, tuple[tuple[Any, ...], ...]], root: str) -> Any:
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for one, number, kind, *many in fields:
            label = _Field.LABEL_REPEATED if many else _Field.LABEL_OPTIONAL
            field = message.field.add(name=one, number=number, label=label)
            if isinstance(kind, str):
                field.type, field.type_name = _Field.TYPE_MESSAGE, f".{package}.{kind}"
            else:
                field.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{root}"))


WriteRequest: Final = _made("servescope.prometheus.v1", _V1, "WriteRequest")
Request: Final = _made("servescope.prometheus.v2", _V2, "Request")


@dataclass(frozen=True, slots=True)
class Written:
    """One series of a request.

    Attributes:
        name: Of its metric; empty where it has none, which is for the sift to refuse.
        labels: The others, without empty ones.
        kind: Type of its metric where the sender says (``counter``, ``gauge``, ``histogram``, …), else "".
        unit: Of its metric where the sender says, else "".
        help: Likewise.
        samples: Messages with ``value`` and ``timestamp`` in Unix milliseconds.
        histograms: Native histograms with ``timestamp``.
    """

    name: str
    labels: Mapping[str, str]
    kind: str
    unit: str
    help: str
    samples: Sequence[Any]
    histograms: Sequence[Any]


def stale(value: float) -> bool:
    """Whether a value is no value but says that its series has ended."""
    if value == value:  # noqa: PLR0124 - only a NaN is not itself
        return False
    bits: int = struct.unpack("<Q", struct.pack("<d", value))[0]
    return bits == STALE_BITS


def read(body: bytes, *, second: bool) -> list[Written]:
    """The series of a decompressed request, of version 2.0 where ``second``.

    Raises:
        MalformedError: It is no such message, or a series refers to a symbol that is not there.
    """
    request = (Request if second else WriteRequest)()
    try:
        request.ParseFromString(body)
    except DecodeError as error:
        raise MalformedError(f"the body is no remote-write {'2.0' if second else '1.0'} message: {error}") from None
    return list(_second(request) if second else _first(request))


def _first(request: Any) -> Iterator[Written]:
    for one in request.timeseries:
        name, labels = _named((label.name, label.value) for label in one.labels)
        yield Written(name, labels, "", "", "", one.samples, one.histograms)


def _second(request: Any) -> Iterator[Written]:
    symbols = request.symbols
    if symbols and symbols[0]:
        raise MalformedError("the first of the symbols is not the empty text")
    for one in request.timeseries:
        refs = one.labels_refs
        if len(refs) % 2:
            raise MalformedError("labels_refs of a series has an odd length")
        try:
            name, labels = _named(
                zip((symbols[at] for at in refs[::2]), (symbols[at] for at in refs[1::2]), strict=True)
            )
            about = one.metadata
            unit, told = (symbols[about.unit_ref], symbols[about.help_ref]) if symbols else ("", "")
        except IndexError:
            raise MalformedError(
                f"a series refers to a symbol that is not among the {len(symbols)} there are"
            ) from None
        kind = _TYPES[about.type] if 0 <= about.type < len(_TYPES) else ""
        yield Written(name, labels, kind, unit, told, one.samples, one.histograms)


def _named(pairs: Iterable[tuple[str, str]]) -> tuple[str, dict[str, str]]:
    labels = {key: value for key, value in pairs if value}
    return labels.pop(_NAME, ""), labels
