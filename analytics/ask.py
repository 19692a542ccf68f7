"""Questions by name, for the command line and for machines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analytics.window import Filter, Window

if TYPE_CHECKING:
    from analytics.ground import Reader


def ask(name: str, store: Reader, window: Window, filter: Filter = Filter(), **options: object) -> dict[str, object]:  # noqa: A002, B008
    """The envelope (`Answer.envelope`) of the question of that name: ``latency``, ``queue``, ``budget``, …."""
    raise NotImplementedError
