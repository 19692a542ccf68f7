"""OTLP/JSON → OTLP protobuf, for senders that speak nothing else (Triton) and for many spans a second.

OTLP's JSON is protobuf's, but for this: trace and span ids are hex, enums are numbers, unknown keys are ignored
(https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding). ``google.protobuf.json_format`` knows neither hex
nor haste; here a table for each message type says what to do with a key, and nothing else is looked up.
"""

from __future__ import annotations

import base64
import binascii
import json
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from google.protobuf.message import Message

    MessageT = TypeVar("MessageT", bound=Message)

MAX_DEPTH: Final = 64
_IDS: Final = frozenset({"trace_id", "span_id", "parent_span_id"})
_INTEGERS: Final = frozenset(
    {
        FieldDescriptor.CPPTYPE_INT32,
        FieldDescriptor.CPPTYPE_INT64,
        FieldDescriptor.CPPTYPE_UINT32,
        FieldDescriptor.CPPTYPE_UINT64,
    }
)


class MalformedJsonError(ValueError):
    """A body that is no OTLP request; the text names the fault for the sender."""


def parse(body: bytes, message: MessageT) -> MessageT:
    """Fill an empty export request from its JSON and return it.

    Raises:
        MalformedJsonError: Not JSON, or not of this request's shape; names the key.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedJsonError(f"the body is not JSON: {error}") from None
    _fill(message, document, _table(message.DESCRIPTOR), 0)
    return message


class _Field(NamedTuple):
    """``read`` turns a JSON value into the field's; ``table`` is that of a message field."""

    name: str
    repeated: bool
    read: Callable[[Any], Any] | None
    descriptor: Descriptor | None


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
        return bytes.fromhex if field.name in _IDS else base64.b64decode
    return _same


def _same(value: Any) -> Any:
    return value


def _integer(value: Any) -> int:
    if isinstance(value, float) and not value.is_integer():
        raise ValueError(f"{value} is not an integer")
    return int(value)


def _fill(message: Message, document: Any, table: Mapping[str, _Field], depth: int) -> None:
    if not isinstance(document, dict):
        raise MalformedJsonError(f"{message.DESCRIPTOR.name} is not a JSON object")
    if depth > MAX_DEPTH:
        raise MalformedJsonError(f"nested more than {MAX_DEPTH} deep")
    for key, value in document.items():
        field = table.get(key)
        if field is None or value is None:
            continue
        try:
            if field.descriptor is not None:
                _fill_messages(message, field, _table(field.descriptor), value, depth)
            elif field.repeated:
                getattr(message, field.name).extend(map(field.read, value))  # type: ignore[arg-type]
            else:
                setattr(message, field.name, field.read(value))  # type: ignore[misc]
        except MalformedJsonError:
            raise
        except (TypeError, ValueError, KeyError, OverflowError, binascii.Error) as error:
            raise MalformedJsonError(f"{key} can't be read: {str(error)[:200]}") from None


def _fill_messages(message: Message, field: _Field, table: Mapping[str, _Field], value: Any, depth: int) -> None:
    if not field.repeated:
        inner = getattr(message, field.name)
        inner.SetInParent()
        _fill(inner, value, table, depth + 1)
        return
    if not isinstance(value, list):
        raise MalformedJsonError(f"{field.name} is not a JSON array")
    add = getattr(message, field.name).add
    for item in value:
        _fill(add(), item, table, depth + 1)
