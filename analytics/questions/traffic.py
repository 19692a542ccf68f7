"""The state of the service at a glance.

Requests and errors come from rows where an instance has them, from the engine's counters where it has not; both
add up to one figure. Token rates come from the engines' counters, which count a token when it is made (a row has all
its tokens at its arrival); under a tenant filter from rows, as metrics know no tenant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from analytics.answer import Answer, Exactness, weakest
from analytics.grid import Grid
from analytics.inquiry import Inquiry
from analytics.latencies import metric_lines
from analytics.question import Command
from analytics.request_counts import Servers, outcomes_of, request_counts, servers_of
from analytics.samples import gauge_peaks
from analytics.signals import SIGNALS
from analytics.traffic_tiles import Readings
from analytics.values import names, number, ratio

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from analytics.inquiry import Reader
    from analytics.latencies import LatencyLine
    from analytics.selection import Selection
    from analytics.series import Tile


COMMAND: Final = Command()


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model over the window; a figure is None where nothing can say it.

    Attributes:
        model: Name.
        engines: Engine ids that serve it.
        deployments: Deployments that serve it.
        instances: Instances that serve it.
        requests: Requests that arrived (rows) or finished (metrics).
        requests_per_second: The same per second of the window.
        error_share: Share of requests that ended in a server's fault, 0 to 1.
        prompt_tokens_per_second: Prompt tokens read per second.
        generation_tokens_per_second: Tokens generated per second.
        ttft_requests: Requests whose first content was seen, also where the client then left.
        ttft_p50_seconds: Median time to first token of those.
        ttft_p99_seconds: Its 99th percentile.
        e2e_requests: Requests answered or waited for until a timeout. They are others than those with a first token, so
            a percentile of the one may be less than that of the other.
        e2e_p50_seconds: Median end-to-end time of those.
        e2e_p99_seconds: Its 99th percentile.
        e2e_mean_seconds: Mean end-to-end time, where only sums exist too.
        waiting_peak: Most requests waiting at one instance at a time.
        kv_peak_ratio: Fullest KV cache, 0 to 1.
        preemptions: Preemptions in the window.
        exactness: Of the latencies.
    """

    model: str
    engines: list[str]
    deployments: list[str]
    instances: list[str]
    requests: float | None
    requests_per_second: float | None
    error_share: float | None
    prompt_tokens_per_second: float | None
    generation_tokens_per_second: float | None
    ttft_requests: float | None
    ttft_p50_seconds: float | None
    ttft_p99_seconds: float | None
    e2e_requests: float | None
    e2e_p50_seconds: float | None
    e2e_p99_seconds: float | None
    e2e_mean_seconds: float | None
    waiting_peak: float | None
    kv_peak_ratio: float | None
    preemptions: float | None
    exactness: Exactness


@dataclass(frozen=True, slots=True)
class Overview:
    """Tiles with sparklines, and a row per model.

    Attributes:
        step: Seconds of a step.
        times: Starts of the steps of every tile's line.
        requests: Arrivals per second (rows), finishes per second (metrics).
        errors: Share of requests that ended in a server's fault (`analytics.slo.BAD`).
        prompt_tokens: Prompt tokens per second.
        generation_tokens: Generated tokens per second.
        ttft_p50, ttft_p99: Time to first token.
        e2e_p50, e2e_p99: End-to-end time.
        e2e_mean: Mean end-to-end time; the one latency that sums can give.
        running, waiting: Requests in the engines and before them, summed over instances; value = newest step.
        kv: Fullest KV cache of any instance; value = newest step.
        preemptions: Preemptions per second.
        prefix_hits: Share of prompt tokens looked up that were found in the prefix cache.
        models: One row per model, busiest first.
        outcomes: Requests per outcome over the window (rows alone).
    """

    step: int
    times: list[datetime]
    requests: Tile
    errors: Tile
    prompt_tokens: Tile
    generation_tokens: Tile
    ttft_p50: Tile
    ttft_p99: Tile
    e2e_p50: Tile
    e2e_p99: Tile
    e2e_mean: Tile
    running: Tile
    waiting: Tile
    kv: Tile
    preemptions: Tile
    prefix_hits: Tile
    models: list[ModelRow]
    outcomes: dict[str, int]


