"""What is good and what is bad for an objective: decided here for budgets, rules and pages alike.

A request counts when it is a model operation. It is bad when its outcome is the service's fault, or when it took longer
than a limit. A client that leaves tells something too: one that had waited longer than the limit for what it never got
is *known to exceed it*, whatever it would have got (a censored value), so that a server that hangs is no server that
keeps its promise. One that leaves sooner tells nothing about that limit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from analytics.signals import signal_of
from base.vocabulary import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

OPERATION: Final = "operation != ''"
"""Whether a request asked anything of a model: counts, latencies and objectives are of those alone."""
_GONE: Final = f"'{Outcome.CLIENT_ABORT.value}', '{Outcome.UPSTREAM_RESET.value}'"
_CENSORED: Final = {
    # only a stream was going to show its first token at the edge
    "ttft_seconds": f"has_edge = 1 AND stream = 1 AND ttft_seconds = 0 AND outcome IN ({_GONE}, "
    f"'{Outcome.TIMEOUT.value}') AND toFloat64(e2e_seconds)",
    "e2e_seconds": f"has_edge = 1 AND outcome IN ({_GONE}) AND toFloat64(e2e_seconds)",
}
"""Latencies that a request which was given up is known to exceed: whether it was, and the seconds it had waited."""


@dataclass(frozen=True, slots=True)
class Judged:
    """SQL over ``requests``.

    Attributes:
        valid: Whether a request counts.
        bad: Whether it is bad, of those that count.
        parameters: What both need.
    """

    valid: str
    bad: str
    parameters: dict[str, Any] = field(default_factory=dict)


def judged(
    mark: str,
    *,
    bad: Sequence[str] = (),
    limits: Sequence[tuple[str, float]] = (),
    measured_only: bool = False,
    ignored: Sequence[str] = (),
) -> Judged:
    """The tests of one objective.

    Args:
        mark: Distinguishes its parameters from those of others in the same statement.
        bad: Outcomes that are bad.
        limits: Latencies and the slowest good seconds of each.
        measured_only: Only requests of which every limited latency is known, or known to exceed its limit, count.
        ignored: Outcomes that do not count.

    Raises:
        WindowError: There is no such latency.
    """
    parameters: dict[str, Any] = {}
    valid: list[str] = [OPERATION]
    wrong: list[str] = []
    if ignored:
        valid.append(f"NOT has({{ignored_{mark}:Array(String)}}, outcome)")
        parameters[f"ignored_{mark}"] = list(ignored)
    if bad:
        wrong.append(f"has({{bad_{mark}:Array(String)}}, outcome)")
        parameters[f"bad_{mark}"] = list(bad)
    for index, (name, seconds) in enumerate(limits):
        about = signal_of(name)
        limit = f"{{limit_{mark}_{index}:Float64}}"
        parameters[f"limit_{mark}_{index}"] = float(seconds)
        known = f"({about.present})"
        given_up = f"({_CENSORED[name]} > {limit})" if name in _CENSORED else ""
        valid += [f"({known} OR {given_up})" if given_up else known] if measured_only else []
        wrong.append(f"({known} AND toFloat64({about.value}) > {limit})")
        wrong += [given_up] if given_up else []
    return Judged(" AND ".join(valid), " OR ".join(wrong) or "0", parameters)
