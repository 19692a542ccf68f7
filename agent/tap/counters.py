"""The tap's own health, as Prometheus metrics."""

from __future__ import annotations

import sys
import time
import traceback
from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prometheus_client import Metric

_EDGE_BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0)

_LAG_BOUNDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


class Counters:
    """Counters of one tap, in a registry of their own.

    Attributes:
        in_flight: Requests that have begun and not ended.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.in_flight = 0
        self.requests = Tally("servescope_tap_requests", "Requests that ended, by outcome", "outcome")
        self.registry.register(self.requests)
        self.probes = Counter(
            "servescope_tap_probes", "Health and metrics probes passed through unrecorded", registry=self.registry
        )
        self.written = Tally("servescope_tap_records_written", "Records in the spool")
        self.registry.register(self.written)
        self.lost = Counter(
            "servescope_tap_records_lost",
            "Requests that were served and not recorded, by reason",
            ["reason"],
            registry=self.registry,
        )
        self.late = Counter(
            "servescope_tap_records_late",
            "Answers that were not held back for their record because the spool was too slow",
            registry=self.registry,
        )
        self.faults = Counter(
            "servescope_tap_recording_faults",
            "Errors in recording code that serving did not notice, by where",
            ["where"],
            registry=self.registry,
        )
        self.names_overflowed = Counter(
            "servescope_tap_names_overflowed",
            "Requests whose tenant or model was recorded as 'other': too many distinct ones",
            ["kind"],
            registry=self.registry,
        )
        self.refused = Counter(
            "servescope_tap_connections_refused",
            "Connections and requests answered 503 for want of a place, by what was full",
            ["reason"],
            registry=self.registry,
        )
        self.stuck = Counter(
            "servescope_tap_stuck_clients", "Clients cut off that took nothing for too long", registry=self.registry
        )
        self.cut_off = Counter(
            "servescope_tap_requests_cut_off",
            "Requests that were open when a tap process was killed, recorded afterwards",
            registry=self.registry,
        )
        self.lag = Histogram(
            "servescope_tap_loop_lag_seconds",
            "How late the tap's event loop was for what it had planned",
            buckets=_LAG_BOUNDS,
            registry=self.registry,
        )
        self.connections = Gauge("servescope_tap_connections", "Open client connections", registry=self.registry)
        for reason in ("connections", "tunnels", "descriptors"):
            self.refused.labels(reason)  # shown as 0 from the start: who reads sums now and then sees the first rise
        for reason in ("spool", "backlog", "fault"):
            self.lost.labels(reason)
        self.active = Gauge("servescope_tap_active_requests", "Requests in flight", registry=self.registry)
        self.active.set_function(lambda: self.in_flight)
        self.edge = Times(
            "servescope_tap_edge_seconds", "Time at the edge of a request, slow clients included", _EDGE_BOUNDS
        )
        self.registry.register(self.edge)

    def request_ended(self, outcome: str, edge_seconds: float) -> None:
        """Count a request that ended."""
        self.requests.add(outcome)
        self.edge.observe(edge_seconds)


class Tally:
    """A counter that one thread at a time adds to: prometheus_client's own takes a lock and six calls for each.

    Args:
        name: Of the metric.
        text: Its help.
        label: What it is counted by; none counts one number, which is there from the start.
    """

    def __init__(self, name: str, text: str, label: str = "") -> None:
        self._name, self._text, self._label = name, text, label
        self._counts: dict[str, int] = {} if label else {"": 0}
        self._since: dict[str, float] = dict.fromkeys(self._counts, time.time())

    def add(self, value: str = "") -> None:
        """Count one; ``value`` is the label's."""
        counts = self._counts
        if value in counts:
            counts[value] += 1
        else:
            self._since[value] = time.time()
            counts[value] = 1

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client."""
        family = CounterMetricFamily(self._name, self._text, labels=[self._label] if self._label else [])
        for value, count in self._counts.copy().items():
            family.add_metric([value] if self._label else [], count, created=self._since[value])
        yield family

    def describe(self) -> Iterable[Metric]:
        """See prometheus_client."""
        yield CounterMetricFamily(self._name, self._text)


class Times:
    """A histogram that its event loop alone adds to: prometheus_client's own takes two locks for each time.

    Args:
        name: Of the metric.
        text: Its help.
        bounds: Upper bounds of the buckets in seconds, ascending; one without bound is added.
    """

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        self._name, self._text = name, text
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one time."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._total += seconds

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client."""
        names = (*(str(bound) for bound in self._bounds), "+Inf")
        buckets = list(zip(names, accumulate(self._counts), strict=True))
        yield HistogramMetricFamily(self._name, self._text, buckets=buckets, sum_value=self._total)

    def describe(self) -> Iterable[Metric]:
        """See prometheus_client."""
        yield HistogramMetricFamily(self._name, self._text)


def describe_fault() -> str:
    """The exception being handled, without its message: a message may quote what a user wrote."""
    kind, _, trace = sys.exc_info()
    frames = traceback.extract_tb(trace)
    where = f" in {frames[-1].name}, line {frames[-1].lineno}" if frames else ""
    return f"{kind.__name__ if kind else 'no exception'}{where}"
