"""What is being served, by whom, and is it well: the one-glance question.

Requests and errors come from rows where an instance has them, from the engine's counters where it has not; both
add up to one figure. Token rates come from the engines' counters, which count a token when it is made (a row has all
its tokens at its arrival); under a tenant filter from rows, as metrics know no tenant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from analytics.census import Asked, Servers, census, instances_of, outcomes_of, servers_of
from analytics.ground import Grid, Inquiry, moment, names, number, ratio, weakest
from analytics.lines import metric_lines
from analytics.samples import gauge_peaks
from analytics.signals import SIGNALS
from analytics.traffic_shapes import Choices, InstanceRow, Instances, ModelRow, Overview
from analytics.traffic_tiles import Ground
from analytics.window import Answer, Coverage, Filter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from analytics.ground import Reader
    from analytics.latency_shapes import LatencyLine
    from analytics.window import Window

__all__ = ["Choices", "InstanceRow", "Instances", "ModelRow", "Overview", "choices", "instances", "overview"]

_ROWS_MS: Final = 3_600_000
"""Choices read every row of the newest so many milliseconds; before that the rollup by minute, a thousandth of it."""


def overview(
    store: Reader,
    window: Window,
    filter: Filter = Filter(),  # noqa: A002, B008
    *,
    points: int = 60,
    models: bool = True,
) -> Answer[Overview]:
    """Tiles, sparklines of about ``points`` steps and one row per model.

    Without ``models`` neither rows of models nor outcomes are counted, which takes half the time.
    """
    inquiry = Inquiry(store, "traffic", window, filter)
    ground = Ground.read(inquiry, points)
    cover = ground.cover
    found = census(inquiry) if cover.rows and models else []
    highest = gauge_peaks(inquiry) if cover.samples else {}
    result = Overview(
        step=ground.grid.step,
        times=ground.grid.times,
        requests=ground.requests(),
        errors=ground.errors(),
        prompt_tokens=ground.rate("prompt_tokens", "prompt", "tokens_per_second"),
        generation_tokens=ground.rate("generation_tokens", "generated", "tokens_per_second"),
        ttft_p50=ground.latency("ttft", "p50"),
        ttft_p99=ground.latency("ttft", "p99"),
        e2e_p50=ground.latency("e2e", "p50"),
        e2e_p99=ground.latency("e2e", "p99"),
        e2e_mean=ground.latency("e2e", "mean"),
        running=ground.gauge("running", "count", highest.get("running")),
        waiting=ground.gauge("waiting", "count", highest.get("waiting")),
        kv=ground.gauge("kv_peak", "ratio"),
        preemptions=ground.rate("preemptions", "preempted", "per_second"),
        prefix_hits=ground.share("prefix_hits", "prefix_queries", "nothing was looked up in a prefix cache"),
        models=_models(ground, found) if models else [],
        outcomes=outcomes_of(found),
    )
    return inquiry.answer(
        result,
        cover,
        level="rows" if cover.rows else "metrics",
        exactness=weakest([result.ttft_p99.exactness, result.e2e_mean.exactness, ground.flow_exactness]),
        rows=cover.rows or cover.samples,
        samples_used=cover.samples > 0,
        state="value" if ground.total else cover.state,
    )


def instances(store: Reader, window: Window, filter: Filter = Filter()) -> Answer[Instances]:  # noqa: A002, B008
    """Every instance that reported or was asked in the window, with its newest state."""
    inquiry = Inquiry(store, "traffic", window, filter)
    cover = inquiry.coverage()
    asked = instances_of(census(inquiry)) if cover.rows else {}
    found: list[InstanceRow] = []
    for row in inquiry.ask("instances_samples"):
        requests = asked.pop((str(row["name"]), str(row["recorded"])), None)
        found.append(
            InstanceRow(
                instance=str(row["name"]),
                deployment=str(row["deployment"]),
                engine=str(row["engine"]),
                region=str(row["region"]),
                version=str(row["version"]),
                models=list(names([*row["models"], *(requests.models if requests else ())])),
                ranks=list(names(row["ranks"])),
                up=bool(row["is_up"]),
                last_sample=moment(row["newest_ms"]),
                last_request=moment(requests.newest_ms) if requests else None,
                requests=requests.n if requests else 0,
                running=number(row["running"]),
                waiting=number(row["waiting"]),
                kv_cache_usage_ratio=number(row["kv"]),
                up_ratio=number(row["up_ratio"]),
                scrape_seconds=number(row["scrape_seconds"]),
                recording=str(row["recorded"]),
            )
        )
    found += [_without_samples(row) for row in asked.values()]
    found.sort(key=lambda row: (row.up is not False, row.instance, row.recording))
    return inquiry.answer(
        Instances(found), cover, level="metrics" if cover.samples else "rows", exactness="exact", rows=len(found)
    )


def choices(store: Reader, window: Window, filter: Filter = Filter()) -> Answer[Choices]:  # noqa: A002, B008
    """Values for the filters. The filter narrows nothing but ``recording`` and ``tenant``: one can always widen again.

    A tenant filter is kept, so that somebody who may see one tenant is offered no other. Of a window over an hour,
    what engines told of requests that nothing stood in front of counts for the last hour alone.
    """
    inquiry = Inquiry(store, "traffic", window, Filter(tenant=filter.tenant, recording=filter.recording))
    parts = inquiry.ask("choices", rows_from_ms=max(window.from_ms, window.to_ms - _ROWS_MS))

    def values(column: str) -> list[str]:
        return list(names([value for part in parts for value in part[column]]))

    def told(kind: str) -> tuple[int, datetime | None]:
        held = [(int(part["n"]), int(part["newest"])) for part in parts if part["part"] == kind and part["n"]]
        return sum(n for n, _ in held), moment(max(newest for _, newest in held)) if held else None

    columns = (
        "models",
        "tenants",
        "instances",
        "deployments",
        "engines",
        "regions",
        "versions",
        "recordings",
        "outcomes",
    )
    result = Choices(*(values(column) for column in columns))
    (rows, last_row), (samples, last_sample) = told("rows"), told("samples")
    cover = Coverage(rows, samples, last_row, last_sample, recordings=tuple(result.recordings))
    return inquiry.answer(
        result,
        cover,
        level="rows" if rows else "metrics",
        exactness="exact",
        rows=rows + samples,
        samples_used=True,
    )


def _without_samples(row: Asked) -> InstanceRow:
    return InstanceRow(
        instance=row.instance,
        deployment=row.deployment,
        engine=row.engine,
        region=row.region,
        version=row.version,
        models=list(names([*row.models])),
        ranks=list(names([*row.ranks])),
        up=None,
        last_sample=None,
        last_request=moment(row.newest_ms),
        requests=row.n,
        running=None,
        waiting=None,
        kv_cache_usage_ratio=None,
        up_ratio=None,
        scrape_seconds=None,
        recording=row.recording,
    )


def _models(ground: Ground, found: Sequence[dict[str, Any]]) -> list[ModelRow]:
    servers = servers_of(found)
    rows = {str(row["name"]): row for row in ground.row_models}
    samples = {str(row["model"]): row for row in ground.sample_models} if ground.split else {}
    grid = Grid.of(ground.inquiry.window, 1)
    lines: dict[str, dict[str, LatencyLine]] = {}
    if samples.keys() - rows.keys():
        for latency in ("ttft", "e2e"):
            told = metric_lines(ground.inquiry, SIGNALS[f"{latency}_seconds"], grid, "model", sorted(rows))
            lines[latency] = {line.name: line for line in told}
    made = [_model(ground, name, rows.get(name), samples.get(name), lines, servers) for name in {*rows, *samples}]
    return sorted(made, key=lambda row: (-(row.requests or 0), row.model))


def _model(
    ground: Ground,
    name: str,
    row: dict[str, Any] | None,
    sample: dict[str, Any] | None,
    lines: dict[str, dict[str, LatencyLine]],
    servers: dict[str, Servers],
) -> ModelRow:
    seconds = ground.inquiry.window.seconds
    told = servers.get(name, Servers())
    held, seen = row or {}, sample or {}
    ttft, e2e = (lines.get(latency, {}).get(name) for latency in ("ttft", "e2e"))
    ended, judged, failed = (number(seen.get(f"{name}_elsewhere")) for name in ("ended", "judged", "failed"))
    requests = _plus(number(held.get("n")), ended)
    bad = _plus(number(held.get("bad")), failed)

    def tokens(column: str, row_column: str) -> float | None:
        amount = number(seen.get(column))
        by_arrival = ratio(number(held.get(row_column)), ground.inquiry.settled_seconds)
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
        requests_per_second=None if requests is None else ground.per_second(number(held.get("n")), ended),
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
        exactness=ground.exactness if row else weakest([line.exactness for line in (ttft, e2e) if line]),
    )


def _plus(*amounts: float | None) -> float | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if known else None
