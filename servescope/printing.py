"""Answers as text for a terminal."""

from __future__ import annotations

from typing import Any, Final

import click

_SHOWN_VALUES: Final = 8


def print_answer(envelope: dict[str, Any]) -> None:
    """Print the envelope of a question (`analytics.answer`): its window, then its result as a tree."""
    window = envelope["window"]
    click.echo(f"{window['start']} to {window['end']}, {envelope['rows']} {envelope['level']}")
    _tree(envelope["result"], "")


def _tree(value: dict[str, Any], indent: str) -> None:
    for name, item in value.items():
        if isinstance(item, dict):
            click.echo(f"{indent}{name}")
            _tree(item, indent + "  ")
        elif isinstance(item, list) and item and isinstance(item[0], dict):
            click.echo(f"{indent}{name}")
            for row in item:
                plain = {key: entry for key, entry in row.items() if not isinstance(entry, list)}
                click.echo(indent + "  " + "  ".join(f"{key}={_short(entry)}" for key, entry in plain.items()))
        elif isinstance(item, list):
            click.echo(f"{indent}{name}: {_series(item)}")
        else:
            click.echo(f"{indent}{name}: {_short(item)}")


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
