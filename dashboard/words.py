"""Numbers and times as people read them: three significant digits, always a unit, never 0 for nothing."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from base.formats import rounded, three

if TYPE_CHECKING:
    from datetime import tzinfo

NOTHING: Final = "–"
_SCALED: Final = {"bytes_per_second": "B/s", "flop_per_second": "FLOP/s"}


def seconds(value: float | None) -> str:
    """A measured duration (`base.formats.rounded`)."""
    return NOTHING if value is None or not math.isfinite(value) else rounded(value)


def signed(value: float) -> str:
    """A difference of durations: ``+3.05 s``, ``−12 ms``, ``0 s``."""
    told = seconds(value)
    return f"+{told}" if value > 0 else told


def ratio(value: float | None) -> str:
    """A share as per cent: ``99.93 %``; near one it keeps the digits that matter."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if 0.99 < value < 1:  # noqa: PLR2004 - there the nines count
        return f"{value * 100:.2f} %"
    return f"{three(value * 100)} %"


def count(value: float | None) -> str:
    """An amount: ``12``, ``1,230``, ``45.1 k``, ``3.2 M``."""
    if value is None or not math.isfinite(value):
        return NOTHING
    size = abs(value)
    if size >= 1e6:  # noqa: PLR2004 - where the unit changes
        return f"{three(value / 1e6)} M"
    if size >= 1e4:  # noqa: PLR2004 - as above
        return f"{three(value / 1e3)} k"
    return three(value)


def per_second(value: float | None) -> str:
    """A rate: ``12.3 /s``."""
    return NOTHING if value is None else f"{count(value)} /s"


def scaled(value: float | None, unit: str) -> str:
    """An amount of a unit that takes prefixes: ``12.3 MB/s``, ``312 TFLOP/s``."""
    if value is None or not math.isfinite(value):
        return NOTHING
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{three(value / size)} {prefix}{unit}"
    return f"{three(value)} {unit}"


def figure(value: float | None, unit: str) -> str:
    """A value in the unit of `analytics.series.Unit`."""
    if unit == "seconds":
        return seconds(value)
    if unit == "ratio":
        return ratio(value)
    if unit in {"per_second", "tokens_per_second"}:
        return per_second(value)
    if unit in _SCALED:
        return scaled(value, _SCALED[unit])
    return count(value)


def ago(moment: datetime | None, now: datetime | None = None) -> str:
    """How long ago: ``3 s ago``; a recording may lie ahead by a moment."""
    if moment is None:
        return NOTHING
    passed = ((now or datetime.now(UTC)) - moment).total_seconds()
    return "now" if passed < 1 else f"{seconds(round(passed))} ago"


def plural(number: float, word: str) -> str:
    """``1 request``, ``1,230 requests``."""
    return f"{number:,.0f} {word}" if number == 1 else f"{number:,.0f} {word}s"


def clock(moment: datetime) -> str:
    """UTC time of day to the second, with the date when it is not today's."""
    moment = moment.astimezone(UTC)
    today = datetime.now(UTC).date()
    return f"{moment:%H:%M:%S} UTC" if moment.date() == today else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def local_clock(moment: datetime, zone: tzinfo, *, milliseconds: bool = False, now: datetime | None = None) -> str:
    """Time of day in a zone, with the date when it is not today's there."""
    local = moment.astimezone(zone)
    text = f"{local:%H:%M:%S}" + (f".{local.microsecond // 1000:03d}" if milliseconds else "")
    if local.replace(fold=0).utcoffset() != local.replace(fold=1).utcoffset():
        text += f" {local:%Z}"  # an hour that comes twice
    return text if local.date() == (now or datetime.now(UTC)).astimezone(zone).date() else f"{local:%d %b} {text}"


def span(start: datetime, end: datetime, zone: tzinfo) -> str:
    """A window in a zone: ``10:02:00 to 10:17:00``."""
    first, last = start.astimezone(zone), end.astimezone(zone)
    told = [local_clock(start, zone), local_clock(end, zone)]
    if first.utcoffset() != last.utcoffset():
        told = [text.removesuffix(f" {at:%Z}") + f" {at:%Z}" for text, at in zip(told, (first, last), strict=True)]
    return " to ".join(told)


def change(value: float | None, before: float | None, unit: str) -> str:
    """What became of a figure since the compared period, in words: ``+5.9 s``, ``no change``; shares in points."""
    if value is None or before is None:
        return ""
    gap = value - before
    if abs(gap) <= abs(before) * 0.005:
        return "no change"
    sign = "+" if gap > 0 else "−"
    return f"{sign}{three(abs(gap) * 100)} points" if unit == "ratio" else f"{sign}{figure(abs(gap), unit)}"


def short(identifier: str, length: int = 10) -> str:
    """An identifier shortened in the middle of a table."""
    return identifier if len(identifier) <= length + 1 else f"{identifier[:length]}…"
