"""Who hears of an incident: the first route that matches, else everybody. Who is on call stays PagerDuty's business."""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003 pydantic reads it at run time
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from alerts.incidents.incident import rank
from alerts.rules.rule import Severity  # noqa: TC001 pydantic reads it at run time
from alerts.rules.scope import Scope

if TYPE_CHECKING:
    from alerts.incidents.incident import Incident


class Route(BaseModel):
    """Incidents of a kind go to some notifiers.

    Attributes:
        match: Labels that the incident must have in common with all its alerts.
        at_least: Lowest severity.
        notify: Names of notifiers; empty: nobody is told.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    match: Scope = Scope()
    at_least: Severity = "info"
    notify: tuple[str, ...] = ()


def receivers(incident: Incident, routes: Sequence[Route], notifiers: Sequence[str]) -> tuple[str, ...]:
    """Names of the notifiers to tell, in the order of `notifiers`.

    Args:
        incident: The incident.
        routes: In order; the first match decides. Without any match all are told.
        notifiers: All names there are.
    """
    for route in routes:
        if rank(incident.severity) >= rank(route.at_least) and route.match.matches(incident.labels):
            return tuple(name for name in notifiers if name in route.notify)
    return tuple(notifiers)
