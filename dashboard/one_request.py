"""One request: its phases and charges, and beneath on the same axis what engine, GPUs and machine were doing."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import pandas as pd
import streamlit as st

from analytics.causes.advice import NAMES
from analytics.selection import Selection
from analytics.window import EVER, Window
from dashboard import escape, request_machine, request_steps, why, words
from dashboard.data import ask
from dashboard.figures import CONFIG, Interval, Lane, Style, Trace, story
from dashboard.panel import foot, guarded
from dashboard.tables import milliseconds, table
from dashboard.theme import colour_of, unmeasured
from dashboard.tiles import Tile
from dashboard.tiles import row as tile_row
from dashboard.viewer import clock, colours, zone

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from analytics.causes.evidence import Cause
    from analytics.questions.causes import Causes
    from analytics.questions.story import EnginePoint, Phase, Story
    from analytics.request_row import RequestRow

PHASES: Final = (
    ("edge", "at the edge: the tap itself, or waiting for the client to take its answer"),
    ("transit", "between edge and server: network, accept queue, event loops"),
    ("queue", "waiting in the engine's queue"),
    ("stall", "stalled: the engine stood still or threw the request out"),
    ("prefill", "prefill: reading the prompt"),
    ("decode", "decode: writing the answer"),
    ("compute_input", "compute: input"),
    ("compute_infer", "compute: inference"),
    ("compute_output", "compute: output"),
    ("frontend", "in the server, in none of its phases: reading, parsing, answering"),
)
"""Phases in the order a request meets them, with what they mean."""
_SHORT: Final = 1.0
"""Seconds under which a request would be a hair among the engine's samples; it is shown alone at first."""
_FEW: Final = 5
_READER: Final = 0.1
"""Seconds from which a client is said to read slowly: less is no longer the tap's to tell from its own work."""
_MARGIN: Final = 3.0
_CHARGES: Final = 5
"""Causes that are drawn; the account beneath tells of all."""
_MEANING: Final = {**dict(PHASES), "unaccounted": "in no phase that anybody measured"}


