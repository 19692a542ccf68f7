"""What a segment of the log is to everybody who handles one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

SIGNALS: Final = ("traces", "metrics", "logs")
SUFFIX: Final = ".seg"


@dataclass(slots=True)
class Segment:
    """A file of the log.

    Attributes:
        id: Its name and the token of its insert.
        signal: ``traces``, ``metrics`` or ``logs``.
        path: Where it lies.
        bytes: Its length.
        records: Spans, data points or log records in it.
        bodies: Requests in it.
        created: Unix time at which it was begun.
    """

    id: str
    signal: str
    path: Path
    bytes: int
    records: int
    bodies: int
    created: float
