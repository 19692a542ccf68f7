"""What there is to look at: the names of latencies, gauges and rates, with unit, range, labels and who shows them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from analytics.signals import SIGNALS
from base.vocabulary import SIGNALS_WITHOUT_COLUMN, Signal

if TYPE_CHECKING:
    from collections.abc import Mapping

DIMENSIONS: Final = ("model", "tenant", "instance", "deployment", "engine", "region", "version")
OF_REQUESTS: Final = DIMENSIONS
OF_SAMPLES: Final = tuple(name for name in DIMENSIONS if name != "tenant")
OF_INSTANCES: Final = tuple(name for name in OF_SAMPLES if name != "model")
"""Labels of a request, of a server's sample, and of an instance that sends nothing."""

REQUEST_SIGNALS: Final[Mapping[str, tuple[str, str]]] = {
    **{name: (signal.value, signal.present) for name, signal in SIGNALS.items()},
    "itl_p99_seconds": ("itl_p99_seconds", "itl_gaps > 0"),
    "itl_max_seconds": ("itl_max_seconds", "itl_gaps > 0"),
}
"""Latencies of a request: SQL of the value and of whether a row has it, the same as the dashboard's."""
_TITLES: Final = {"itl_p99_seconds": "p99 gap between tokens", "itl_max_seconds": "longest gap between tokens"}
METRIC_SIGNALS: Final = {name: signal.distribution for name, signal in SIGNALS.items() if signal.distribution}
"""Latencies that some server shows as a histogram."""
GAUGES: Final = ("up", "running", "waiting", "kv_cache_usage_ratio", "scrape_seconds")
RATES: Final[Mapping[str, str]] = {
    signal.value.removesuffix("_total") + "_per_second": signal.value.removesuffix("_total") + "_delta"
    for signal in Signal
    if signal.value.endswith("_total")
    and not signal.value.endswith("_seconds_total")
    and signal not in SIGNALS_WITHOUT_COLUMN
}
"""Rate names and the increase columns they come from: ``preemptions_per_second`` → ``preemptions_delta``."""
RATIOS: Final[Mapping[str, tuple[str, str]]] = {
    "prefix_cache_hit_ratio": ("prefix_cache_hits_delta", "prefix_cache_queries_delta")
}
SAMPLE_SIGNALS: Final = (*GAUGES, *RATES, *RATIOS)
JOINED: Final[Mapping[str, str]] = {
    "up": "min",
    "kv_cache_usage_ratio": "max",
    "scrape_seconds": "max",
    "interval_seconds": "max",
}
"""How a column of an instance's ranks and models becomes one: its fullest cache, its slowest scrape; others add up."""
PROGRESS: Final = (
    "generation_tokens_delta",
    "prompt_tokens_delta",
    "requests_finished_delta",
    "requests_failed_delta",
    "engine_steps_delta",
    "inferences_delta",
    "executions_delta",
)
"""Any of these above zero is progress."""
ALWAYS_ASKED: Final = ("up", "scrape_seconds", "interval_seconds")
"""Columns that every sample is asked for."""


def title(signal: str) -> str:
    """A request's latency in words, for a sentence."""
    return _TITLES.get(signal) or SIGNALS[signal].title[:1].lower() + SIGNALS[signal].title[1:]


def columns_of(*names: str) -> dict[str, str]:
    """Columns of the samples that some signals need beside those that are always asked, and how each joins."""
    found: dict[str, str] = {}
    for name in names:
        made = (RATES[name],) if name in RATES else RATIOS.get(name, (name,))
        found |= {column: JOINED.get(column, "sum") for column in made if column not in ALWAYS_ASKED}
    return found


@dataclass(frozen=True, slots=True)
class Sight:
    """What there is to see of a signal.

    Attributes:
        unit: ``ratio``, ``s``, or empty for a count or a rate.
        low, high: Every value lies between them, both included.
        needs: Signals of an engine's page that it is made of; empty: the agent's own.
        labels: By which it can be filtered.
    """

    unit: str
    low: float
    high: float
    needs: tuple[Signal, ...]
    labels: tuple[str, ...] = OF_SAMPLES


def sight_of(signal: str) -> Sight:
    """What there is to see of a signal of ``SAMPLE_SIGNALS``."""
    if signal in RATES:
        return Sight("", 0.0, math.inf, (Signal(RATES[signal].removesuffix("_delta") + "_total"),))
    if signal in RATIOS:
        return Sight("ratio", 0.0, 1.0, tuple(Signal(c.removesuffix("_delta") + "_total") for c in RATIOS[signal]))
    if signal == "up":
        return Sight("", 0.0, 1.0, ())
    if signal == "scrape_seconds":
        return Sight("s", 0.0, math.inf, ())
    return Sight(*(("ratio", 0.0, 1.0) if signal.endswith("_ratio") else ("", 0.0, math.inf)), (Signal(signal),))
