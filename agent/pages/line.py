"""One line of a page in Prometheus text: name, labels, value, timestamp.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4, with quoted UTF-8 names).
"""

from __future__ import annotations

import re
from typing import Final

_NAME: Final = re.compile(rb"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL: Final = re.compile(
    rb"""[ \t]*(?:(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)|"(?P<quoted>(?:[^"\\]|\\.)*)")"""
    rb"""[ \t]*(?:=[ \t]*"(?P<value>(?:[^"\\]|\\.)*)"[ \t]*)?(?:,[ \t]*|(?=\}))"""
)
_SPACES: Final = re.compile(rb"[ \t]*")
_ESCAPE: Final = re.compile(r'\\[\\n"]')
_ESCAPED: Final = {"\\\\": "\\", "\\n": "\n", '\\"': '"'}
_OPEN: Final = ord("{")
_CLOSE: Final = ord("}")


def unescaped(raw: bytes) -> str:
    """A name, or what stands between quotes, as text."""
    text = raw.decode()
    return _ESCAPE.sub(lambda hit: _ESCAPED[hit.group()], text) if "\\" in text else text


def _labels(line: bytes, position: int, limit: int) -> tuple[str, dict[str, str], int]:
    """Labels that begin after the ``{`` at ``position``: (quoted metric name or "", labels, offset after ``}``)."""
    name, labels = "", {}
    position = _SPACES.match(line, position + 1).end()  # type: ignore[union-attr]  # matches the empty text too
    while position < len(line) and line[position] != _CLOSE:
        hit = _LABEL.match(line, position)
        if hit is None:
            raise ValueError("bad label")
        key = unescaped(hit["name"] if hit["quoted"] is None else hit["quoted"])
        if hit["value"] is None:
            if hit["quoted"] is None or name:
                raise ValueError("label without a value")
            name = key
        elif key in labels:
            raise ValueError(f"label {key!r} twice")
        else:
            labels[key] = unescaped(hit["value"])
            if len(labels) > limit:
                raise ValueError(f"more than {limit} labels")
        position = hit.end()
    if position >= len(line):
        raise ValueError("labels without an end")
    return name, labels, position + 1


def _number(raw: bytes) -> float:
    if b"_" in raw:  # Python reads 1_000, Prometheus does not
        raise ValueError("bad value")
    return float(raw)


def value_of(raw: bytes) -> tuple[float, float | None]:
    """Value and timestamp (milliseconds on the page → seconds) after a series; an OpenMetrics exemplar is left out.

    Raises:
        ValueError: It is neither.
    """
    parts = raw.partition(b" # ")[0].split()
    if not 1 <= len(parts) <= 2:  # noqa: PLR2004 - a value and perhaps a timestamp
        raise ValueError("no value" if not parts else "text after the value")
    return _number(parts[0]), _number(parts[1]) / 1000 if len(parts) > 1 else None


def last_word(raw: bytes) -> tuple[float, float | None]:
    """What `value_of` says of text without a blank, in which other white space may stand."""
    try:
        return _number(raw), None
    except ValueError:
        return value_of(raw)


def name_and_labels(line: bytes, limit: int) -> tuple[str, dict[str, str], int]:
    """What identifies a line, and the offset at which its value begins.

    Args:
        line: Without white space around it.
        limit: Labels that it may have.

    Raises:
        ValueError: It is no sample; says why.
    """
    hit = _NAME.match(line)
    name, position = (hit.group().decode(), hit.end()) if hit else ("", 0)
    position = _SPACES.match(line, position).end()  # type: ignore[union-attr]  # matches the empty text too
    labels: dict[str, str] = {}
    if position < len(line) and line[position] == _OPEN:
        inner, labels, position = _labels(line, position, limit)
        if name and inner:
            raise ValueError("metric name twice")
        name = name or inner
        position = _SPACES.match(line, position).end()  # type: ignore[union-attr]  # matches the empty text too
    elif hit and position == hit.end():
        raise ValueError("bad metric name" if position < len(line) else "no value")
    if not name:
        raise ValueError("no metric name")
    return name, labels, position
