"""One request: its phases, and beneath on the same axis what the engine was doing."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import pandas as pd
import streamlit as st

from dashboard import words
from dashboard.data import ask
from dashboard.figures import CONFIG, Style, Trace, around, spans
from dashboard.panel import foot, guarded
from dashboard.shell import colours, tile, zone
from dashboard.tables import milliseconds, table
from dashboard.theme import colour_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from analytics.request_row import RequestRow
    from analytics.story import EnginePoint, Story

PHASES: Final = (
    ("edge", "at the edge"),
    ("queue", "waiting in the engine's queue"),
    ("stall", "stalled: the engine stood still or threw the request out"),
    ("prefill", "prefill: reading the prompt"),
    ("decode", "decode: writing the answer"),
    ("compute_input", "compute: input"),
    ("compute_infer", "compute: inference"),
    ("compute_output", "compute: output"),
)
"""Phases in the order a request meets them, with what they mean."""
_MEANING: Final = {**dict(PHASES), "unaccounted": "in no phase that anybody measured: network, parsing, scheduling"}


def tell() -> None:
    """The page of the request that the URL names."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.markdown("## What happened to this request?", width="stretch")
        if st.button("Back to the list", type="tertiary", key="back"):
            for name in ("request", "at"):
                st.query_params.pop(name, None)
            st.rerun()
    guarded("story", _body)


def _body() -> None:
    at = st.query_params.get("at")
    try:
        time = datetime.fromtimestamp(float(at), UTC) if at else None
    except (ValueError, OverflowError, OSError):
        time = None
    answer = ask("story.request", key=st.query_params["request"], time=time)
    story: Story = answer.result
    row = story.request
    if row is None or story.start is None or story.end is None:
        st.markdown(
            "**No such request.** :gray[It may be older than what is kept, or the link is cut off. "
            "Search by its trace id on the list.]"
        )
        return
    if row.recording:
        st.caption(f":material/history: From the recording {row.recording}: a real server's past, played again.")
    _tiles(row)
    style = Style(colours(), zone(), (story.start, max(story.end, story.start + timedelta(milliseconds=1))))
    with st.container(border=True, key="panel-phases"):
        _waterfall(story, style)
        foot("phases", answer, "Phases as edge and engine measured them.")
    with st.container(border=True, key="panel-around"):
        _around(story, style)
    _neighbours(story)
    _details(story, row)


def _tiles(row: RequestRow) -> None:
    with st.container(horizontal=True, gap="small", key="tiles"):
        tile("outcome", "Outcome", row.outcome.replace("_", " ") or words.NOTHING, help=row.error_type or None)
        tile("e2e", "End to end", words.seconds(row.e2e_seconds))
        tile("ttft", "Time to first token", words.seconds(row.ttft_seconds))
        tile("queue", "Queue", words.seconds(row.queue_seconds))
        tile("gap", "Longest gap", words.seconds(row.itl_max_seconds))
        tokens = f"{row.prompt_tokens:,} → {row.completion_tokens:,}" if row.completion_tokens else words.NOTHING
        tile("tokens", "Tokens in → out", tokens, help="counted chunks" if row.tokens_counted else None)
        tile("tenant", "Tenant", row.tenant or words.NOTHING)
        tile("instance", "Instance", row.instance or words.NOTHING)


def _waterfall(story: Story, style: Style) -> None:
    if not story.phases or story.start is None:
        st.markdown("**No phases.** :gray[Neither the edge nor the engine measured any; the engine sent no span.]")
        return
    start = story.start
    rows = [
        (
            phase.phase.replace("_", " "),
            (phase.start - start).total_seconds(),
            phase.seconds,
            colour_of(phase.phase, style.colours),
            f"{words.seconds(phase.seconds)}, {_MEANING.get(phase.phase, '')} ({phase.placed})",
        )
        for phase in story.phases
    ]
    total = (style.span[1] - start).total_seconds()
    st.plotly_chart(spans(rows, style, title="Phases", total=total), key="waterfall", config=CONFIG, theme=None)


def _around(story: Story, style: Style) -> None:
    start = story.start
    if start is None or not story.samples:
        st.markdown(
            "**Nothing is known of the engine at that time.** :gray[No agent scraped this instance: "
            "servescope up --target http://host:port]"
        )
        return
    offsets = [(point.time - start).total_seconds() for point in story.samples]
    lasted = (style.span[1] - start).total_seconds()
    span = (min(offsets[0], 0.0), max(offsets[-1], lasted))

    def chart(key: str, title: str, unit: str, traces: Sequence[Trace], top: float | None = None) -> None:
        drawn = [trace for trace in traces if any(value is not None for value in trace.values)]
        if drawn:
            figure = around(
                offsets, drawn, style, title=title, unit=unit, span=span, request=(0.0, lasted), top=top
            )  # fmt: skip
            st.plotly_chart(figure, key=key, config=CONFIG, theme=None)

    def trace(name: str, signal: str, value: Callable[[EnginePoint], float | None]) -> Trace:
        return Trace(name, [value(point) for point in story.samples], colour_of(signal, style.colours))

    chart("kv", "KV cache in use", "ratio", [trace("", "kv", lambda point: point.kv_cache_usage_ratio)], top=1.05)
    chart("depth", "Running and waiting", "requests", [
        trace("running", "running", lambda point: point.running),
        trace("waiting", "waiting", lambda point: point.waiting),
    ])  # fmt: skip
    chart("preempted", "Preemptions a second", "count", [trace("", "preemptions", lambda point: point.preemptions)])
    chart("generated", "Tokens a second", "tokens", [trace("", "tokens", lambda point: point.generation_tokens)])
    st.caption("The request's own time is tinted; one point a second, as the engine showed it.")


def _neighbours(story: Story) -> None:
    st.markdown(f"#### Who else was there: {words.plural(story.neighbours_total, 'request')}")
    if not story.neighbours:
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
            "Outcome": other.outcome or words.NOTHING,
            "Request": words.short(other.request_id, 20),
        }
        for other in story.neighbours
    ])  # fmt: skip
    table(frame, "neighbours", height=240)


def _details(story: Story, row: RequestRow) -> None:
    with st.expander("Identifiers and all figures"):
        shown = {name: getattr(row, name) for name in _fields(row)}
        frame = pd.DataFrame(
            [(name, str(value)) for name, value in shown.items() if value not in {None, "", 0}],
            columns=["Column of requests", "Value"],
        )
        st.dataframe(frame, hide_index=True, placeholder=words.NOTHING, key="figures", height="content")
    if story.spans:
        with st.expander(f"Spans of the trace: {len(story.spans)}"):
            frame = pd.DataFrame([
                {
                    "Start": words.clock(item.start),
                    "Name": item.name,
                    "Service": item.service,
                    "Scope": item.scope,
                    "ms": (item.end - item.start).total_seconds() * 1000,
                    "Attributes": ", ".join(f"{name}={value}" for name, value in item.attributes.items()),
                }
                for item in story.spans
            ])  # fmt: skip
            table(frame, "spans")


def _fields(row: RequestRow) -> list[str]:
    return [item.name for item in fields(row)]
