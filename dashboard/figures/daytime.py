"""The viewer's time of day on an axis that must neither fold nor tear where clocks are changed.

Plotly draws wall clocks without a zone. An axis is therefore laid out in the offset that its zone has at the start of
the span, all the way; where clocks change inside the span, its labels are worked out here and say which offset they
mean.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import tzinfo

Span = tuple[datetime, datetime]

_TICKS: Final = 7
_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)
_STEPS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720)
"""Minutes between labels; more is whole days."""
_SEARCHED: Final = 800
"""Points of a span at which its offset is looked at."""


def shift(span: Span, zone: tzinfo) -> timedelta:
    """What all times of an axis are moved by from UTC."""
    return span[0].astimezone(zone).utcoffset() or timedelta(0)


def drawn(moment: datetime, span: Span, zone: tzinfo) -> datetime:
    """A time as Plotly draws it: without a zone, in the axis' one offset."""
    return moment.astimezone(UTC).replace(tzinfo=None) + shift(span, zone)


def meant(place: datetime, span: Span, zone: tzinfo) -> datetime:
    """The time, in UTC, of a place on the axis: what `drawn` does, undone."""
    return (place - shift(span, zone)).replace(tzinfo=UTC)


def changes(span: Span, zone: tzinfo) -> bool:
    """Whether clocks are changed inside the span."""
    start, end = span
    length = end - start
    points = min(max(math.ceil(length / _DAY), 1), _SEARCHED)
    first = shift(span, zone)
    return any(
        (start + length * index / points).astimezone(zone).utcoffset() != first for index in range(1, points + 1)
    )


def ticks(span: Span, zone: tzinfo) -> tuple[list[datetime], list[str]]:
    """Places and labels of an axis in whose span clocks change: round local times, each with its offset."""
    start, end = span
    minutes = next((step for step in _STEPS if (end - start) <= timedelta(minutes=step) * _TICKS), 0)
    days = math.ceil((end - start) / _DAY / _TICKS)
    inside = [
        moment
        for moment in (_round_hours(span, zone, minutes) if minutes else _midnights(span, zone, days))
        if start <= moment <= end
    ]
    with_day = start.astimezone(zone).date() != end.astimezone(zone).date()
    return [drawn(moment, span, zone) for moment in inside], [_label(moment, zone, with_day) for moment in inside]


def _round_hours(span: Span, zone: tzinfo, minutes: int) -> Iterator[datetime]:
    moment = span[0].astimezone(UTC).replace(minute=0, second=0, microsecond=0) - _HOUR
    # offsets of all zones are whole quarters of an hour but for the distant past
    step = timedelta(minutes=min(minutes, 15))
    while moment <= span[1]:
        local = moment.astimezone(zone)
        if (local.hour * 60 + local.minute) % minutes == 0:
            yield moment
        moment += step


def _midnights(span: Span, zone: tzinfo, days: int) -> Iterator[datetime]:
    day = span[0].astimezone(zone).date()
    while (moment := datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)) <= span[1]:
        yield moment
        day += timedelta(days=days)


def _label(moment: datetime, zone: tzinfo, with_day: bool) -> str:
    local = moment.astimezone(zone)
    told = f"{local:%H:%M} {name_of(moment, zone)}"
    return f"{told}<br>{local:%d %b}" if with_day else told


def name_of(moment: datetime, zone: tzinfo) -> str:
    """The offset that a zone has at a time, as its short name (CEST), else as +02:00."""
    local = moment.astimezone(zone)
    name = local.tzname() or ""
    return name if name.isalpha() else local.isoformat()[-6:]
