"""Answers as text for a terminal."""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Any, Final

import click

from base.foreign_text import legible

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHOWN_VALUES: Final = 8
_LEAST_COLUMNS: Final = 40


def print_answer(envelope: dict[str, Any], sentence: str = "") -> None:
    """Print the envelope of a question (`analytics.answer`): its window, then its result as a tree.

    On a terminal lines are as long as it is wide; elsewhere each row is one line, and each of its texts one beneath.

    Args:
        envelope: As `analytics.ask.ask` gives it.
        sentence: What of it is to be read first.
    """
    window = envelope["window"]
    _say(f"{window['start']} to {window['end']}, {envelope['rows']} {envelope['level']}")
    if sentence:
        _say(sentence)
    _tree(envelope["result"], "")


def _tree(value: dict[str, Any], indent: str) -> None:
    for name, item in value.items():
        if isinstance(item, dict):
            _say(name, indent)
            _tree(item, indent + "  ")
        elif isinstance(item, list) and item and isinstance(item[0], dict):
            _say(name, indent)
            for row in item:
                plain = {key: entry for key, entry in row.items() if not isinstance(entry, list)}
                _say("  ".join(f"{key}={_short(entry)}" for key, entry in plain.items()), indent + "  ")
                for key, text in _texts(row):
                    _say(f"{key}: {text}", indent + "    ")
        elif isinstance(item, list):
            _say(f"{name}: {_series(item)}", indent)
        else:
            _say(f"{name}: {_short(item)}", indent)


def _texts(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Texts that a row has several of, such as what shows a cause; each stands beneath it."""
    for key, entry in row.items():
        if isinstance(entry, list):
            yield from ((key, text) for text in entry[:_SHOWN_VALUES] if isinstance(text, str))


def _say(text: str, indent: str = "") -> None:
    # Names are whatever a client says: none steers the terminal, begins a line of its own or turns one round.
    text = legible(text, len(text))
    columns = _columns()
    if columns and len(indent) + len(text) > columns:
        click.echo(
            textwrap.fill(
                text, columns, initial_indent=indent, subsequent_indent=indent + "    ", break_long_words=False,
                break_on_hyphens=False,
            )
        )  # fmt: skip
    else:
        click.echo(indent + text)


def _columns() -> int:
    """Width of the terminal; 0 where there is none, or one too narrow to wrap for."""
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    return columns if columns >= _LEAST_COLUMNS else 0


def _series(values: list[Any]) -> str:
    if len(values) <= _SHOWN_VALUES:
        return ", ".join(_short(value) for value in values) or "none"
    numbers = [value for value in values if isinstance(value, int | float)]
    told = f", last {_short(numbers[-1])}, highest {_short(max(numbers))}" if numbers else ""
    return f"{len(values)} values{told}"


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return "(" + ", ".join(f"{name} {_short(entry)}" for name, entry in value.items()) + ")"
    return "–" if value is None else str(value)