def ask(
    store: Reader,
    selection: Selection,
    *,
    points: int = 60,
    models: bool = True,
) -> Answer[Overview]:
    """Tiles, sparklines of about ``points`` steps and one row per model.

    Without ``models`` neither rows of models nor outcomes are counted, which takes half the time.
    """
    inquiry = Inquiry(store, selection)
    read = Readings.read(inquiry, points)
    cover = read.cover
    found = request_counts(inquiry) if cover.rows and models else []
    highest = gauge_peaks(inquiry) if cover.samples else {}
    result = Overview(
        step=read.grid.step,
        times=read.grid.times,
        requests=read.requests(),
        errors=read.errors(),
        prompt_tokens=read.rate("prompt_tokens", "prompt", "tokens_per_second"),
        generation_tokens=read.rate("generation_tokens", "generated", "tokens_per_second"),
        ttft_p50=read.latency("ttft", "p50"),
        ttft_p99=read.latency("ttft", "p99"),
        e2e_p50=read.latency("e2e", "p50"),
        e2e_p99=read.latency("e2e", "p99"),
        e2e_mean=read.latency("e2e", "mean"),
        running=read.gauge("running", "count", highest.get("running")),
        waiting=read.gauge("waiting", "count", highest.get("waiting")),
        kv=read.gauge("kv_peak", "ratio"),
        preemptions=read.rate("preemptions", "preempted", "per_second"),
        prefix_hits=read.share("prefix_hits", "prefix_queries", "nothing was looked up in a prefix cache"),
        models=_models(read, found) if models else [],
        outcomes=outcomes_of(found),
    )
    return inquiry.answer(
        result,
        cover,
        level="rows" if cover.rows else "metrics",
        exactness=weakest([result.ttft_p99.exactness, result.e2e_mean.exactness, read.flow_exactness]),
        rows=cover.rows or cover.samples,
        samples_used=cover.samples > 0,
        state="value" if read.total else cover.state,
    )


def _models(read: Readings, found: Sequence[dict[str, Any]]) -> list[ModelRow]:
    servers = servers_of(found)
    rows = {str(row["name"]): row for row in read.row_models}
    samples = {str(row["model"]): row for row in read.sample_models} if read.split else {}
    grid = Grid.of(read.inquiry.window, 1)
    lines: dict[str, dict[str, LatencyLine]] = {}
    if samples.keys() - rows.keys():
        for latency in ("ttft", "e2e"):
            told = metric_lines(read.inquiry, SIGNALS[f"{latency}_seconds"], grid, "model", sorted(rows))
            lines[latency] = {line.name: line for line in told}
    made = [_model(read, name, rows.get(name), samples.get(name), lines, servers) for name in {*rows, *samples}]
    return sorted(filter(_told, made), key=lambda row: (-(row.requests or 0), row.model))


def _told(row: ModelRow) -> bool:
    """Whether it is more than the trace of a server that says nothing, such as one that is down."""
    figures = (row.requests, row.generation_tokens_per_second, row.waiting_peak, row.kv_peak_ratio, row.preemptions)
    return bool(row.model) or any(figure is not None for figure in figures)


def _model(
    read: Readings,
    name: str,
    row: dict[str, Any] | None,
    sample: dict[str, Any] | None,
    lines: dict[str, dict[str, LatencyLine]],
    servers: dict[str, Servers],
) -> ModelRow:
    seconds = read.inquiry.window.seconds
    told = servers.get(name, Servers())
    held, seen = row or {}, sample or {}
    ttft, e2e = (lines.get(latency, {}).get(name) for latency in ("ttft", "e2e"))
    ended, judged, failed = (number(seen.get(f"{name}_elsewhere")) for name in ("ended", "judged", "failed"))
    requests = _plus(number(held.get("n")), ended)
    bad = _plus(number(held.get("bad")), failed)

    def tokens(column: str, row_column: str) -> float | None:
        amount = number(seen.get(column))
        by_arrival = ratio(number(held.get(row_column)), read.inquiry.settled_seconds)
        return by_arrival if amount is None else amount / seconds

    def figure(latency: str, key: str, place: int, line: LatencyLine | None) -> float | None:
        return number(held[f"{latency}_q"][place]) if row else line.total[key] if line else None

    def counted(latency: str, line: LatencyLine | None) -> float | None:
        return number(held[f"{latency}_rows"]) if row else line.total["count"] if line else None

    return ModelRow(
        model=name,
        engines=list(names([*told.engines, *seen.get("engines", ())])),
        deployments=list(names([*told.deployments, *seen.get("deployments", ())])),
        instances=list(names([*told.instances, *seen.get("instances", ())])),
        requests=requests,
        requests_per_second=None if requests is None else read.per_second(number(held.get("n")), ended),
        error_share=ratio(bad, _plus(number(held.get("n")), judged)),
        prompt_tokens_per_second=tokens("prompt_tokens", "prompt"),
        generation_tokens_per_second=tokens("generation_tokens", "generated"),
        ttft_requests=counted("ttft", ttft),
        ttft_p50_seconds=figure("ttft", "p50", 0, ttft),
        ttft_p99_seconds=figure("ttft", "p99", 3, ttft),
        e2e_requests=counted("e2e", e2e),
        e2e_p50_seconds=figure("e2e", "p50", 0, e2e),
        e2e_p99_seconds=figure("e2e", "p99", 3, e2e),
        e2e_mean_seconds=number(held.get("e2e_mean")) if row else e2e.total["mean"] if e2e else None,
        waiting_peak=number(seen.get("waiting_peak")),
        kv_peak_ratio=number(seen.get("kv_peak")),
        preemptions=number(seen.get("preemptions")),
        exactness=read.exactness if row else weakest([line.exactness for line in (ttft, e2e) if line]),
    )


def _plus(*amounts: float | None) -> float | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if known else None
