"""Requests with a value that nests as deep as one likes, as OTLP/JSON and as bytes that no library would write."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.descriptor import FieldDescriptor

from base.framed import varint
from base.otlp_json import parse
from collector.sift import KINDS

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

_NS: Final = 1_700_000_000_000_000_000
_TRACE, _SPAN, _NEIGHBOUR = "01" * 16, "02" * 8, "03" * 8
_POINTS: Final = ("gauge", "sum", "histogram", "exponentialHistogram", "summary")
PLACES: Final = {
    "traces": ("resource", "scope", "span", "event", "link"),
    "logs": ("resource", "scope", "record", "body"),
    "metrics": ("resource", "scope", "metadata", "exemplar", *_POINTS),
}
"""Where a request of each signal may have a value."""


def lists(levels: int) -> dict[str, Any]:
    """A value of so many lists in one another, as OTLP/JSON."""
    value: dict[str, Any] = {"stringValue": "leaf"}
    for _ in range(levels):
        value = {"arrayValue": {"values": [value]}}
    return value


def maps(levels: int) -> dict[str, Any]:
    """A value of so many maps in one another, as OTLP/JSON."""
    value: dict[str, Any] = {"stringValue": "leaf"}
    for _ in range(levels):
        value = {"kvlistValue": {"values": [{"key": "k", "value": value}]}}
    return value


def request(signal: str, place: str, value: dict[str, Any]) -> dict[str, Any]:
    """A request of two records, with the value as the attribute ``deep`` of one place, or as a body."""

    def at(where: str) -> list[dict[str, Any]]:
        return [{"key": "deep", "value": value}] if where == place else []

    resource, scope = {"attributes": at("resource")}, {"name": "deep", "attributes": at("scope")}
    if signal == "traces":
        times = {"startTimeUnixNano": str(_NS), "endTimeUnixNano": str(_NS + 1), "traceId": _TRACE}
        span = times | {
            "name": "deep", "spanId": _SPAN, "attributes": at("span"),
            "events": [{"name": "e", "timeUnixNano": str(_NS), "attributes": at("event")}],
            "links": [{"traceId": _TRACE, "spanId": _NEIGHBOUR, "attributes": at("link")}],
        }  # fmt: skip
        spans = [span, times | {"name": "beside", "spanId": _NEIGHBOUR}]
        return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": scope, "spans": spans}]}]}
    if signal == "logs":
        records: list[dict[str, Any]] = [
            {"timeUnixNano": str(_NS), "attributes": at("record")},
            {"timeUnixNano": str(_NS), "body": {"stringValue": "beside"}},
        ]
        if place == "body":
            records[0]["body"] = value
        return {"resourceLogs": [{"resource": resource, "scopeLogs": [{"scope": scope, "logRecords": records}]}]}
    kind = place if place in _POINTS else "gauge"
    point: dict[str, Any] = {"timeUnixNano": str(_NS), "attributes": at(kind) if place in _POINTS else []}
    if place == "exemplar":
        point["exemplars"] = [{"timeUnixNano": str(_NS), "asDouble": 1.0, "filteredAttributes": at("exemplar")}]
    metrics = [
        {"name": "deep", "metadata": at("metadata"), kind: {"dataPoints": [point]}},
        {"name": "beside", "gauge": {"dataPoints": [{"timeUnixNano": str(_NS), "asDouble": 1.0}]}},
    ]
    return {"resourceMetrics": [{"resource": resource, "scopeMetrics": [{"scope": scope, "metrics": metrics}]}]}


def encode(signal: str, document: dict[str, Any], *, as_json: bool) -> bytes:
    """A request as its sender's bytes."""
    return json.dumps(document).encode() if as_json else _wire(document, KINDS[signal].DESCRIPTOR)


def _wire(document: dict[str, Any], descriptor: Descriptor) -> bytes:
    """Protobuf of a document: protobuf's own writer stops where its reader does."""
    fields = {field.json_name: field for field in descriptor.fields}
    inner = {key for key in document if fields[key].cpp_type == FieldDescriptor.CPPTYPE_MESSAGE}
    plain: Message = descriptor._concrete_class()
    parse(json.dumps({key: value for key, value in document.items() if key not in inner}).encode(), plain)
    out = bytearray(plain.SerializeToString())
    for key in inner:
        for item in document[key] if fields[key].is_repeated else [document[key]]:
            payload = _wire(item, fields[key].message_type)
            out += varint(fields[key].number << 3 | 2) + varint(len(payload)) + payload
    return bytes(out)
