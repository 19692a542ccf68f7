"""Who looks at a page, as his browser tells: time zone, palette, and how he reads a time."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import streamlit as st

from dashboard import theme, words

if TYPE_CHECKING:
    from datetime import datetime, timedelta, tzinfo


def earlier(moment: datetime, days: timedelta, place: tzinfo) -> datetime:
    """The same time of day some days before, also where clocks were changed since."""
    return (moment.astimezone(place) - days).astimezone(UTC)


def zone() -> ZoneInfo:
    """The viewer's time zone, UTC when the browser does not say."""
    try:
        return ZoneInfo(st.context.timezone or "UTC")
    except (ZoneInfoNotFoundError, ValueError):
        return ZoneInfo("UTC")


def colours() -> theme.Palette:
    """Palette of the viewer's mode."""
    return theme.palette(st.context.theme.type)


def clock(moment: datetime, *, milliseconds: bool = False) -> str:
    """A time in the viewer's zone, with the date when it is not today's."""
    return words.local_clock(moment, zone(), milliseconds=milliseconds)
