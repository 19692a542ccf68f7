"""One request's story: its phases on the time axis, what engine, GPUs and machine were doing, who else was there."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from analytics import engine_steps
from analytics.answer import Answer, Coverage
from analytics.conditions import one_of
from analytics.inquiry import Inquiry
from analytics.machines import GpuPoint, HostPoint, gpus_under, machine_under
from analytics.question import QuestionError
from analytics.request_row import COLUMNS, RequestRow
from analytics.selection import Selection, refuse
from analytics.signals import PHASES
from analytics.values import moment, names, number
from analytics.window import Window
from base.named_sql import beside
from base.vocabulary import SCOPE_EDGE, SPAN_ID_RANDOM_BITS

if TYPE_CHECKING:
    from analytics.inquiry import Reader

_SQL: Final = beside(__file__)

_ENGINE_SPANS: Final = ("llm_request", "InferRequest")
_FIRST_STEP: Final = "fromUnixTimestamp64Micro({first_us:Int64}) - INTERVAL 5 SECOND"
_LAST_STEP: Final = "fromUnixTimestamp64Micro({last_us:Int64} + 1)"


@dataclass(frozen=True, slots=True)
class Phase:
    """One interval of the request; the intervals touch, do not overlap and end where the request ends.

    Attributes:
        phase: ``edge``, ``queue``, ``stall``, ``prefill``, ``decode``, ``compute_input``, ``compute_infer``,
            ``compute_output``, ``frontend``, ``transit`` or ``unaccounted``.
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
class StepPoint:
    """One step of an engine core of the request's instance, as its probe told it; None is untold.

    Attributes:
        time: Its end.
        seconds: Its length: its own, else since the step before.
        running, waiting: Requests after it.
        kv_cache_usage_ratio: 0 to 1.
        preemptions: In it.
        prefill_tokens, decode_tokens: What it carried.
        core: Engine core.
    """

    time: datetime
    seconds: float | None
    running: float | None
    waiting: float | None
    kv_cache_usage_ratio: float | None
    preemptions: float | None
    prefill_tokens: float | None
    decode_tokens: float | None
    core: str


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
        steps: Steps of its instance, of all its cores, that ended between the request's first phase after the queue and
            its end; the slowest first, at most 2,000. Empty without a probe, and when they are no longer kept.
        steps_total: How many there were.
        step_median_seconds: Median length of those.
        gpus: GPUs of its instance, over the time of ``samples``; empty where nobody tells of any.
        hosts: Machine and processes of its instance, likewise.
    """

    request: RequestRow | None
    start: datetime | None
    end: datetime | None
    phases: list[Phase]
    samples: list[EnginePoint]
    spans: list[SpanRow]
    neighbours: list[RequestRow]
    neighbours_total: int
    steps: list[StepPoint] = field(default_factory=list)
    steps_total: int = 0
    step_median_seconds: float | None = None
    gpus: list[GpuPoint] = field(default_factory=list)
    hosts: list[HostPoint] = field(default_factory=list)


def ask(
    store: Reader,
    selection: Selection,
    *,
    margin: float = 15.0,
) -> Answer[Story]:
    """The story of one request, found by its key or its trace id.

    Args:
        store: Where to ask.
        selection: Its key or trace id, of which the earliest request is told; and the window in which it arrived, which
            may be all time: a tap's key tells it too.
        margin: Seconds of samples before and after.

    Raises:
        QuestionError: Neither key nor trace id is given, or something else.
    """
    refuse("story", selection, ("key", "trace_id"))
    if not selection.ids:
        raise QuestionError("story is about one request", "Give its key or its trace id")
    lookup = Inquiry(store, selection, sql=_SQL)
    found = _found(lookup)
    if found is None:
        nothing = Story(None, None, None, [], [], [], [], 0)
        return lookup.answer(nothing, Coverage(), level="rows", exactness="exact", rows=0)
    end = found.time + timedelta(seconds=found.e2e_seconds or found.engine_e2e_seconds or 0.0)
    window = Window(found.time - timedelta(seconds=margin), end + timedelta(seconds=margin, milliseconds=1))
    inquiry = Inquiry(store, Selection(window), _SQL, lookup.asked)
    spans = [_span(row) for row in inquiry.ask("spans", trace_id=found.trace_id)] if found.trace_id else []
    here, value = one_of("instance", "instance", [found.instance])
    where: dict[str, Any] = {"instance": value, "recording": found.recording}
    samples = [_point(row) for row in inquiry.ask("samples", {"here": here}, **where)] if found.instance else []
    bounds: dict[str, Any] = {"start_ms": _ms(found.time), "end_ms": _ms(end), "key": int(found.key)}
    near = inquiry.ask("neighbours", {"columns": COLUMNS, "here": here}, **where, **bounds) if end > found.time else []
    phases = intervals(found, end, _engine_start(found, spans))
    inside: dict[str, Any] = {"first_us": _us(_scheduled(phases, found.time)), "last_us": _us(end)}
    fragments = engine_steps.in_order(_FIRST_STEP, _LAST_STEP, f"AND {here} AND recording = {{recording:String}}")
    steps = inquiry.ask("steps", fragments, **where, **inside) if found.instance else []
    story = Story(
        request=found,
        start=found.time,
        end=end,
        phases=phases,
        samples=samples,
        spans=spans,
        neighbours=[RequestRow.of(row) for row in near],
        neighbours_total=int(near[0]["neighbours_total"]) if near else 0,
        steps=[_step(row) for row in steps],
        steps_total=int(steps[0]["steps_total"]) if steps else 0,
        step_median_seconds=number(steps[0]["median_seconds"]) if steps else None,
        gpus=gpus_under(inquiry, here, **where) if found.instance else [],
        hosts=machine_under(inquiry, here, **where) if found.instance else [],
    )
    cover = Coverage(
        rows=1,
        samples=len(samples),
        last_row=found.time,
        last_sample=samples[-1].time if samples else None,
        row_instances=names([found.instance]),
        edge_instances=names([found.instance]) if found.has_edge else (),
        sample_instances=names([found.instance]) if samples else (),
        recordings=names([found.recording]),
    )
    return inquiry.answer(story, cover, level="rows", exactness="exact", rows=1)


def intervals(row: RequestRow, end: datetime, engine_start: datetime | None) -> list[Phase]:
    """The request's phases as touching intervals from its arrival to ``end``.

    The engine's phases follow one another from the start of its span. Without a span they begin after the time at the
    edge, and transit lies on both sides of them; what the edge took beyond the time to the first token is what it
    waited for its client, at the end. What no phase covers is ``unaccounted``; a phase that would pass the end (two
    clocks) is cut there. A stall is known by its length, not its place: it is drawn between queue and prefill.

    Args:
        row: The request.
        end: Its last byte.
        engine_start: When the engine took it, by its span.
    """
    placed = "measured" if engine_start else "assumed"
    edge_left = row.edge_seconds or 0.0
    made: list[Phase] = []

    def put(phase: str, seconds: float, how: str = placed) -> None:
        start = made[-1].end if made else row.time
        stop = min(end, start + timedelta(seconds=max(0.0, seconds)))
        if stop > start:
            made.append(Phase(phase, start, stop, (stop - start).total_seconds(), how))

    if engine_start is not None:
        before = max(0.0, (min(engine_start, end) - row.time).total_seconds())
        first = min(edge_left, before)
        put("edge", first)
        arriving = min(row.transit_seconds or 0.0, before - first)
        put("transit", arriving)
        put("unaccounted", before - first - arriving)
    else:
        first, arriving = (0.0 if 0 < (row.ttft_seconds or 0.0) < edge_left else edge_left), 0.0
        put("edge", first)
    for phase in PHASES:
        if phase not in {"edge", "transit"}:
            put(phase, getattr(row, f"{phase}_seconds") or 0.0)
    rest = (end - (made[-1].end if made else row.time)).total_seconds()
    back_pressure = min(edge_left - first, rest)
    returning = min((row.transit_seconds or 0.0) - arriving, rest - back_pressure)
    put("transit", returning, "assumed")
    put("unaccounted", rest - back_pressure - returning, "assumed")
    put("edge", back_pressure, "assumed")
    if made and made[-1].end < end and (end - made[-1].end) < timedelta(milliseconds=1):
        last = made[-1]
        made[-1] = Phase(last.phase, last.start, end, (end - last.start).total_seconds(), last.placed)
    return made


def _found(inquiry: Inquiry) -> RequestRow | None:
    """The earliest request of the selection; of a tap's key, which tells when it arrived, at once."""
    columns, window = {"columns": COLUMNS}, inquiry.window
    rows = []
    if key := inquiry.selection.key:
        at = int(key) >> SPAN_ID_RANDOM_BITS
        if window.from_ms <= at < window.to_ms:
            rows = inquiry.ask("by_time_and_key", columns, time_ms=at)
    rows = rows or inquiry.ask("by_key" if key else "by_trace", columns)
    return RequestRow.of(rows[0]) if rows else None


