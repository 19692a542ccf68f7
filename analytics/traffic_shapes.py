"""Shapes of the answers about traffic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from analytics.shapes import Tile
    from analytics.window import Exactness


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
        errors: Share of requests that ended in a server's fault (`analytics.outcomes.BAD`).
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


@dataclass(frozen=True, slots=True)
class InstanceRow:
    """One instance as it last reported within the window.

    Attributes:
        instance, deployment, engine, region, version: Its resource; empty where unknown.
        models: Models seen.
        ranks: Data-parallel ranks seen.
        up: Whether its newest sample says up; None when it has requests and no samples.
        last_sample: Time of the newest sample.
        last_request: Arrival of the newest request.
        requests: Requests that arrived at it (rows).
        running, waiting, kv_cache_usage_ratio: Newest values, summed over models and ranks (KV: the fullest).
        up_ratio: Share of scrapes that found it up, 0 to 1.
        scrape_seconds: Mean time that its metrics page took.
        recording: Recording that it comes from, empty when live.
    """

    instance: str
    deployment: str
    engine: str
    region: str
    version: str
    models: list[str]
    ranks: list[str]
    up: bool | None
    last_sample: datetime | None
    last_request: datetime | None
    requests: int
    running: float | None
    waiting: float | None
    kv_cache_usage_ratio: float | None
    up_ratio: float | None
    scrape_seconds: float | None
    recording: str


@dataclass(frozen=True, slots=True)
class Instances:
    """All instances of a window, down ones first.

    Attributes:
        instances: One row each.
    """

    instances: list[InstanceRow]


@dataclass(frozen=True, slots=True)
class Choices:
    """Values that occur in a window, for the filters; each list sorted, empty values left out.

    Attributes:
        models, tenants, instances, deployments, engines, regions, versions, recordings: Distinct values of rows and
            samples. Tenants and outcomes are those of rows; at most 500 each.
        outcomes: Distinct outcomes.
    """

    models: list[str]
    tenants: list[str]
    instances: list[str]
    deployments: list[str]
    engines: list[str]
    regions: list[str]
    versions: list[str]
    recordings: list[str]
    outcomes: list[str]
