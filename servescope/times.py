"""Times as people type them behind ``--since``, ``--from`` and ``--to``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from base.durations import parse_duration
from base.errors import ConfigError

_LONGEST_SECONDS: Final = 100 * 365 * 86400.0
_FIRST_YEAR: Final = 1971
_LAST_YEAR: Final = 2100


def between(since: str, start: str | None, end: str | None) -> tuple[datetime, datetime]:
    """First and last moment of a window.

    Raises:
        ConfigError: A text is no age or time, or the first is not before the last.
    """
    last = _moment(end, "--to") if end else datetime.now(UTC)
    first = _moment(start, "--from") if start else last - timedelta(seconds=_age(since))
    if first >= last:
        what, fix = ("--to", "Swap the two times") if end else ("now", "Give an earlier --from, or --to as well")
        raise ConfigError(f"--from {first.isoformat()} is not before {what} {last.isoformat()}", fix)
    return first, last


def _age(text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _LONGEST_SECONDS:
        raise ConfigError(f"--since {text!r} is no age", "Give a number and s, m, h or d, such as 10m")
    return seconds


def _moment(text: str, option: str) -> datetime:
    try:
        try:
            moment = datetime.fromtimestamp(float(text), UTC)
        except ValueError:
            moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError):
        moment = None
    if moment is None or not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        fix = f"Give ISO 8601 (2026-01-31T12:00:00Z) or Unix seconds, between {_FIRST_YEAR} and {_LAST_YEAR}"
        raise ConfigError(f"{option} {text!r} is no time", fix)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