def _engine_start(row: RequestRow, spans: list[SpanRow]) -> datetime | None:
    """Start of the engine's own span of this request: the child of the tap's span, else the only one there is."""
    own = [span for span in spans if span.name in _ENGINE_SPANS and span.scope != SCOPE_EDGE]
    children = [span for span in own if span.parent_span_id == f"{int(row.key):016x}"]
    chosen = children or (own if len(own) == 1 else [])
    return chosen[0].start if chosen and row.has_engine else None


def _scheduled(phases: list[Phase], arrived: datetime) -> datetime:
    """When the engine first worked on it: the end of its wait, or, where none is known, its arrival."""
    return next((phase.end for phase in phases if phase.phase == "queue"), arrived)


def _step(row: dict[str, Any]) -> StepPoint:
    return StepPoint(
        time=_from_us(row["done_us"]),
        seconds=number(row["seconds"]),
        running=number(row["ran"]),
        waiting=number(row["waited"]),
        kv_cache_usage_ratio=number(row["kv"]),
        preemptions=number(row["preempted"]),
        prefill_tokens=number(row["prefilled"]),
        decode_tokens=number(row["decoded"]),
        core=str(row["core"]),
    )


def _span(row: dict[str, Any]) -> SpanRow:
    return SpanRow(
        start=_from_us(row["start_us"]),
        end=_from_us(row["end_us"]),
        name=str(row["SpanName"]),
        service=str(row["ServiceName"]),
        scope=str(row["ScopeName"]),
        span_id=str(row["SpanId"]),
        parent_span_id=str(row["ParentSpanId"]),
        status=str(row["StatusCode"]),
        attributes={str(name): str(value) for name, value in row["SpanAttributes"].items()},
    )


def _point(row: dict[str, Any]) -> EnginePoint:
    return EnginePoint(
        time=moment(row["time_ms"]),
        up=bool(row["is_up"]),
        running=number(row["running_sum"]),
        waiting=number(row["waiting_sum"]),
        kv_cache_usage_ratio=number(row["kv"]),
        preemptions=number(row["preempted"]),
        generation_tokens=number(row["generated"]),
        prompt_tokens=number(row["prompted"]),
        tokens_per_step=number(row["tokens_per_step"]),
    )


def _from_us(microseconds: object) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(str(microseconds)))


def _us(time: datetime) -> int:
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _ms(time: datetime) -> int:
    return round((time - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(milliseconds=1))
