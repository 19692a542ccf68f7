"""The tap's own health, as Prometheus metrics."""

from __future__ import annotations

import sys
import traceback

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_EDGE_BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0)

_LAG_BOUNDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


class Counters:
    """Counters of one tap, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "servescope_tap_requests", "Requests that ended, by outcome", ["outcome"], registry=self.registry
        )
        self.probes = Counter(
            "servescope_tap_probes", "Health and metrics probes passed through unrecorded", registry=self.registry
        )
        self.written = Counter("servescope_tap_records_written", "Records in the spool", registry=self.registry)
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
        self.edge = Histogram(
            "servescope_tap_edge_seconds",
            "Time at the edge of a request, slow clients included",
            buckets=_EDGE_BOUNDS,
            registry=self.registry,
        )


def describe_fault() -> str:
    """The exception being handled, without its message: a message may quote what a user wrote."""
    kind, _, trace = sys.exc_info()
    frames = traceback.extract_tb(trace)
    where = f" in {frames[-1].name}, line {frames[-1].lineno}" if frames else ""
    return f"{kind.__name__ if kind else 'no exception'}{where}"
