"""Figures that stand elsewhere, as lines of a page: read, recorded and played again like all others.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


def histogram(
    family: str, bounds: Sequence[int], series: Iterable[tuple[Mapping[str, str], Mapping[int, int]]]
) -> bytes:
    """A histogram of whole numbers.

    Args:
        family: Its name.
        bounds: Upper bounds of the buckets, ascending; what is above the last is under +Inf alone.
        series: Labels, and how often each value was there since the server's start.

    Returns:
        The ``# TYPE`` line, which is there without a series too, and the lines of each series.
    """
    lines = [f"# TYPE {family} histogram"]
    for labels, counts in series:
        named = ",".join([f'{name}="{_escaped(value)}"' for name, value in labels.items()])
        below, left = 0, sorted(counts.items(), reverse=True)
        for bound in bounds:
            while left and left[-1][0] <= bound:
                below += left.pop()[1]
            lines.append(f'{family}_bucket{{{named},le="{bound}"}} {below}')
        whole = sum(counts.values())
        lines.append(f'{family}_bucket{{{named},le="+Inf"}} {whole}')
        lines.append(f"{family}_sum{{{named}}} {sum(value * count for value, count in counts.items())}")
        lines.append(f"{family}_count{{{named}}} {whole}")
    return _joined(lines)


def counters(family: str, series: Iterable[tuple[Mapping[str, str], int]]) -> bytes:
    """A counter: its ``# TYPE`` line and one line for each series of labels and value."""
    lines = [f"# TYPE {family} counter"]
    for labels, value in series:
        named = ",".join([f'{name}="{_escaped(text)}"' for name, text in labels.items()])
        lines.append(f"{family}{{{named}}} {value}")
    return _joined(lines)


def after(body: bytes, lines: bytes) -> bytes:
    """A page with further lines at its end."""
    if not lines:
        return body
    return body + lines if body.endswith(b"\n") else body + b"\n" + lines


def _joined(lines: Iterable[str]) -> bytes:
    return "".join([f"{line}\n" for line in lines]).encode(errors="replace")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
