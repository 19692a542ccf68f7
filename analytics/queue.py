"""How work piles up: arrivals against finishes, waiting and running, and how long a backlog takes to drain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from analytics.window import Answer, Exactness, Filter, Window

if TYPE_CHECKING:
    from datetime import datetime

    from analytics.ground import Reader
    from analytics.shapes import Line


@dataclass(frozen=True, slots=True)
class QueueDynamics:
    """Arrivals, finishes and the backlog between them.

    Attributes:
        step: Seconds of a step.
        times: Starts of the steps.
        arrivals: Per second: from rows; else worked out as finishes plus the change of running + waiting (derived).
        finished: Per second: from rows (arrival + end-to-end time); else the engine's counter.
        waiting, running: Mean number per step, summed over instances.
        queue_p50, queue_p99: Seconds in the engine's queue of the requests that arrived in the step (rows, or derived
            from the engine's histogram).
        queue_mean: Mean seconds in the queue, also where only sums exist.
        drain: Seconds until the waiting ones would have started at this step's finish rate, if nobody else came;
            None while none finish.
        waiting_by_instance: One line per instance.
        running_by_instance: One line per instance.
        waiting_peak: Most waiting at one moment, summed over instances; None without samples.
        drain_seconds: ``drain`` of the newest step that has samples: 0 when nobody waits.
        littles_law: ``arrival rate × mean end-to-end time`` beside the measured mean of running + waiting over the
            window: ``{"expected", "measured"}``; far apart means requests that one of the two views does not see.
        exactness: Weakest of the lines.
    """

    step: int
    times: list[datetime]
    arrivals: Line
    finished: Line
    waiting: Line
    running: Line
    queue_p50: Line
    queue_p99: Line
    queue_mean: Line
    drain: Line
    waiting_by_instance: list[Line]
    running_by_instance: list[Line]
    waiting_peak: float | None
    drain_seconds: float | None
    littles_law: dict[str, float | None]
    exactness: Exactness


def dynamics(store: Reader, window: Window, filter: Filter = Filter(), *, points: int = 120) -> Answer[QueueDynamics]:  # noqa: A002, B008
    """Arrivals, finishes, waiting, running and queue time per step."""
    raise NotImplementedError
