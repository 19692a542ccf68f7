"""Attribute values as the views' ``attribute_map``, ``scalar_map`` and ``identity`` make texts of them."""

from __future__ import annotations

import base64
import math
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from collector.plain.landed import OddError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

IDENTITY: Final = (
    "instance", "deployment", "engine", "model", "dp_rank", "role", "region", "cluster", "version", "pod", "node",
    "recording",
)  # fmt: skip
"""Columns that ``identity`` fills, in its order."""
MAP: Final = "Map(LowCardinality(String), String)"
FAR_NS: Final = 9 * 10**18
"""Nanoseconds since 1970 beyond which the views hold a time to the last that its type has."""
_NAMED: Final = (
    "servescope.engine", "servescope.model", "servescope.dp_rank", "servescope.role", "cloud.region",
    "k8s.cluster.name", "service.version", "k8s.pod.name", "host.name", "servescope.recording",
)  # fmt: skip
_PLAIN_BELOW: Final = 21
_PLAIN_ABOVE: Final = -7
_ESCAPED: Final = re.compile('["\\\\/\x00-\x1f\u2028\u2029]')
_SHORT: Final = {'"': '\\"', "\\": "\\\\", "/": "\\/", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}
_CONTAINERS: Final = frozenset({"array_value", "kvlist_value"})


def number(value: float) -> str:
    """A float as ClickHouse's ``toString`` writes it: the fewest digits, an exponent from 1e21 and below 1e-6."""
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    written = repr(value)
    if "e" not in written:
        return written.removesuffix(".0")
    sign, digits, exponent = Decimal(written).normalize().as_tuple()
    if not isinstance(exponent, int):
        raise TypeError("a finite number has an exponent")
    text = "".join(map(str, digits))
    point = len(text) + exponent
    if _PLAIN_ABOVE + 1 < point <= _PLAIN_BELOW:
        if point <= 0:
            text = f"0.{'0' * -point}{text}"
        elif exponent >= 0:
            text += "0" * exponent
        else:
            text = f"{text[:point]}.{text[point:]}"
    elif value:
        text = f"{text[0]}{'.' if text[1:] else ''}{text[1:]}e{point - 1}"
    return f"-{text}" if sign else text


def quoted(text: str) -> str:
    """A text as ClickHouse's ``toJSONString`` writes it."""
    return f'"{_ESCAPED.sub(_escape, text)}"'


def _escape(found: re.Match[str]) -> str:
    return _SHORT.get(found[0]) or f"\\u{ord(found[0]):04X}"


def text_of(value: AnyValue) -> str:
    """A value as ``attribute_map`` renders it, a list or map of plain values as JSON.

    Raises:
        OddError: A list or map within another.
    """
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value
    if kind == "array_value":
        return f"[{','.join(map(_member, value.array_value.values))}]"
    if kind == "kvlist_value":
        return f"{{{','.join(f'{quoted(one.key)}:{_member(one.value)}' for one in value.kvlist_value.values)}}}"
    return _scalar(kind, value)


def _scalar(kind: str | None, value: AnyValue) -> str:
    match kind:
        case "string_value":
            return value.string_value
        case "int_value":
            return str(value.int_value)
        case "double_value":
            return number(value.double_value)
        case "bool_value":
            return "true" if value.bool_value else "false"
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case None:
            return ""
    raise OddError(f"a value of the kind {kind} where only plain ones are read")


def _member(value: AnyValue) -> str:
    kind = value.WhichOneof("value")
    if kind is None:
        return "null"
    text = _scalar(kind, value)
    bare = kind in {"int_value", "bool_value"} or (kind == "double_value" and math.isfinite(value.double_value))
    return text if bare else quoted(text)


def attributes(found: Iterable[KeyValue]) -> dict[str, str]:
    """Attributes as ``attribute_map`` makes a map of them, in their order.

    Raises:
        OddError: See ``text_of``; or a key comes twice, which a ClickHouse map keeps.
    """
    return _map([(one.key, text_of(one.value)) for one in found])


def plain_attributes(found: Iterable[KeyValue]) -> dict[str, str]:
    """Attributes as ``scalar_map`` makes a map of them.

    Raises:
        OddError: A list or map, or a key that comes twice.
    """
    return _map([(one.key, _scalar(one.value.WhichOneof("value"), one.value)) for one in found])


def _map(pairs: list[tuple[str, str]]) -> dict[str, str]:
    if len(made := dict(pairs)) != len(pairs):
        raise OddError("a key that comes twice")
    return made


def identity(resource: Mapping[str, str]) -> tuple[str, ...]:
    """What ``IDENTITY`` is for a resource's attributes."""
    service = resource.get("service.name", "")
    return (
        resource.get("servescope.instance") or resource.get("service.instance.id", ""),
        resource.get("servescope.deployment") or ("" if service.startswith("unknown_service") else service),
        *(resource.get(name, "") for name in _NAMED),
    )
