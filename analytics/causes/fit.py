"""What a kind of request costs: a robust fit to calm requests.

Each part is robust (values above the 95th percentile count as that):

- ``prefill = a + c · uncached tokens``, the slope by Theil and Sen (Sen, *JASA* 63, 1968) of pairs of one tenant,
  never below zero: to read what is cached takes time too, and what is cached differs by tenant,
- ``decode = d · (output tokens − 1)``, a ratio of sums (its error: of groups, Cochran, *Sampling Techniques*, ch. 6),
- every other phase its mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from analytics.causes.table import PHASE

if TYPE_CHECKING:
    from datetime import datetime

    from analytics.causes.arrays import Flags, Floats, Ints
    from analytics.causes.table import Requests

LEAST: Final = 8
"""Requests a kind needs for a reference."""
_PAIRS: Final = 4_000
_APART: Final = 0.05
"""Share of the usual range by which the two of a pair differ at least."""
_CLIP: Final = 0.95
_GROUPS: Final = 20
"""Groups in order of arrival by which an error is told."""
Kind = tuple[str, str, str, bool]
"""Deployment, model, route, and whether the engine's record is there."""


@dataclass(frozen=True)
class Fit:
    """What a kind costs.

    Attributes:
        kind: ``(deployment, model, route, whether the engine's record is there)``.
        n: Requests it rests on.
        base: Seconds of each phase of `PHASES` that no token explains.
        prefill_token: Seconds an uncached prompt token takes; `prefill_token_error` is its standard error.
        output_token: Seconds an output token after the first takes; `output_token_error` is its standard error.
        prompt, uncached, output: Mean tokens.
        e2e: Mean seconds end to end.
        spread: Standard deviation of what a request took besides the fit, seconds.
        versions: Of its requests, those that somebody told.
        since, until: Period that it rests on; None for that of the account itself.
    """

    kind: Kind
    n: int
    base: Floats
    prefill_token: float
    output_token: float
    prompt: float
    uncached: float
    output: float
    e2e: float
    spread: float
    prefill_token_error: float = 0.0
    output_token_error: float = 0.0
    versions: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None

    @property
    def error(self) -> float:
        """Standard error of the mean seconds end to end."""
        return self.spread / float(max(self.n, 1) ** 0.5)


def cost(fit: Fit, requests: Requests, rows: Flags) -> Floats:
    """``(rows, len(PHASES))`` seconds that the work of requests costs by a fit."""
    seconds = np.tile(fit.base, (int(rows.sum()), 1))
    seconds[:, PHASE["prefill"]] += fit.prefill_token * requests.uncached[rows]
    seconds[:, PHASE["decode"]] += fit.output_token * np.maximum(requests.output[rows] - 1, 0)
    return seconds


def fit_of(requests: Requests, those: Flags, kind: Kind) -> Fit:
    """The fit of a kind to some requests."""
    ground = np.flatnonzero(those)
    ground = ground[np.argsort(requests.start[ground], kind="stable")]
    phases, uncached = requests.phases[ground], requests.uncached[ground]
    tokens = np.maximum(requests.output[ground] - 1, 0)
    decode, prefill = phases[:, PHASE["decode"]], phases[:, PHASE["prefill"]]
    slope = slope_of(uncached, prefill, requests.tenant.codes[ground])
    output_token = output_token_error = 0.0
    if (counted := tokens > 0).sum() >= LEAST:
        rate = decode[counted] / tokens[counted]
        most = np.quantile(rate, _CLIP)
        clipped, counted_tokens = np.minimum(rate, most), tokens[counted]
        output_token = float(np.sum(clipped * counted_tokens) / counted_tokens.sum())
        # those that came one after the other shared steps: groups of them are independent, single ones are not
        group = np.arange(len(clipped)) * _GROUPS // len(clipped)
        off = np.bincount(group, counted_tokens * (clipped - output_token))
        output_token_error = float(np.sqrt(np.sum(off**2)) / counted_tokens.sum())
    rest = phases.copy()
    rest[:, PHASE["prefill"]] -= slope * uncached
    rest[:, PHASE["decode"]] -= output_token * tokens
    low, high = np.quantile(rest, [1 - _CLIP, _CLIP], axis=0)
    base = np.clip(rest, np.minimum(low, 0.0), high).mean(axis=0)
    base[PHASE["decode"]] = max(base[PHASE["decode"]], 0.0) if output_token == 0 else 0.0
    return Fit(
        kind=kind,
        n=len(ground),
        base=base,
        prefill_token=slope,
        prefill_token_error=_slope_error(uncached, prefill - slope * uncached) if slope > 0 else 0.0,
        output_token=output_token,
        output_token_error=output_token_error,
        prompt=float(requests.prompt[ground].mean()),
        uncached=float(uncached.mean()),
        output=float(requests.output[ground].mean()),
        e2e=float(requests.e2e[ground].mean()),
        spread=float((rest.sum(axis=1) - base.sum()).std()),
        versions=tuple(
            sorted(name for code in np.unique(requests.version.codes[ground]) if (name := requests.version.names[code]))
        ),
    )


def slope_of(x: Floats, y: Floats, of: Ints) -> float:
    """Median slope of pairs that differ in x (Theil–Sen), at least 0; pairs at fixed distances, so that it repeats.

    Args:
        x: What the slope is over. Few extreme values do not keep all others from being pairs.
        y: What grows with it.
        of: Whose each is; pairs are of one's own where there are enough of those.
    """
    low, high = np.quantile(x, [1 - _CLIP, _CLIP])
    least = max(_APART * float(high - low), 1.0)
    own = [slopes for one in np.unique(of) for slopes in _slopes(x[of == one], y[of == one], least)]
    every = np.concatenate(own)
    if len(every) < LEAST:
        every = np.concatenate(_slopes(x, y, least))
    return max(float(np.median(every)), 0.0) if len(every) >= LEAST else 0.0


def _slopes(x: Floats, y: Floats, least: float) -> list[Floats]:
    """Slopes of pairs at three distances in order of x, of those that are ``least`` apart."""
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    found: list[Floats] = []
    for step in {max(len(x) // 2, 1), max(len(x) // 3, 1), max(2 * len(x) // 3, 1)}:
        apart, risen = x[step:] - x[:-step], y[step:] - y[:-step]
        far = apart > least
        found.append((risen[far] / apart[far])[:_PAIRS])
    return found


def _slope_error(x: Floats, rest: Floats) -> float:
    """Standard error of a slope by Theil and Sen, from what the fit leaves; its efficiency is 3 / π."""
    scale = 1.4826 * float(np.median(np.abs(rest - np.median(rest))))
    apart = float(x.std()) * len(x) ** 0.5
    return scale / apart * (np.pi / 3) ** 0.5 if apart > 0 else 0.0
