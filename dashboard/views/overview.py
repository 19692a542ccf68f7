"""Overview: is it well, and if not, where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pandas as pd
import streamlit as st

from dashboard import words
from dashboard.data import ask
from dashboard.drawings import PHASES, phase_stack
from dashboard.figures import Trace, lines, percentiles
from dashboard.panel import empty, foot, guarded, panel, tiles
from dashboard.shell import TILES, page
from dashboard.tables import milliseconds, percent, table
from dashboard.theme import colour_of
from dashboard.tiles import Tile, change_in_words
from dashboard.verdict import Verdict

if TYPE_CHECKING:
    from analytics.questions.latency import Percentiles
    from analytics.questions.queue import QueueDynamics
    from analytics.questions.traffic import Overview
    from analytics.series import Tile as Figure
    from dashboard.data import Question
    from dashboard.page_context import PageContext

MISSING: Final = "Start an agent beside your servers: `servescope up --target http://host:port`"
_TILES: Final = (
    ("Requests", "requests"),
    ("Failed", "errors"),
    ("TTFT p99", "ttft_p99"),
    ("End-to-end p99", "e2e_p99"),
    ("Tokens out", "generation_tokens"),
    ("Running", "running"),
    ("Waiting", "waiting"),
    ("Fullest KV", "kv"),
    ("Preemptions", "preemptions"),
    ("Prefix hits", "prefix_hits"),
)
"""Name of the tile and field of the answer."""

_GAUGES: Final = ("running", "waiting", "kv")
"""Fields that are of the newest step; the others are of the whole window."""
_LATENCIES: Final = ("ttft_p99", "e2e_p99")
_OF_TTFT: Final = "whose first token, or first byte of a whole answer, was seen, also where the client then left"
_OF_E2E: Final = "that were answered or waited for until a timeout; clients that left are not among them"
_HELPS: Final = {
    "TTFT p99 ms": f"Of the requests {_OF_TTFT}. End-to-end times are of others: either may be the less.",
    **dict.fromkeys(("E2E p50 ms", "E2E p99 ms", "E2E mean ms"), f"Of the requests {_OF_E2E}."),
}

TITLE: Final = "Overview"
"""In the navigation."""
PLACE: Final = 0
"""Order in the navigation, the front page first."""
QUESTION: Final = "Is serving well?"
"""Over the page."""
COMPARE: Final = True
"""Whether the page compares with an earlier period or another version."""


def draw() -> None:
    """The front page."""
    page(_body, arriving=True, needs=_needs, compared=lambda: _needs()[:4])


def _needs() -> list[Question]:
    return [
        TILES,
        ("latency", {"signal": "e2e_seconds"}),
        ("queue", {}),
        ("phases", {}),
        ("traffic", {}),
        ("instances", {}),
    ]


def _body(context: PageContext) -> None:
    verdict = Verdict(context, st.empty())
    tiles(context, "tiles", lambda: _tiles(context))
    verdict.first()
    with st.container(horizontal=True, gap="small"):
        with st.container(key="half-e2e"):
            panel(
                "e2e", "latency", context, lambda result: _e2e(result, context), missing=MISSING,
                title="End-to-end time", has_data=lambda result: bool(result.lines), signal="e2e_seconds",
                about="End-to-end time of answered requests, as their clients saw it.",
            )  # fmt: skip
        with st.container(key="half-queue"):
            panel(
                "queue", "queue", context, lambda result: _queue(result, context),
                missing=MISSING, title="Running and waiting",
                has_data=lambda result: any(v is not None for v in result.waiting.values),
                about="Requests in the engines and before them, as the engines show them.",
            )  # fmt: skip
    panel(
        "phases", "phases", context, lambda result: phase_stack(result, context), missing=MISSING, title=PHASES,
        has_data=lambda result: bool(result.phases),
        about="Mean seconds a request spent in each phase; the phases add up to its end-to-end time.",
    )  # fmt: skip
    guarded(context, "models", lambda: _models(context))
    guarded(context, "instances", lambda: _instances(context))
    verdict.whole()


def _tiles(context: PageContext) -> list[Tile]:
    overview: Overview = ask(TILES[0], context.selection, **TILES[1]).result
    before: Overview | None = None
    if context.reference is not None:
        before = ask(TILES[0], context.reference, **TILES[1]).result
    return [
        _tile(
            f"{name} {context.lately}" if field in _GAUGES else name,
            getattr(overview, field),
            getattr(before, field) if before else None,
            context.against,
            of=_of(field, getattr(overview, field)),
        )
        for name, field in _TILES
    ]


def _of(field: str, shown: Figure) -> str:
    """What a tile's figure is of."""
    if field in _GAUGES:
        return "Mean of the newest step"
    if field in _LATENCIES:
        return f"Of {words.plural(shown.rows, 'request')} {_OF_TTFT if field == 'ttft_p99' else _OF_E2E}"
    return "Over the whole window"


