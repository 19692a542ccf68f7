"""OTLP/JSON → OTLP protobuf, for senders that speak nothing else (Triton) and for many spans a second.

OTLP's JSON is protobuf's, but for this: trace and span ids are hex, enums are numbers, unknown keys are ignored
(https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding). ``google.protobuf.json_format`` knows neither hex
nor haste; here a table for each message type says what to do with a key, and nothing else is looked up.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from base.otlp_depth import MAX_DEPTH, REACH, Cuts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from google.protobuf.message import Message

    MessageT = TypeVar("MessageT", bound=Message)

_IDS: Final = frozenset({"trace_id", "span_id", "parent_span_id"})
NO_ID: Final = b"no hexadecimal"
"""What an id becomes that is not written in hexadecimal digits: of no id's length, so that spans which have it are
refused one by one and log records lose it alone, as with odd ids in protobuf."""
_INTEGERS: Final = frozenset(
    {
        FieldDescriptor.CPPTYPE_INT32,
        FieldDescriptor.CPPTYPE_INT64,
        FieldDescriptor.CPPTYPE_UINT32,
        FieldDescriptor.CPPTYPE_UINT64,
    }
)


_BRACKETS: Final = 2 * MAX_DEPTH
"""Brackets inside one another that surely hold what is read: a message has its own, and where there are several a
list's."""
_MARKS: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)
"""A string, also one that never ends, so that each sign is looked at once; or a bracket."""


class MalformedJsonError(ValueError):
    """A body that is no OTLP request; the text names the fault for the sender."""


def parse(body: bytes, message: MessageT, cuts: Cuts | None = None) -> MessageT:
    """Fill an empty export request from its JSON, without the lists and maps that lie too deep, and return it.

    Args:
        body: The request as JSON.
        message: Of its kind.
        cuts: Counts what was left out.

    Raises:
        MalformedJsonError: Not JSON, or not of this request's shape; names the key.
    """
    try:
        document = _load(body)
    except ValueError as error:
        raise MalformedJsonError(f"the body is not JSON: {error}") from None
    _fill(message, document, _table(message.DESCRIPTOR), 0, Cuts() if cuts is None else cuts)
    return message


def _load(body: bytes) -> Any:
    try:
        return json.loads(body)
    except RecursionError:
        return json.loads(_shallow(body.decode(json.detect_encoding(body))))


def _shallow(text: str) -> str:
    """JSON with nothing between brackets that are deeper than any message that is read."""
    pieces: list[str] = []
    depth = kept = 0
    for mark in _MARKS.finditer(text):
        sign = mark.group()
        if sign in "[{":
            depth += 1
            if depth == _BRACKETS:
                pieces.append(text[kept : mark.end()])
        elif sign in "]}":
            if depth == _BRACKETS:
                kept = mark.start()
            depth -= 1
    return "".join((*pieces, text[kept:] if depth < _BRACKETS else ""))


class _Field(NamedTuple):
    """``read`` turns a JSON value into the field's; a message's has a descriptor, one that may nest its reach."""

    name: str
    repeated: bool
    read: Callable[[Any], Any] | None
    descriptor: Descriptor | None
    reach: int


@cache
def _table(descriptor: Descriptor) -> Mapping[str, _Field]:
    fields: dict[str, _Field] = {}
    for field in descriptor.fields:
        is_message = field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE
        entry = _Field(
            field.name,
            field.is_repeated,
            None if is_message else _reader(field),
            field.message_type if is_message else None,
            REACH.get(field.name, 0) if is_message else 0,
        )
        fields[field.json_name] = fields[field.name] = entry
    return fields


def _reader(field: FieldDescriptor) -> Callable[[Any], Any]:
    if field.cpp_type in _INTEGERS:
        return _integer
    if field.enum_type is not None:
        names = {value.name: value.number for value in field.enum_type.values}
        return lambda value: names[value] if isinstance(value, str) else _integer(value)
    if field.cpp_type in {FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT}:
        return float  # takes "NaN" and "Infinity" too
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _id if field.name in _IDS else base64.b64decode
    return _same


def _id(value: Any) -> bytes:
    try:
        return bytes.fromhex(value)
    except ValueError:
        return NO_ID


def _same(value: Any) -> Any:
    return value


def _integer(value: Any) -> int:
    if isinstance(value, float) and not value.is_integer():
        raise ValueError(f"{value} is not an integer")
    return int(value)


def _fill(message: Message, document: Any, table: Mapping[str, _Field], depth: int, cuts: Cuts) -> None:
    if not isinstance(document, dict):
        raise MalformedJsonError(f"{message.DESCRIPTOR.name} is not a JSON object")
    for key, value in document.items():
        field = table.get(key)
        if field is None or value is None:
            continue
        if field.reach and depth + field.reach > MAX_DEPTH:
            cuts.count += 1
            continue
        try:
            if field.descriptor is not None:
                _fill_messages(message, field, _table(field.descriptor), value, depth, cuts)
            elif field.repeated:
                getattr(message, field.name).extend(map(field.read, value))  # type: ignore[arg-type]
            else:
                setattr(message, field.name, field.read(value))  # type: ignore[misc]
        except MalformedJsonError:
            raise
        except (TypeError, ValueError, KeyError, OverflowError, binascii.Error) as error:
            raise MalformedJsonError(f"{key} can't be read: {str(error)[:200]}") from None


def _fill_messages(
    message: Message, field: _Field, table: Mapping[str, _Field], value: Any, depth: int, cuts: Cuts
) -> None:
    if not field.repeated:
        inner = getattr(message, field.name)
        inner.SetInParent()
        _fill(inner, value, table, depth + 1, cuts)
        return
    if not isinstance(value, list):
        raise MalformedJsonError(f"{field.name} is not a JSON array")
    add = getattr(message, field.name).add
    for item in value:
        _fill(add(), item, table, depth + 1, cuts)
