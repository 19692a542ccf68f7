"""How full the KV cache is, what it costs (preemptions) and what it saves (prefix hits)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from analytics.window import Answer, Filter, Window

if TYPE_CHECKING:
    from datetime import datetime

    from analytics.ground import Reader
    from analytics.shapes import Line


@dataclass(frozen=True, slots=True)
class InstanceCache:
    """KV cache of one instance.

    Attributes:
        instance: Name.
        usage_max: Fullest rank and model per step, 0 to 1.
        usage_mean: Mean per step, 0 to 1.
        preemptions: Per second and step.
        hit_share: Prefix cache hits over look-ups per step, in tokens.
        peak: Fullest over the window.
        mean: Mean over the window.
        preempted: Preemptions in the window.
        hits_share_window: Hit share over the window.
        seconds_above_90: Seconds of samples whose usage was at least 0.9.
    """

    instance: str
    usage_max: list[float | None]
    usage_mean: list[float | None]
    preemptions: list[float | None]
    hit_share: list[float | None]
    peak: float | None
    mean: float | None
    preempted: float | None
    hits_share_window: float | None
    seconds_above_90: float


@dataclass(frozen=True, slots=True)
class Occupancy:
    """KV caches over time.

    Attributes:
        step: Seconds of a step.
        times: Starts of the steps.
        usage_max: Fullest cache of all instances per step.
        usage_mean: Mean over instances per step.
        preemptions: Per second, all instances.
        hit_share: Prefix cache hits over look-ups (tokens), all instances.
        cached_tokens: Prompt tokens that came from a cache, per second, from request rows.
        computed_tokens: Prompt tokens really computed, per second, from request rows.
        instances: Fullest first.
        cached_share: Cached over prompt tokens of all requests in the window, None without rows.
    """

    step: int
    times: list[datetime]
    usage_max: Line
    usage_mean: Line
    preemptions: Line
    hit_share: Line
    cached_tokens: Line
    computed_tokens: Line
    instances: list[InstanceCache]
    cached_share: float | None


def occupancy(store: Reader, window: Window, filter: Filter = Filter(), *, points: int = 120) -> Answer[Occupancy]:  # noqa: A002, B008
    """KV usage per instance, preemptions, prefix hits and cached tokens per step."""
    raise NotImplementedError