def tell() -> None:
    """The page of the request that the URL names."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="bar"):
        st.markdown("# What happened to this request?", width="stretch")
        if st.button("Back to the list", type="tertiary", key="back"):
            for name in ("request", "at"):
                st.query_params.pop(name, None)
            st.rerun()
    guarded(None, "story", _body)


def _body() -> None:
    at = st.query_params.get("at")
    try:
        arrived = Window.instant(datetime.fromtimestamp(round(float(at), 3), UTC)) if at else EVER
    except (ValueError, OverflowError, OSError):
        arrived = EVER
    answer = ask("story", Selection.one(window=arrived, key=st.query_params["request"]))
    told: Story = answer.result
    row = told.request
    if row is None or told.start is None or told.end is None:
        st.markdown(
            "**No such request.** :gray[It may be older than what is kept, or the link is cut off. "
            "Search by its trace id on the list.]"
        )
        return
    if row.recording:
        st.caption(
            f":material/history: From the recording {escape.markdown(row.recording)}: "
            "a real server's past, played again."
        )
    st.html(tile_row(_tiles(row), colours()))
    with st.container(border=True, key="panel-phases"):
        drawn = _picture(told)
        if late := read_slowly(told):
            st.markdown(
                f"**Its client read slowly.** :gray[The server had said all; it took the client "
                f"{words.seconds(late)} more to take it.]"
            )
        foot(
            "phases", answer,
            "Phases as edge and engine measured them, and what of them is charged to a cause; beneath, engine, GPUs "
            "and machine as they showed themselves, a second at a time. The request's own time is tinted.",
        )  # fmt: skip
    account = st.container()  # its answer takes longer than what stands beneath
    request_steps.section(told)
    _neighbours(told)
    _details(told, row)
    with account:
        guarded(None, "why", lambda: why.section(row, drawn))


def _tiles(row: RequestRow) -> list[Tile]:
    counted = [f"{number:,}" if number else words.NOTHING for number in (row.prompt_tokens, row.completion_tokens)]
    tokens = " → ".join(counted) if set(counted) != {words.NOTHING} else words.NOTHING
    cached = f"{row.cached_tokens:,} from cache" if row.cached_tokens else ""
    at_utc = f"{row.time:%H:%M:%S}.{row.time.microsecond // 1000:03d} UTC"
    failed = row.outcome not in {"", "ok", "client_abort", "client_error"}
    status = f"status {row.status}" if row.status else ""
    preempted = words.plural(row.preemptions, "preemption") if row.preemptions else ""
    p99 = row.itl_p99_seconds
    return [
        Tile(
            "Outcome", row.outcome.replace("_", " ") or words.NOTHING, row.error_type or status,
            judged="broken" if failed else "",
        ),
        Tile("Arrived", clock(row.time), at_utc),
        Tile("End to end", words.seconds(row.e2e_seconds)),
        Tile("First token", words.seconds(row.ttft_seconds)),
        Tile("Queue", words.seconds(row.queue_seconds), preempted),
        Tile("Longest gap", words.seconds(row.itl_max_seconds), f"p99 {words.seconds(p99)}" if p99 else ""),
        Tile("Tokens in → out", tokens, cached or ("counted chunks" if row.tokens_counted else "")),
        Tile("Tenant", row.tenant or words.NOTHING),
        Tile("Model", row.model or words.NOTHING, row.engine),
        Tile("Instance", row.instance or words.NOTHING, row.version),
    ]  # fmt: skip


def _picture(told: Story) -> Callable[[Causes], None]:
    """Draw it, and return what draws it again with what its causes took, once they are known."""
    if not told.phases:
        st.markdown("**No phases.** :gray[Neither the edge nor the engine measured any; the engine sent no span.]")
    if not told.samples:
        st.markdown(
            "**Nothing is known of the engine at that time.** :gray[No agent scraped this instance: "
            "`servescope up --target http://host:port`]"
        )
    if told.start is None or told.end is None or not (told.phases or told.samples):
        return lambda _: None
    start, end = told.start, told.end
    total = max((end - start).total_seconds(), 0.001)
    style = Style(colours(), zone(), (start, start + timedelta(seconds=total)))
    intervals = [
        Interval(
            phase.phase.replace("_", " "),
            (phase.start - start).total_seconds(),
            phase.seconds,
            colour_of(phase.phase, style.colours),
            f"{words.seconds(phase.seconds)}, {_MEANING.get(phase.phase, '')} ({phase.placed})",
            unmeasured(phase.phase),
        )
        for phase in told.phases
    ]
    offsets = [(point.time - start).total_seconds() for point in told.samples]
    lanes = _lanes(told, style)
    whole = st.toggle(
        "Show the engine around it", value=total > _SHORT, key="around", bind="query-params",
        help="Off: the axis shows the request alone",
    ) if lanes else False  # fmt: skip
    margin = max(0.25 * total, _MARGIN) if whole else 0.04 * total
    place = st.empty()

    def draw(key: str, charges: list[Interval]) -> None:
        figure = story(intervals, offsets, lanes, style, total=total, span=(-margin, total + margin), charges=charges)
        place.plotly_chart(
            figure, key=key, config=CONFIG, theme=None,
            alt="Phases of the request and what is charged of them over time, and engine, GPUs and machine beneath on "
            "the same axis",
        )  # fmt: skip

    def charged(found: Causes) -> None:
        if found.causes:
            draw("story-charged", charges_of(found.causes, told.phases, end, style))

    draw("story", [])
    return charged


def charges_of(causes: Sequence[Cause], phases: Sequence[Phase], end: datetime, style: Style) -> list[Interval]:
    """What causes took of a request, each at the end of the phase that lost most to it, those of one phase in a row.

    Where in a phase its seconds lie nobody knows; what does not fit into the phase, for it was taken from others too,
    reaches back before it.
    """
    start = phases[0].start if phases else end
    ends = {phase.phase: phase.end for phase in sorted(phases, key=lambda phase: phase.seconds)}  # of two the longer
    found = []
    for cause in causes[:_CHARGES]:
        until = ends.get(cause.phase, end)
        since = max(start, until - timedelta(seconds=cause.seconds))
        ends[cause.phase] = since
        name = NAMES.get(cause.cause, cause.cause.replace("_", " "))
        meaning = f"{words.seconds(cause.seconds)} charged to {name}, most of it {cause.phase.replace('_', ' ')}"
        found.append(
            Interval(
                f"{name}, {words.signed(cause.seconds)}",
                (since - start).total_seconds(),
                (until - since).total_seconds(),
                style.colours.quiet,
                f"{meaning}; where within it is not known",
            )
        )
    return found


def read_slowly(told: Story) -> float:
    """Seconds at the end of a request that its whole answer waited for its client; 0 where that is nothing to tell."""
    last = told.phases[-1] if told.phases else None
    return last.seconds if last is not None and last.phase == "edge" and last.seconds >= _READER else 0.0


def _lanes(told: Story, style: Style) -> list[Lane]:
    def trace(name: str, signal: str, value: Callable[[EnginePoint], float | None]) -> Trace:
        return Trace(name, [value(point) for point in told.samples], colour_of(signal, style.colours))

    lanes = [
        Lane("KV cache in use", "share", [trace("", "kv", lambda point: point.kv_cache_usage_ratio)], 1.05),
        Lane(
            "Running and waiting",
            "requests",
            [
                trace("running", "running", lambda point: point.running),
                trace("waiting", "waiting", lambda point: point.waiting),
            ],
        ),
        Lane("Preemptions", "per second", [trace("", "preemptions", lambda point: point.preemptions)]),
        Lane("Tokens out", "per second", [trace("", "tokens", lambda point: point.generation_tokens)]),
        *request_steps.lane(told, style),
        *request_machine.lanes(told, style),
    ]
    known = (
        replace(lane, traces=[line for line in lane.traces if any(v is not None for v in line.values)])
        for lane in lanes
    )
    return [lane for lane in known if lane.traces]


def _neighbours(told: Story) -> None:
    st.markdown(f"## Who else was there: {words.plural(told.neighbours_total, 'request')}")
    if not told.neighbours:
        st.caption("No other request overlapped it at this instance.")
        return
    frame = pd.DataFrame([
        {
            "Tenant": other.tenant or words.NOTHING,
            "Model": other.model,
            "E2E ms": milliseconds(other.e2e_seconds),
            "Queue ms": milliseconds(other.queue_seconds),
            "Prompt": other.prompt_tokens or None,
            "Output": other.completion_tokens or None,
            "Outcome": other.outcome.replace("_", " ") or words.NOTHING,
            "Request": words.short(other.request_id, 20),
        }
        for other in told.neighbours
    ])  # fmt: skip
    table(frame, "neighbours", height=240 if len(frame) > _FEW else "content")


def _details(told: Story, row: RequestRow) -> None:
    with st.expander("Identifiers and all figures"):
        shown = {name: getattr(row, name) for name in _fields(row)}
        frame = pd.DataFrame(
            [(name, str(value)) for name, value in shown.items() if value not in {None, "", 0}],
            columns=["Column of requests", "Value"],
        )
        st.dataframe(escape.frame(frame), hide_index=True, placeholder=words.NOTHING, key="figures", height="content")
    if told.spans:
        with st.expander(f"Spans of the trace: {len(told.spans)}"):
            frame = pd.DataFrame([
                {
                    "Start": clock(item.start, milliseconds=True),
                    "Name": item.name,
                    "Service": item.service,
                    "Scope": item.scope,
                    "ms": (item.end - item.start).total_seconds() * 1000,
                    "Attributes": ", ".join(f"{name}={value}" for name, value in item.attributes.items()),
                }
                for item in told.spans
            ])  # fmt: skip
            table(frame, "spans")


def _fields(row: RequestRow) -> list[str]:
    return [item.name for item in fields(row)]
