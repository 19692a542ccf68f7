"""The pages, found in ``views/``: one file each, named like its path in the URL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from base import found
from dashboard import views

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


@dataclass(frozen=True, slots=True)
class View:
    """One page.

    Attributes:
        path: In the URL; "" for the front page, whose ``PLACE`` is the lowest.
        title: In the navigation (``TITLE``).
        place: Order in the navigation (``PLACE``).
        draw: Draws it.
        question: Over the page (``QUESTION``); "" where it draws its own head.
        compares: Whether it can compare with an earlier period or another version (``COMPARE``).
        alone: Says whether it shows one thing now, which needs no filters (``alone``).
    """

    path: str
    title: str
    place: int
    draw: Callable[[], None]
    question: str
    compares: bool
    alone: Callable[[], bool]


def found_views() -> tuple[View, ...]:
    """All pages in the order of the navigation.

    Raises:
        NotFoundError: A file of ``views/`` has no ``TITLE``, ``PLACE`` or ``draw``.
    """
    titles, places = found.members(views, "TITLE"), found.members(views, "PLACE")
    drawn = found.members(views, "draw")
    order = sorted(titles, key=lambda name: (places[name], name))

    def view(name: str, module: ModuleType) -> View:
        return View(
            path="" if name == order[0] else name.replace("_", "-"),
            title=titles[name],
            place=places[name],
            draw=drawn[name],
            question=getattr(module, "QUESTION", ""),
            compares=getattr(module, "COMPARE", False),
            alone=getattr(module, "alone", lambda: False),
        )

    return tuple(view(name, found.module(views, name)) for name in order)
