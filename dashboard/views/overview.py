"""Overview: is it well, and if not, where."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import streamlit as st

from dashboard import words
from dashboard.data import ask
from dashboard.drawings import phase_stack, sparkline
from dashboard.figures import Trace, lines, percentiles
from dashboard.panel import empty, foot, guarded, panel
from dashboard.shell import Look, page, tile
from dashboard.tables import milliseconds, table
from dashboard.theme import colour_of

if TYPE_CHECKING:
    from analytics.latency import Percentiles
    from analytics.queue import QueueDynamics
    from analytics.shapes import Tile
    from analytics.traffic import Overview

MISSING = "Start an agent beside your servers: servescope up --target http://host:port"


def draw() -> None:
    """The front page."""
    page("Is serving well?", _body)


def _body(look: Look) -> None:
    guarded("tiles", lambda: _tiles(look))
    with st.container(horizontal=True, gap="small"):
        with st.container(key="half-ttft"):
            panel(
                "ttft", "latency.percentiles", look.window, look.filter, lambda result: _ttft(result, look),
                missing=MISSING, has_data=lambda result: bool(result.lines), signal="e2e_seconds",
                about="End-to-end time of answered requests, as their clients saw it.",
            )  # fmt: skip
        with st.container(key="half-queue"):
            panel(
                "queue", "queue.dynamics", look.window, look.filter, lambda result: _queue(result, look),
                missing=MISSING, has_data=lambda result: any(v is not None for v in result.waiting.values),
                about="Requests in the engines and before them, as the engines show them.",
            )  # fmt: skip
    panel(
        "phases", "latency.phases", look.window, look.filter, lambda result: phase_stack(result, look), missing=MISSING,
        has_data=lambda result: bool(result.phases),
        about="Mean seconds a request spent in each phase; the phases add up to its end-to-end time.",
    )  # fmt: skip
    guarded("models", lambda: _models(look))
    guarded("instances", lambda: _instances(look))


def _tiles(look: Look) -> None:
    answer = ask("traffic.overview", look.window, look.filter)
    overview: Overview = answer.result
    with st.container(horizontal=True, gap="small", key="tiles"):
        _tile("requests", "Requests", overview.requests)
        _tile("errors", "Failed", overview.errors)
        _tile("ttft", "TTFT p99", overview.ttft_p99)
        _tile("e2e", "End-to-end p99", overview.e2e_p99)
        _tile("tokens", "Tokens out", overview.generation_tokens)
        _tile("running", "Running", overview.running)
        _tile("waiting", "Waiting", overview.waiting)
        _tile("kv", "Fullest KV cache", overview.kv)
        _tile("preemptions", "Preemptions", overview.preemptions)
        _tile("prefix", "Prefix cache hits", overview.prefix_hits)


def _tile(key: str, label: str, shown: Tile) -> None:
    words_for = {"no_traffic": "no traffic", "no_data": words.NOTHING}
    value = words.figure(shown.value, shown.unit) if shown.state == "value" else words_for[shown.state]
    peak = f"peak {words.figure(shown.peak, shown.unit)}" if shown.peak is not None else None
    tile(
        key, label, value, delta=peak, delta_arrow="off", chart_data=sparkline(shown.line),
        help=shown.reason or None,
    )  # fmt: skip


def _ttft(result: Percentiles, look: Look) -> object:
    line = result.lines[0]
    if line.exactness == "means":
        trace = Trace("mean", line.mean, colour_of("decode", look.style.colours))
        return lines(result.times, [trace], look.style, title="End-to-end time, mean", unit="seconds")
    values = {"p50": line.p50, "p90": line.p90, "p99": line.p99}
    return percentiles(
        result.times, values, look.style, title="End-to-end time", signal="decode", counts=line.count, log=True
    )


def _queue(result: QueueDynamics, look: Look) -> object:
    traces = [
        Trace("running", result.running.values, colour_of("running", look.style.colours)),
        Trace("waiting", result.waiting.values, colour_of("waiting", look.style.colours)),
    ]
    return lines(result.times, traces, look.style, title="Running and waiting", unit="requests")


def _models(look: Look) -> None:
    answer = ask("traffic.overview", look.window, look.filter)
    rows = answer.result.models
    st.markdown("#### Models")
    if not rows:
        empty(answer.state, MISSING)
        return
    frame = pd.DataFrame([
        {
            "Model": row.model or words.NOTHING,
            "Engine": ", ".join(row.engines),
            "Requests/s": row.requests_per_second,
            "Failed %": None if row.error_share is None else row.error_share * 100,
            "TTFT p99 ms": milliseconds(row.ttft_p99_seconds),
            "E2E p50 ms": milliseconds(row.e2e_p50_seconds),
            "E2E p99 ms": milliseconds(row.e2e_p99_seconds),
            "E2E mean ms": milliseconds(row.e2e_mean_seconds),
            "Tokens out/s": row.generation_tokens_per_second,
            "Waiting, peak": row.waiting_peak,
            "KV, peak %": None if row.kv_peak_ratio is None else row.kv_peak_ratio * 100,
            "Preemptions": row.preemptions,
        }
        for row in rows
    ])  # fmt: skip
    table(frame, "models")
    foot("models", answer)


def _instances(look: Look) -> None:
    answer = ask("traffic.instances", look.window, look.filter)
    st.markdown("#### Instances")
    if not answer.result.instances:
        empty(answer.state, MISSING)
        return
    words_for = {True: "up", False: "down", None: "not scraped"}
    frame = pd.DataFrame([
        {
            "Instance": row.instance,
            "State": words_for[row.up],
            "Engine": row.engine,
            "Version": row.version or words.NOTHING,
            "Models": ", ".join(row.models),
            "Running": row.running,
            "Waiting": row.waiting,
            "KV %": None if row.kv_cache_usage_ratio is None else row.kv_cache_usage_ratio * 100,
            "Requests": row.requests,
            "Last sample": words.ago(row.last_sample),
            "Scrape ms": milliseconds(row.scrape_seconds),
            "Source": f"recording {row.recording}" if row.recording else "live",
        }
        for row in answer.result.instances
    ])  # fmt: skip
    table(frame, "instances")
    foot("instances", answer)
