"""SLOs and budgets: is what was promised kept, and how fast is the rest being spent."""

from __future__ import annotations

from typing import Final

from dashboard.panel import guarded
from dashboard.shell import Look, page

MISSING: Final = "Name an SLO file: servescope up --slos slos.yaml, or alerts.slos in servescope.yaml."


def draw() -> None:
    """The SLO page."""
    page("Is the promise kept?", _body)


def _body(look: Look) -> None:
    guarded("budgets", lambda: _objectives(look))
