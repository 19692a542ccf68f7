"""OTLP/JSON to protobuf, at the door: the log and the engine know one form only.

OTLP's JSON differs from protobuf's own in one thing: trace and span ids are hex, not base64. Enums must be numbers
and 64-bit integers may be texts, which protobuf's parser takes as they are.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Any, Final, TypeVar

from google.protobuf import json_format

if TYPE_CHECKING:
    from google.protobuf.message import Message

    MessageT = TypeVar("MessageT", bound=Message)

_IDS: Final = frozenset({"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"})


class MalformedError(ValueError):
    """A body that is no OTLP request; the text names the fault for the sender."""


def parse(body: bytes, message: MessageT) -> MessageT:
    """Fill an export request from its JSON and return it.

    Raises:
        MalformedError: Not JSON, or not of this request's shape; names the place.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"the body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise MalformedError("the body is not a JSON object")
    try:
        _hex_to_base64(document)
        return json_format.ParseDict(document, message, ignore_unknown_fields=True)
    except (json_format.ParseError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise MalformedError(f"the body is not an OTLP request: {str(error)[:300]}") from None


def _hex_to_base64(document: dict[str, Any]) -> None:
    waiting: list[Any] = [document]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting.extend(item)
            continue
        if not isinstance(item, dict):
            continue
        for key, value in item.items():
            if key in _IDS and isinstance(value, str):
                item[key] = _convert(key, value)
            elif isinstance(value, dict | list):
                waiting.append(value)


def _convert(key: str, value: str) -> str:
    try:
        return base64.b64encode(bytes.fromhex(value)).decode()
    except (ValueError, binascii.Error):
        raise MalformedError(f"{key} is not hex") from None
