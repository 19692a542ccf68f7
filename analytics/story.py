"""One request's story: its phases on the time axis, what the engine was doing, who else was there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from analytics.ground import Reader
    from analytics.request_row import RequestRow
    from analytics.window import Answer


@dataclass(frozen=True, slots=True)
class Phase:
    """One interval of the request; the intervals touch, do not overlap and end where the request ends.

    Attributes:
        phase: ``edge``, ``queue``, ``stall``, ``prefill``, ``decode``, ``compute_input``, ``compute_infer``,
            ``compute_output`` or ``unaccounted``.
        start, end: Absolute times.
        seconds: Length.
        placed: ``measured``: the start is known from a span; ``assumed``: phases are laid one after another.
    """

    phase: str
    start: datetime
    end: datetime
    seconds: float
    placed: str


@dataclass(frozen=True, slots=True)
class EnginePoint:
    """One engine sample of the request's instance, summed over its models and ranks (KV: the fullest).

    Attributes:
        time: Of the scrape.
        up: Whether the scrape worked.
        running, waiting: Requests in the engine, and before it.
        kv_cache_usage_ratio: 0 to 1.
        preemptions, generation_tokens, prompt_tokens: Increase since the sample before.
        tokens_per_step: Tokens of an average engine step since the sample before.
    """

    time: datetime
    up: bool
    running: float | None
    waiting: float | None
    kv_cache_usage_ratio: float | None
    preemptions: float | None
    generation_tokens: float | None
    prompt_tokens: float | None
    tokens_per_step: float | None


@dataclass(frozen=True, slots=True)
class SpanRow:
    """One span of the request's trace.

    Attributes:
        start, end: Absolute times, to the microsecond.
        name, service, scope: What and whose.
        span_id, parent_span_id: Hex.
        status: ``Unset``, ``Ok`` or ``Error``.
        attributes: As received, scrubbed.
    """

    start: datetime
    end: datetime
    name: str
    service: str
    scope: str
    span_id: str
    parent_span_id: str
    status: str
    attributes: dict[str, str]


@dataclass(frozen=True, slots=True)
class Story:
    """One request and its surroundings.

    Attributes:
        request: Its row; None when there is no such request.
        start, end: Arrival and last byte.
        phases: Intervals in order, from start to end.
        samples: Engine samples from ``margin`` seconds before to ``margin`` after.
        spans: Spans of its trace, in order of start; at most 1,000.
        neighbours: Requests at the same instance whose time overlaps it, longest overlap first; at most 200.
        neighbours_total: How many overlap.
    """

    request: RequestRow | None
    start: datetime | None
    end: datetime | None
    phases: list[Phase]
    samples: list[EnginePoint]
    spans: list[SpanRow]
    neighbours: list[RequestRow]
    neighbours_total: int


def request(
    store: Reader,
    *,
    key: int | str | None = None,
    time: datetime | None = None,
    trace_id: str = "",
    margin: float = 15.0,
) -> Answer[Story]:
    """The story of one request, found by its key or its trace id.

    Args:
        store: Where to ask.
        key: `RequestRow.key`.
        time: `RequestRow.time`; makes the look-up immediate. Without it the time is read out of a tap's key.
        trace_id: 32 hex digits, instead of a key; the earliest request of the trace is told.
        margin: Seconds of engine samples before and after.

    Raises:
        WindowError: Neither key nor trace id is given.
    """
    raise NotImplementedError
