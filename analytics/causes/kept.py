"""References that were worked out before: what a kind of request costs, and how much of a cause is noise.

A job keeps them a period at a time (`analytics.causes.keeping`); an account takes the newest that were there when its
window began. So a few requests have a reference too, one that has seen many, and a fault that began long before the
window is none.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from analytics.causes.blocks import Fingerprint, Fingerprints
from analytics.causes.fit import Fit, Kind
from analytics.causes.minutes import remembered
from analytics.causes.table import PHASES
from base.named_sql import beside

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from analytics.causes.arrays import Floats
    from analytics.inquiry import Inquiry

FRESH_SECONDS: Final = 24 * 3600.0
"""Age from which a kept reference is none any more."""
MOST_BLOCKS: Final = 72
"""Blocks that what was kept before counts for in what is kept next: three times those of one period."""
_SQL: Final = beside(__file__)
_MOST: Final = 10_000


@dataclass(frozen=True, slots=True)
class Noise:
    """How much of a cause is charged to calm requests.

    Attributes:
        blocks: Blocks of calm requests that were looked at.
        mean: Mean load of a block: seconds charged over the reference's seconds.
        deviation: Standard deviation of the blocks' loads.
    """

    blocks: int
    mean: float
    deviation: float

    def at_most(self, blocks: int = MOST_BLOCKS) -> Noise:
        """The same as if of so many blocks, so that what is older counts less."""
        return replace(self, blocks=min(self.blocks, blocks))

    @classmethod
    def of(cls, loads: Floats) -> Noise:
        """Of the loads of blocks."""
        return cls(len(loads), float(loads.mean()), float(loads.std())) if len(loads) else cls(0, 0.0, 0.0)

    def with_(self, other: Noise) -> Noise:
        """Of the blocks of both together (Chan, Golub & LeVeque, *The American Statistician* 37, 1983)."""
        n = self.blocks + other.blocks
        if not n:
            return self
        mean = (self.blocks * self.mean + other.blocks * other.mean) / n
        squares = sum(one.blocks * (one.deviation**2 + (one.mean - mean) ** 2) for one in (self, other))
        return Noise(n, mean, (squares / n) ** 0.5)


@dataclass(frozen=True)
class Kept:
    """What was kept.

    Attributes:
        fits: What kinds cost.
        noise: By deployment and cause; ``""`` stands for causes that are not named.
    """

    fits: Mapping[Kind, Fit] = field(default_factory=dict)
    noise: Mapping[tuple[str, str], Noise] = field(default_factory=dict)

    @property
    def deployments(self) -> frozenset[str]:
        """Of which fits are kept."""
        return frozenset(kind[0] for kind in self.fits)

    def noise_of(self, deployment: str, cause: str) -> Noise:
        """Of a cause at a deployment; of no blocks where nothing is kept."""
        nothing = self.noise.get((deployment, ""), Noise(0, 0.0, 0.0))
        return self.noise.get((deployment, cause), nothing)


def kept_for(inquiry: Inquiry, at_ms: int | None = None) -> Kept:
    """What is kept for a window: of live requests, so none for recordings alone.

    Args:
        inquiry: Whose window.
        at_ms: Unix milliseconds at which it had to be there; the window's begin where None.
    """
    if inquiry.filter.recording == "only":
        return Kept()
    at_ms = inquiry.window.from_ms if at_ms is None else at_ms
    asked: dict[str, Any] = {"at_ms": at_ms, "fresh_ms": at_ms - int(FRESH_SECONDS * 1000), "limit": _MOST}
    found = {
        str(row["part"]): Fingerprint(int(row["fingerprint"]), fresh=False, n=int(row["n"]))
        for row in inquiry.ask("fingerprints", sql=_SQL, **asked)
    }
    fingerprints = Fingerprints(
        (inquiry.store.asker, "kept"), {part: {0: fingerprint} for part, fingerprint in found.items()}
    )
    fits = [_fit(row) for row in remembered(inquiry, ("references", {}, _SQL), "references", fingerprints, **asked)]
    if not fits:
        return Kept()
    noise = {
        (str(row["deployment"]), str(row["cause"])): Noise(
            int(row["blocks"]), float(row["mean_load"]), float(row["load_deviation"])
        )
        for row in remembered(inquiry, ("noise", {}, _SQL), "noise", fingerprints, **asked)
    }
    return Kept({fit.kind: fit for fit in fits}, noise)


def _fit(row: Mapping[str, Any]) -> Fit:
    return Fit(
        kind=(str(row["deployment"]), str(row["model"]), str(row["route"]), bool(row["has_engine"])),
        n=int(row["requests"]),
        base=np.array([float(row["base_seconds"].get(phase, 0.0)) for phase in PHASES]),
        prefill_token=float(row["prefill_token_seconds"]),
        prefill_token_error=float(row["prefill_token_error_seconds"]),
        output_token=float(row["output_token_seconds"]),
        output_token_error=float(row["output_token_error_seconds"]),
        prompt=float(row["prompt_tokens"]),
        uncached=float(row["uncached_tokens"]),
        output=float(row["output_tokens"]),
        e2e=float(row["e2e_seconds"]),
        spread=float(row["spread_seconds"]),
        versions=tuple(str(one) for one in row["versions"]),
        since=row["since"],
        until=row["until"],
    )


def reference_rows(fits: Iterable[Fit]) -> list[dict[str, object]]:
    """Rows of ``cause_references``."""
    return [
        {
            **dict(zip(("deployment", "model", "route", "has_engine"), fit.kind, strict=True)),
            "since": fit.since,
            "until": fit.until,
            "versions": list(fit.versions),
            "requests": fit.n,
            "base_seconds": dict(zip(PHASES, fit.base.tolist(), strict=True)),
            "prefill_token_seconds": fit.prefill_token,
            "prefill_token_error_seconds": fit.prefill_token_error,
            "output_token_seconds": fit.output_token,
            "output_token_error_seconds": fit.output_token_error,
            "prompt_tokens": fit.prompt,
            "uncached_tokens": fit.uncached,
            "output_tokens": fit.output,
            "e2e_seconds": fit.e2e,
            "spread_seconds": fit.spread,
        }
        for fit in fits
    ]


def noise_rows(noise: Mapping[tuple[str, str], Noise]) -> list[dict[str, object]]:
    """Rows of ``cause_noise``, by deployment and cause."""
    return [
        {
            "deployment": deployment,
            "cause": cause,
            "blocks": one.blocks,
            "mean_load": one.mean,
            "load_deviation": one.deviation,
        }
        for (deployment, cause), one in noise.items()
        if one.blocks
    ]
