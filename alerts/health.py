"""``/healthz`` and ``/metrics`` of the alerts process."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from base.errors import PortInUseError
from base.prompt_server import PromptServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from prometheus_client.core import Metric

    from alerts.deliver.outbox import Outbox
    from alerts.engine import Engine
    from alerts.journal import Journal
    from alerts.worker import Worker

STALE_ROUNDS: Final = 6
"""A process that has missed so many rounds is not well."""


class Status:
    """What there is to say, gathered when asked.

    Args:
        engine: The loop.
        outbox: Its messages.
        journal: Its memory.
        workers: The tasks that must run.
        every_seconds: Pause between rounds.
        clock: Unix seconds.
    """

    def __init__(
        self,
        engine: Engine,
        outbox: Outbox,
        journal: Journal,
        workers: Sequence[Worker],
        every_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._engine, self._outbox, self._journal, self._clock = engine, outbox, journal, clock
        self._workers = workers
        self._patience = max(STALE_ROUNDS * every_seconds, 60.0)
        self._started = clock()

    def summary(self) -> tuple[bool, dict[str, Any]]:
        """Whether every task goes on, and the numbers.

        A store that is away does not make the pager unwell: it says so.
        """
        health, watch, now = self._engine.health, self._engine.watch, self._clock()
        age = now - (health.last_round_at or self._started)
        tasks = [worker.wellness() for worker in self._workers]
        oldest = self._outbox.oldest_unsent()
        return age < self._patience and all(task.well for task in tasks), {
            "rounds": health.rounds,
            "last_round_age_seconds": round(age, 3),
            "last_round_seconds": round(health.last_round_seconds, 4),
            "store_reachable": watch.away_since is None and health.rounds > 0,
            "store_error": watch.error,
            "pending": health.pending,
            "firing": health.firing,
            "open_incidents": health.open_incidents,
            "failing_rules": dict(health.failing_rules),
            "tasks": {
                task.name: {
                    "well": task.well,
                    "failures": task.failures,
                    "last_error": task.last_error if task.failing else "",
                    "busy_seconds": round(task.busy_seconds, 3),
                }
                for task in tasks
            },
            "notifications": self._outbox.counts(),
            "oldest_unsent_seconds": 0.0 if oldest is None else round(max(0.0, now - oldest), 3),
            "journal_error": self._journal.error,
            "history_rows_waiting": self._journal.waiting,
            "history_rows_dropped": self._journal.dropped_rows,
            "history_rows_set_aside": self._journal.aside_rows,
        }

    def collect(self) -> Iterator[Metric]:
        """Prometheus metrics."""
        _, told = self.summary()
        health = self._engine.health
        yield CounterMetricFamily("servescope_alerts_rounds", "Rounds of evaluation.", value=health.rounds)
        yield CounterMetricFamily(
            "servescope_alerts_failed_rounds",
            "Rounds in which the store did not answer.",
            value=self._engine.watch.failures,
        )
        gauges = {
            "round_seconds": ("Duration of the last round.", health.last_round_seconds),
            "last_round_age_seconds": ("Time since the last round.", told["last_round_age_seconds"]),
            "store_reachable": ("1 when the store answered last time.", float(told["store_reachable"])),
            "pending": ("Alerts whose condition holds and that do not fire yet.", health.pending),
            "firing": ("Alerts that fire.", health.firing),
            "open_incidents": ("Incidents that are not resolved.", health.open_incidents),
            "history_rows_waiting": ("Rows of history on their way to the store.", told["history_rows_waiting"]),
            "history_rows_dropped": ("Rows of history given up.", told["history_rows_dropped"]),
            "journal_written": (
                "0 while the disk takes nothing and what changes is in memory alone.",
                not told["journal_error"],
            ),
            "failing_rules": ("Rules that could not be judged in the last round.", len(health.failing_rules)),
            "oldest_unsent_seconds": ("Age of the oldest message on its way.", told["oldest_unsent_seconds"]),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(f"servescope_alerts_{name}", text, value=float(value))
        yield CounterMetricFamily(
            "servescope_alerts_history_rows_set_aside",
            "Rows of history that the store refuses for good.",
            value=told["history_rows_set_aside"],
        )
        yield CounterMetricFamily(
            "servescope_alerts_notifier_trips", "Attempts in which a notifier itself failed.", value=self._outbox.trips
        )
        failures = CounterMetricFamily("servescope_alerts_task_failures", "Faults of a task.", labels=["task"])
        well = GaugeMetricFamily("servescope_alerts_task_well", "1 while a task goes on.", labels=["task"])
        for name, task in told["tasks"].items():
            failures.add_metric([name], task["failures"])
            well.add_metric([name], float(task["well"]))
        yield from (failures, well)
        notifications = GaugeMetricFamily(
            "servescope_alerts_notifications", "Messages kept in the journal, by status.", labels=["status"]
        )
        for status, count in told["notifications"].items():
            notifications.add_metric([status], count)
        yield notifications


def _status(well: bool, told: Mapping[str, Any]) -> str:
    """``degraded``: it pages, and something of it is not as it should be; a restart would mend nothing."""
    return "unwell" if not well else "degraded" if told["journal_error"] or told["failing_rules"] else "ok"


class HealthServer:
    """Serves a :class:`Status`.

    Raises:
        PortInUseError: The port is taken.
    """

    def __init__(self, status: Status, host: str, port: int) -> None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(status)
        try:
            self._server = _Server((host, port), _Handler)
        except OSError as error:
            raise PortInUseError(
                f"Alerts can't listen on {host}:{port}: {error.strerror}", "Set alerts.health_port to a free port"
            ) from error
        self._server.status, self._server.registry = status, registry
        self.url = f"http://{host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)

    def start(self) -> HealthServer:
        """Serve in a thread."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop serving and let go of the port."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(5)
        self._server.server_close()


class _Server(PromptServer):
    status: Status
    registry: CollectorRegistry


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 10

    def do_GET(self) -> None:
        if self.path == "/healthz":
            well, told = self.server.status.summary()
            body = json.dumps({"status": _status(well, told), **told}).encode()
            self._send(200 if well else 503, "application/json", body)
        elif self.path == "/metrics":
            self._send(200, "text/plain; version=0.0.4", generate_latest(self.server.registry))
        else:
            self._send(404, "text/plain", b"not found\n")

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Probes are not worth a line."""
