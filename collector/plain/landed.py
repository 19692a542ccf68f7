"""Requests as they lie in the log, read whole or not at all.

What this program's reader would understand otherwise than the engine's is odd: a field of another wire type, a field
that comes twice, two members of a ``oneof``, anything unknown. Such a request does not come out as long as it went in,
and its segment is left to the engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message import DecodeError

from collector.sift import KINDS

if TYPE_CHECKING:
    from google.protobuf.message import Message

_TEXT: Final = FieldDescriptorProto.TYPE_STRING
_BYTES: Final = FieldDescriptorProto.TYPE_BYTES
_FIXED32: Final = FieldDescriptorProto.TYPE_FIXED32
_FIXED64: Final = FieldDescriptorProto.TYPE_FIXED64
_APPENDED: Final = (
    ("tenant", 15001, _TEXT), ("received_ns", 15002, _FIXED64), ("batch", 15003, _TEXT), ("records", 15004, _FIXED32),
    ("crc_of_message", 15005, _FIXED32), ("digest", 15006, _BYTES), ("sender_key_id", 15007, _TEXT),
    ("sender_peer", 15008, _TEXT), ("crc", 15010, _FIXED32),
)  # fmt: skip
"""What ``collector.framing`` appends."""


class OddError(Exception):
    """A request that only the engine may read; the text says what is odd."""


def read(signal: str, message: bytes) -> Any:
    """A message of the log: the request's list of resources beside the appended fields.

    Raises:
        OddError: The engine could read it otherwise, or does not know when it came.
    """
    try:
        found = _LANDED[signal].FromString(message)
    except DecodeError as error:
        raise OddError(str(error)) from None
    found.DiscardUnknownFields()
    if found.ByteSize() != len(message):
        raise OddError("fields that are unknown, repeated or written in a longer form")
    if not found.received_ns:  # type: ignore[attr-defined]  # made at run time
        raise OddError("no time of receipt")
    return found


def _landed(signal: str) -> type[Message]:
    request = KINDS[signal].DESCRIPTOR
    (resources,) = request.fields
    if (of := resources.message_type) is None:
        raise TypeError(f"a request of {signal} holds no messages")
    file = FileDescriptorProto(name=f"servescope/landed_{signal}.proto", package="servescope.landed", syntax="proto2")
    file.dependency.append(of.file.name)
    made = file.message_type.add(name=signal.capitalize())
    made.field.add(
        name=resources.name, number=resources.number, label=FieldDescriptorProto.LABEL_REPEATED,
        type=FieldDescriptorProto.TYPE_MESSAGE, type_name=f".{of.full_name}",
    )  # fmt: skip
    for name, number, kind in _APPENDED:
        made.field.add(name=name, number=number, type=kind, label=FieldDescriptorProto.LABEL_OPTIONAL)
    pool = descriptor_pool.Default()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{made.name}"))


_LANDED: Final = {signal: _landed(signal) for signal in ("traces", "metrics")}
