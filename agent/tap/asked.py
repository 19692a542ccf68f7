"""What a request asks for: the model, and whether the answer is to be a stream."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from agent.tap.bodies import BodySample

_MAX_NAME: Final = 256
_SURE_ERRORS: Final = (ValueError, RecursionError)
_MODEL: Final = re.compile(rb'"model"\s*:\s*("(?:[^"\\]|\\.)*")')
_TOKENS: Final = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[{}\[\]:]|true|false')
_SCAN_BYTES: Final = 16_384
_JSON: Final = b"application/json"
_FORM: Final = b"multipart/form-data"
_URLENCODED: Final = b"application/x-www-form-urlencoded"
_TEXTS: Final = frozenset({b"", _URLENCODED, b"text/plain", b"application/octet-stream"})
"""Kinds that clients put on JSON: none at all, curl's own for ``-d``, a browser's to avoid a preflight."""
_BOUNDARY: Final = re.compile(rb'boundary=(?:"([^"]{1,70})"|([^";,]{1,70}))', re.IGNORECASE)
_FIELD_NAME: Final = re.compile(rb"""\bname ?= ?["']?(model|stream)["']?(?:[;\r\n ]|$)""", re.IGNORECASE)
_PART_HEAD_END: Final = re.compile(rb"\r?\n\r?\n")
_QUOTED: Final = re.compile(rb'filename\*?="(?:[^"\\]|\\.)+"', re.IGNORECASE)
_STREAM: Final = re.compile(rb'(?<!\\)"stream"\s*:\s*(true|false)\b')
_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_STREAMS: Final = ("/generate_stream", "/infer_stream", ":streamRawPredict")
"""Routes of which every answer is a stream of events, whatever the body says."""
_STREAMS_AS_EVENTS: Final = ":streamGenerateContent"
"""Answers with one growing JSON text, unless its query asks for events."""
_STREAMS_UNLESS_TOLD: Final = ("/api/chat", "/api/generate")
"""Ollama's: a body that says nothing of it asks for a stream."""


def path_asks_for_stream(route: str, target: bytes) -> bool:
    """Whether a request asks for a stream without a word of its body.

    Args:
        route: Its route's template.
        target: Its target, as it came.
    """
    return route.endswith(_STREAMS) or (route.endswith(_STREAMS_AS_EVENTS) and b"alt=sse" in target)


def may_name_model(kind: bytes) -> bool:
    """Whether a body of this ``content-type`` is looked into."""
    if kind == _JSON:
        return True
    what = kind.partition(b";")[0].strip().lower()
    return b"json" in what or what in _TEXTS or what == _FORM


def read_request(sample: BodySample, kind: bytes = _JSON, route: str = "") -> tuple[str, bool]:
    """Model and ``stream`` that a request body asks for; of a long one only beginning and end are read.

    Args:
        sample: The body.
        kind: Its ``content-type``.
        route: Its route's template.
    """
    what = kind if kind == _JSON else kind.partition(b";")[0].strip().lower()
    if what == _FORM:
        fields = _form_fields(sample, kind)
    elif b"json" in what or bytes(sample.head[:64]).lstrip()[:1] == b"{":
        message = sample.json()
        fields = message if isinstance(message, dict) else _fields_of_some(sample)
    elif what == _URLENCODED:
        text = bytes(sample.head[:_SCAN_BYTES]).decode("utf-8", "replace")
        fields = {name: values[0] for name, values in parse_qs(text).items() if name in {"model", "stream"}}
    else:
        fields = {}
    model, stream = fields.get("model"), fields.get("stream", route in _STREAMS_UNLESS_TOLD)
    streams = stream is True or (isinstance(stream, str) and stream.lower() in _TRUE)
    return model[:_MAX_NAME] if isinstance(model, str) else "", streams


def _fields_of_some(sample: BodySample) -> dict[str, Any]:
    """Fields of JSON of which only beginning and end are here; none of what is whole and no object."""
    if sample.is_whole():
        return {}
    message = _top_level(bytes(sample.head[:_SCAN_BYTES]))
    if "model" not in message and (match := _MODEL.search(sample.tail)) is not None:
        message["model"] = _loads(match[1])
    if "stream" not in message and (match := _STREAM.search(sample.tail)) is not None:
        message["stream"] = match[1] == b"true"
    return message


def _form_fields(sample: BodySample, kind: bytes) -> dict[str, Any]:
    """Plain fields of a form before and after its files (RFC 7578)."""
    found: dict[str, Any] = {}
    if (match := _BOUNDARY.search(kind)) is None:
        return found
    line = b"--" + (match[1] or match[2].strip())
    parts = bytes(sample.head).split(line)
    if not sample.is_whole():
        parts = [*parts[:-1], *sample.tail.split(b"\n" + line)[1:]]
    for part in parts:
        if (end := _PART_HEAD_END.search(part)) is None:
            continue
        head = part[: end.start()]
        if _QUOTED.search(head) is None and (name := _FIELD_NAME.search(head)) is not None:
            value = part[end.end() :].rstrip(b"\r\n").decode("utf-8", "replace")
            found.setdefault(name[1].decode().lower(), value)
    return found


def _top_level(beginning: bytes) -> dict[str, Any]:
    """Texts and truth values of the outermost object, from the beginning of its JSON alone."""
    found: dict[str, Any] = {}
    depth = 0
    key = previous = b""
    for match in _TOKENS.finditer(beginning):
        token = match[0]
        if token in b"{[":
            depth += 1
        elif token in b"}]":
            depth -= 1
        elif token == b":":
            key = previous if depth == 1 else b""
        elif key:
            name = _loads(key)
            if isinstance(name, str):
                found.setdefault(name, _loads(token))
            key = b""
        previous = token
        if token != b":" and token[:1] in b"{[":
            key = b""
    return found


def _loads(text: bytes) -> Any:
    try:
        return json.loads(text)
    except _SURE_ERRORS:
        return None