def _tile(name: str, shown: Figure, before: Figure | None, against: str, *, of: str) -> Tile:
    told = {"no_traffic": "no traffic", "no_data": words.NOTHING}
    value = words.figure(shown.value, shown.unit) if shown.state == "value" else told[shown.state]
    note = f"peak {words.figure(shown.peak, shown.unit)}" if shown.peak is not None else ""
    if against:
        note = change_in_words(shown.value, before.value if before else None, shown.unit, against)
    about = f"Compared with {against}" if against else f"{of}; the peak is its highest step"
    return Tile(name, value, note, shown.line, shown.reason or about)


def _e2e(result: Percentiles, context: PageContext) -> object:
    line = result.lines[0]
    if line.exactness == "means":
        trace = Trace("mean", line.mean, colour_of("decode", context.style.colours))
        return lines(result.times, [trace], context.style, title="End-to-end time, mean", unit="seconds")
    values = {"p50": line.p50, "p90": line.p90, "p99": line.p99}
    return percentiles(
        result.times, values, context.arrivals, title="End-to-end time", signal="decode", counts=line.count, log=True
    )


def _queue(result: QueueDynamics, context: PageContext) -> object:
    traces = [
        Trace("running", result.running.values, colour_of("running", context.style.colours)),
        Trace("waiting", result.waiting.values, colour_of("waiting", context.style.colours)),
    ]
    return lines(result.times, traces, context.style, title="Running and waiting", unit="requests")


def _models(context: PageContext) -> None:
    answer = ask("traffic", context.selection)
    rows = answer.result.models
    st.markdown("## Models")
    if not rows:
        empty(answer.state, MISSING, answer.coverage)
        return
    frame = pd.DataFrame([
        {
            "Model": row.model or "named by no request",
            "Engine": ", ".join(row.engines),
            "Requests/s": row.requests_per_second,
            "Failed %": percent(row.error_share),
            "TTFT p99 ms": milliseconds(row.ttft_p99_seconds),
            "E2E p50 ms": milliseconds(row.e2e_p50_seconds),
            "E2E p99 ms": milliseconds(row.e2e_p99_seconds),
            "E2E mean ms": milliseconds(row.e2e_mean_seconds),
            "Tokens out/s": row.generation_tokens_per_second,
            "Waiting, peak": row.waiting_peak,
            "KV, peak %": percent(row.kv_peak_ratio),
            "Preemptions": row.preemptions,
        }
        for row in rows
    ])  # fmt: skip
    table(frame, "models", helps=_HELPS)
    foot("models", answer, rows=rows)


def _instances(context: PageContext) -> None:
    answer = ask("instances", context.selection)
    st.markdown("## Instances")
    if not answer.result.instances:
        empty(answer.state, MISSING, answer.coverage)
        return
    told = {True: "up", False: "down", None: "not scraped"}
    frame = pd.DataFrame([
        {
            "Instance": row.instance,
            "State": "asleep" if row.up and row.asleep else told[row.up],
            "Engine": row.engine,
            "Version": row.version or words.NOTHING,
            "Models": ", ".join(row.models),
            "Running": row.running,
            "Waiting": row.waiting,
            "KV %": percent(row.kv_cache_usage_ratio),
            "Requests": row.requests,
            "Last sample": words.ago(row.last_sample),
            "Scrape ms": milliseconds(row.scrape_seconds),
            "Source": f"recording {row.recording}" if row.recording else "live",
        }
        for row in answer.result.instances
    ])  # fmt: skip
    table(frame, "instances")
    foot("instances", answer)
