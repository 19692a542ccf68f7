"""The argument and the answer of every question: a window of time, a filter, and a result that says what it rests on.

Times are aware UTC datetimes; a window is half open, ``[start, end)``. Steps and ends are rounded so that viewers who
look at the same thing at nearly the same time ask the same query and share its cached result.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Generic, Literal, TypeVar

from base.errors import ServescopeError

Level = Literal["rows", "metrics"]
"""What an answer rests on: one row per request, or the server's own metrics page."""

Exactness = Literal["exact", "derived", "means"]
"""``exact``: computed from rows, or read from a gauge or counter as the server shows it. ``derived``: read out of a
server's histogram (wrong by up to a bucket) or worked out from other figures. ``means``: only sums exist, so there
is a mean and no percentile."""

State = Literal["value", "no_traffic", "no_data"]
"""``no_traffic``: servers report and nothing was asked of them. ``no_data``: nobody reports."""

STEPS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
"""Seconds a step may have: divisors of a day, so that steps of every window lie on the same grid."""

_DAY: Final = 86400
T = TypeVar("T")


class WindowError(ServescopeError):
    """A window or filter makes no sense; names the field."""


@dataclass(frozen=True, slots=True)
class Window:
    """A half-open span of time ``[start, end)``.

    Args:
        start: First instant, aware; kept in UTC.
        end: First instant after the window, aware; later than ``start``.

    Raises:
        WindowError: A time has no zone, or the end is not after the start.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        for name, value in (("start", self.start), ("end", self.end)):
            if value.tzinfo is None:
                raise WindowError(f"The window's {name} {value.isoformat()} has no time zone", "Add one, such as Z")
            object.__setattr__(self, name, value.astimezone(UTC))
        if self.end <= self.start:
            raise WindowError(
                f"The window ends at {iso(self.end)}, not after its start {iso(self.start)}", "Swap the two times"
            )

    @classmethod
    def last(cls, seconds: float, now: datetime | None = None, round_to: int = 5) -> Window:
        """The window of ``seconds`` that ends at ``now``, rounded down to a multiple of ``round_to`` seconds."""
        at = (now or datetime.now(UTC)).timestamp()
        end = math.floor(at / round_to) * round_to
        return cls(datetime.fromtimestamp(end - seconds, UTC), datetime.fromtimestamp(end, UTC))

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return (self.end - self.start).total_seconds()

    @property
    def from_ms(self) -> int:
        """Start in Unix milliseconds, rounded down."""
        return _milliseconds(self.start)

    @property
    def to_ms(self) -> int:
        """End in Unix milliseconds, rounded up so that no row of the window falls out."""
        whole = _milliseconds(self.end)
        return whole + (self.end.microsecond % 1000 > 0)

    def step(self, points: int = 120) -> int:
        """Seconds of one step so that the window has at most about ``points`` of them; from `STEPS`, then days."""
        wanted = self.seconds / max(points, 1)
        for step in STEPS:
            if step >= wanted:
                return step
        return math.ceil(wanted / _DAY) * _DAY

    def times(self, step: int) -> list[datetime]:
        """Starts of all steps that the window touches, on the grid of whole multiples of ``step`` since 1970."""
        width = step * 1000
        first = self.from_ms // width
        last = (self.to_ms - 1) // width
        return [datetime.fromtimestamp(index * step, UTC) for index in range(first, last + 1)]

    def covered(self, step: int) -> list[float]:
        """Seconds of each step of `times` that lie inside the window: the divisor of a rate at both edges."""
        width = step * 1000
        first, last = self.from_ms // width, (self.to_ms - 1) // width
        return [
            (min((index + 1) * width, self.to_ms) - max(index * width, self.from_ms)) / 1000
            for index in range(first, last + 1)
        ]

    def previous(self) -> Window:
        """The window of the same length that ends where this one starts."""
        return Window(self.start - (self.end - self.start), self.start)

    def as_json(self) -> dict[str, object]:
        """``{"start", "end", "seconds"}`` with ISO 8601 times."""
        return {"start": iso(self.start), "end": iso(self.end), "seconds": self.seconds}


@dataclass(frozen=True, slots=True)
class Filter:
    """What of the window is looked at: every field is a set of accepted values, empty for all.

    Engine samples know no tenant: a question that reads them under a tenant filter says so in its notes.

    Args:
        model: Model names.
        tenant: Tenants, as stored.
        instance: Instances.
        deployment: Deployments.
        engine: Engine ids (``vllm``, ``triton``, …).
        region: Regions.
        version: Versions of model or server.
        recording: ``include`` replayed rows, ``exclude`` them, or look at them ``only``.
    """

    model: tuple[str, ...] = ()
    tenant: tuple[str, ...] = ()
    instance: tuple[str, ...] = ()
    deployment: tuple[str, ...] = ()
    engine: tuple[str, ...] = ()
    region: tuple[str, ...] = ()
    version: tuple[str, ...] = ()
    recording: Literal["include", "exclude", "only"] = "include"

    def __post_init__(self) -> None:
        for name in FILTER_COLUMNS:
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Sequence):
                raise WindowError(f"The filter {name} is {value!r}", f"Give a list: {name}=({value!r},)")
            object.__setattr__(self, name, tuple(value))
        if self.recording not in {"include", "exclude", "only"}:
            raise WindowError(f"The filter recording is {self.recording!r}", "Use include, exclude or only")

    def chosen(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """The columns that are narrowed, with their accepted values."""
        for name in FILTER_COLUMNS:
            if value := getattr(self, name):
                yield name, value

    def narrowed(self, **columns: tuple[str, ...]) -> Filter:
        """This filter with some columns replaced."""
        return dataclasses.replace(self, **columns)  # type: ignore[arg-type]

    def as_json(self) -> dict[str, object]:
        """All columns as lists, and ``recording``."""
        return {**{name: list(getattr(self, name)) for name in FILTER_COLUMNS}, "recording": self.recording}


FILTER_COLUMNS: Final = ("model", "tenant", "instance", "deployment", "engine", "region", "version")


@dataclass(frozen=True, slots=True)
class Coverage:
    """What the store holds for a window and filter: the ground of *no traffic* against *no data*.

    Attributes:
        rows: Requests (rows of ``requests``) that arrived in the window.
        samples: Engine samples in the window.
        last_row: Arrival of the newest request, None without rows.
        last_sample: Time of the newest engine sample, None without samples.
        instances_up: Instances whose newest sample in the window says up.
        instances_down: Instances whose newest sample in the window says down.
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
        """``no_data`` when nobody reports, ``no_traffic`` when servers report and no row is there, else ``value``."""
        if self.rows:
            return "value"
        return "no_traffic" if self.samples else "no_data"


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """A question's result and what it rests on.

    Attributes:
        result: The question's own dataclass.
        level: ``rows`` where requests were read one by one, ``metrics`` where only server metrics exist.
        exactness: The weakest exactness among the result's parts.
        rows: How many requests (level ``rows``) or samples (level ``metrics``) the result rests on.
        freshness: Time of the newest row or sample used, None when there is none.
        sql: The statements asked, ready to paste, parameters written out.
        recordings: Recordings present among what was read.
        coverage: What the store holds for this window and filter; `Coverage.state` tells *no traffic* from *no data*.
        notes: Plain sentences about what this result leaves out or cannot know.
        state: Whether there is a value, no traffic (servers report and nothing was asked of them) or no data.
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

    def envelope(self, window: Window, filter: Filter) -> dict[str, object]:  # noqa: A002 the contract's word
        """The stable JSON shape of every question.

        Returns:
            ``{"window": {"start", "end", "seconds"}, "filters": {column: [values], …, "recording"}, "level", "rows",
            "result"}``. ``result`` holds the question's own fields and ``about``: ``{"state", "exactness",
            "freshness", "recordings", "notes", "instances_up", "instances_down"}``, from rows also ``settled_until``:
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
        }
        result["about"] = about
        if self.level == "rows":
            settled = self.coverage.settled
            about["settled_until"] = iso(settled) if settled else None
        return {
            "window": window.as_json(),
            "filters": filter.as_json(),
            "level": self.level,
            "rows": self.rows,
            "result": result,
        }


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC with milliseconds and a Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


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


def _milliseconds(moment: datetime) -> int:
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * _DAY + delta.seconds) * 1000 + delta.microseconds // 1000
