"""Requests counted in one pass by who served them and how they ended: outcomes, a model's servers, instances."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from base.named_sql import beside

if TYPE_CHECKING:
    from collections.abc import Sequence

    from analytics.inquiry import Inquiry

_SQL: Final = beside(__file__)


@dataclass(slots=True)
class Servers:
    """What answered for one model."""

    engines: set[str] = field(default_factory=set)
    deployments: set[str] = field(default_factory=set)
    instances: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Asked:
    """What request rows tell of one instance; deployment and the like are those of its newest request."""

    instance: str
    recording: str
    n: int = 0
    newest_ms: int = -1
    deployment: str = ""
    engine: str = ""
    region: str = ""
    version: str = ""
    models: set[str] = field(default_factory=set)
    ranks: set[str] = field(default_factory=set)


def request_counts(inquiry: Inquiry) -> list[dict[str, Any]]:
    """Requests by model, engine, deployment, instance, region, version, rank, recording and outcome; most first."""
    return inquiry.ask("request_counts", sql=_SQL)


def outcomes_of(found: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Requests by outcome, most first; an empty outcome is ``ok``."""
    sums: dict[str, int] = {}
    for row in found:
        name = str(row["ended"]) or "ok"
        sums[name] = sums.get(name, 0) + int(row["n"])
    return dict(sorted(sums.items(), key=lambda item: (-item[1], item[0])))


def servers_of(found: Sequence[dict[str, Any]]) -> dict[str, Servers]:
    """By model, what answered for it."""
    held: dict[str, Servers] = {}
    for row in found:
        of_model = held.setdefault(str(row["name_of_model"]), Servers())
        of_model.engines.add(str(row["name_of_engine"]))
        of_model.deployments.add(str(row["name_of_deployment"]))
        of_model.instances.add(str(row["name_of_instance"]))
    return held


def instances_of(found: Sequence[dict[str, Any]]) -> dict[tuple[str, str], Asked]:
    """By instance and recording, what its requests tell."""
    held: dict[tuple[str, str], Asked] = {}
    for row in found:
        key = (str(row["name_of_instance"]), str(row["recorded"]))
        one = held.setdefault(key, Asked(*key))
        one.n += int(row["n"])
        one.models.add(str(row["name_of_model"]))
        one.ranks.add(str(row["rank_name"]))
        if int(row["newest_ms"]) > one.newest_ms:
            one.newest_ms = int(row["newest_ms"])
            one.deployment, one.engine = str(row["name_of_deployment"]), str(row["name_of_engine"])
            one.region, one.version = str(row["name_of_region"]), str(row["name_of_version"])
    return held
