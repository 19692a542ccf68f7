"""The answer of every question: a result that says what it rests on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final, Generic, Literal, TypeVar

from analytics.window import iso

if TYPE_CHECKING:
    from analytics.selection import Selection


Level = Literal["rows", "metrics", "steps"]
"""What an answer rests on: one row per request, the server's own metrics page, or one row per engine step."""
Exactness = Literal["exact", "derived", "means"]
"""``exact``: computed from rows, or read from a gauge or counter as the server shows it. ``derived``: read out of a
server's histogram (wrong by up to a bucket) or worked out from other figures. ``means``: only sums exist, so there
is a mean and no percentile."""
State = Literal["value", "no_traffic", "no_data"]
"""``no_traffic``: servers report and nothing was asked of them. ``no_data``: nobody reports, or no server answers."""
_WORST: Final[tuple[Exactness, ...]] = ("means", "derived", "exact")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Coverage:
    """What the store holds for a selection: the ground of *no traffic* against *no data*.

    Attributes:
        rows: Requests (rows of ``requests``) that arrived in the window and are selected.
        samples: Engine samples in the window.
        last_row: Arrival of the newest request of window and filter, selected or not; None without one.
        last_sample: Time of the newest engine sample, None without samples.
        instances_up: Instances whose newest sample in the window says up, and that have not left since.
        instances_down: Instances whose newest sample in the window says down, and that have not left since.
        instances_left: Instances that left on purpose in the window and have no sample since.
        row_instances: Instances that have request rows.
        edge_instances: Instances whose requests were also seen at the edge (failures included).
        sample_instances: Instances that have samples.
        recordings: Names of the recordings among rows and samples.
        settled: Up to when rows by arrival are complete (`analytics.settled`), at most the window's end; None without
            rows.
    """

    rows: int = 0
    samples: int = 0
    last_row: datetime | None = None
    last_sample: datetime | None = None
    instances_up: tuple[str, ...] = ()
    instances_down: tuple[str, ...] = ()
    instances_left: tuple[str, ...] = ()
    row_instances: tuple[str, ...] = ()
    edge_instances: tuple[str, ...] = ()
    sample_instances: tuple[str, ...] = ()
    recordings: tuple[str, ...] = ()
    settled: datetime | None = None

    @property
    def freshness(self) -> datetime | None:
        """Newest time of rows and samples."""
        return max((t for t in (self.last_row, self.last_sample) if t is not None), default=None)

    @property
    def metrics_only(self) -> tuple[str, ...]:
        """Instances that show metrics and have no request rows."""
        return tuple(name for name in self.sample_instances if name not in self.row_instances)

    @property
    def state(self) -> State:
        """Whether requests are selected; else ``no_traffic`` when servers report and nobody asked anything of them.

        ``no_data`` when nobody reports, when all servers are down (what was asked of them is not known), or when
        requests are there and none of them is selected.
        """
        if self.rows:
            return "value"
        if self.instances_down and not self.instances_up:
            return "no_data"
        return "no_traffic" if self.samples and self.last_row is None else "no_data"


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """A question's result and what it rests on.

    Attributes:
        result: The question's own dataclass.
        level: ``rows`` where requests were read one by one, ``metrics`` where only server metrics exist, ``steps``
            where engine steps were read, beside requests where it is ``by_arrival``.
        exactness: The weakest exactness among the result's parts.
        rows: How many requests, samples (level ``metrics``) or steps the result rests on.
        freshness: Time of the newest row or sample used, None when there is none.
        sql: The statements asked, ready to paste, parameters written out.
        recordings: Recordings present among what was read.
        coverage: What the store holds for this selection; `Coverage.state` tells *no traffic* from *no data*.
        notes: Plain sentences about what this result leaves out or cannot know.
        state: Whether there is a value, no traffic (servers report and nothing was asked of them) or no data.
        selection: What it was asked about; None of an answer that nobody asked for.
        by_arrival: Whether figures go by when requests arrived.
    """

    result: T
    level: Level
    exactness: Exactness
    rows: int
    freshness: datetime | None
    sql: tuple[str, ...]
    recordings: tuple[str, ...]
    coverage: Coverage = field(default_factory=Coverage)
    notes: tuple[str, ...] = ()
    state: State = "value"
    selection: Selection | None = None
    by_arrival: bool = True

    @property
    def of_requests(self) -> bool:
        """Whether requests were read one by one, and `rows` counts them."""
        return self.level == "rows" or (self.level == "steps" and self.by_arrival)

    def envelope(self, selection: Selection) -> dict[str, object]:
        """The stable JSON shape of every question.

        Returns:
            ``{"window": {"start", "end", "seconds"}, "filters": {column: [values], …, "recording"}, "level", "rows",
            "result"}``. ``filters`` also holds what else is chosen: ``outcome``, ``latency``, an id. ``result`` holds
            the question's own fields and ``about``: ``{"state", "exactness", "freshness", "recordings", "notes",
            "instances_up", "instances_down", "instances_left"}``, from rows also ``settled_until``:
            arrivals before it are complete, and figures by arrival are of them. Times are ISO 8601 in UTC,
            durations seconds; a figure that is not there is null, and so is an infinite bound.
        """
        plain = as_plain(self.result)
        result: dict[str, object] = plain if isinstance(plain, dict) else {"items": plain}
        about: dict[str, object] = {
            "state": self.state,
            "exactness": self.exactness,
            "freshness": iso(self.freshness) if self.freshness else None,
            "recordings": list(self.recordings),
            "notes": list(self.notes),
            "instances_up": list(self.coverage.instances_up),
            "instances_down": list(self.coverage.instances_down),
            "instances_left": list(self.coverage.instances_left),
        }
        result["about"] = about
        if self.of_requests:
            settled = self.coverage.settled
            about["settled_until"] = iso(settled) if settled else None
        return {
            "window": selection.window.as_json(),
            "filters": selection.as_json(),
            "level": self.level,
            "rows": self.rows,
            "result": result,
        }


def weakest(found: Sequence[Exactness]) -> Exactness:
    """The least exact of several; ``exact`` of none."""
    return min(found, key=_WORST.index, default="exact")


def as_plain(value: object) -> object:
    """JSON-ready form of dataclasses, lists, mappings, times and numbers; NaN and infinity become None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: as_plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, Mapping):
        return {str(key): as_plain(item) for key, item in value.items()}
    if isinstance(value, Sequence | set | frozenset):
        return [as_plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no JSON form")
