"""What a request's work cost when all was well: fitted per kind over the deployment's peers.

A *kind* is a deployment's model and route, and whether the engine's own record is there. It is neither an instance nor
a version: else a slow replica would be its own normal. Of the time before the window the calm part counts: blocks of an
instance in which the median request took no more than about twice what the quicker quarter of all blocks took, so that
a fault that began earlier is no reference either. Where the time before holds too little, calm parts of the window
itself serve, which is said.

The fit of a kind, each part robust (values above the 95th percentile count as that):

- ``prefill = a + c · uncached tokens``, the slope by Theil and Sen (Sen, *JASA* 63, 1968), never below zero,
- ``decode = d · (output tokens − 1)``, a ratio of sums,
- every other phase its mean.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from analytics.causes.table import PHASE, PHASES

if TYPE_CHECKING:
    from analytics.causes.arrays import Flags, Floats, Ints
    from analytics.causes.table import Requests

LEAST: Final = 8
"""Requests a kind needs for a reference."""
ENOUGH: Final = 30
"""Requests of the time before the window below which the window's own calm parts are looked at."""
BLOCKS: Final = 24
"""Blocks that a reference period is cut into, at most; a block has some requests of each instance."""
BLOCK_REQUESTS: Final = 8
CALM_RATIO: Final = 2.0
"""Times that the median request of a block may cost what it costs in the quicker quarter of blocks."""
_PAIRS: Final = 4_000
_CLIP: Final = 0.95


@dataclass(frozen=True)
class Fit:
    """What a kind costs.

    Attributes:
        kind: ``(deployment, model, route, whether the engine's record is there)``.
        n: Requests it rests on.
        base: Seconds of each phase of `PHASES` that no token explains.
        prefill_token: Seconds an uncached prompt token takes.
        output_token: Seconds an output token after the first takes.
        prompt, uncached, output: Mean tokens.
        e2e: Mean seconds end to end.
        spread: Standard deviation of what a request took besides the fit, seconds.
    """

    kind: tuple[str, str, str, bool]
    n: int
    base: Floats
    prefill_token: float
    output_token: float
    prompt: float
    uncached: float
    output: float
    e2e: float
    spread: float


@dataclass
class Reference:
    """The reference of an account.

    Attributes:
        fits: One a kind.
        fit_of: Place of each request's fit, −1 where its kind has none.
        calm: Requests that the fits rest on.
        expected: ``(n, len(PHASES))`` seconds that each request's own work costs.
        inside: Whether calm parts of the window itself serve as reference.
        hit: Share of its prompt that each request's tenant found in the prefix cache in the reference; NaN for one that
            was not there.
        block: Block of time of each request, of the calm ones alone meaningful.
    """

    fits: list[Fit] = field(default_factory=list)
    fit_of: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    calm: Flags = field(default_factory=lambda: np.empty(0, dtype=np.bool_))
    expected: Floats = field(default_factory=lambda: np.empty((0, len(PHASES))))
    inside: bool = False
    hit: Floats = field(default_factory=lambda: np.empty(0))
    block: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @property
    def known(self) -> Flags:
        """Requests whose kind has a reference."""
        return self.fit_of >= 0

    def each(self, name: str) -> Floats:
        """A figure of each request's fit; 0 where it has none."""
        values = np.array([*(float(getattr(fit, name)) for fit in self.fits), 0.0])
        return values[self.fit_of]


def reference_of(requests: Requests) -> Reference:
    """The reference of requests: those before the window, else calm parts of the window."""
    n = len(requests)
    usable = requests.whole & (requests.e2e > 0)
    before = usable & ~requests.inside
    kinds, names = _kinds(requests)
    lacking = [kind for kind in np.unique(kinds[usable & requests.inside]) if (before & (kinds == kind)).sum() < LEAST]
    inside = bool(before.sum() < ENOUGH or (before.any() and len(lacking) == len(np.unique(kinds[requests.inside]))))
    candidates = usable if inside else before
    made = Reference(fit_of=np.full(n, -1), calm=np.zeros(n, dtype=np.bool_), inside=inside)
    made.expected = np.zeros((n, len(PHASES)))
    made.block = np.zeros(n, dtype=np.int64)
    made.hit = np.full(n, np.nan)
    if not candidates.any():
        return made
    made.block = _blocks(requests, candidates)
    made.calm = _calm(requests, candidates, kinds, made.block)
    made.hit = _hits(requests, made.calm)
    for kind, name in enumerate(names):
        rows = kinds == kind
        ground = rows & made.calm
        for same in ((0, 1, 3), (0, 1)):  # another route of the same model is the nearest, then the other half
            if ground.sum() < LEAST:
                alike = [place for place, other in enumerate(names) if all(other[n] == name[n] for n in same)]
                ground = np.isin(kinds, alike) & made.calm
        if ground.sum() < LEAST:
            continue
        fit = _fit(requests, ground, name)
        made.fit_of[rows] = len(made.fits)
        made.fits.append(fit)
        made.expected[rows] = cost(fit, requests, rows)
    return made


def cost(fit: Fit, requests: Requests, rows: Flags) -> Floats:
    """``(rows, len(PHASES))`` seconds that the work of requests costs by a fit."""
    seconds = np.tile(fit.base, (int(rows.sum()), 1))
    seconds[:, PHASE["prefill"]] += fit.prefill_token * requests.uncached[rows]
    seconds[:, PHASE["decode"]] += fit.output_token * np.maximum(requests.output[rows] - 1, 0)
    return seconds


def _kinds(requests: Requests) -> tuple[Ints, list[tuple[str, str, str, bool]]]:
    """The kind of each request as a code, and the kinds."""
    deployment, model, route = requests.deployment, requests.model, requests.route
    whole = (deployment.codes * len(model.names) + model.codes) * len(route.names) + route.codes
    codes, kinds = pd.factorize(whole * 2 + requests.engine_half)
    names = []
    for kind in kinds:
        rest, half = divmod(int(kind), 2)
        rest, at_route = divmod(rest, len(route.names))
        at_deployment, at_model = divmod(rest, len(model.names))
        names.append((deployment.names[at_deployment], model.names[at_model], route.names[at_route], bool(half)))
    return np.asarray(codes, dtype=np.int64), names


def _blocks(requests: Requests, candidates: Flags) -> Ints:
    start = requests.start[candidates]
    instances = max(len(np.unique(requests.instance.codes[candidates])), 1)
    n = int(np.clip(candidates.sum() // (BLOCK_REQUESTS * instances), 1, BLOCKS))
    edges = np.linspace(start.min(), start.max() + 1e-6, n + 1)
    return np.asarray(np.clip(np.searchsorted(edges, requests.start, side="right") - 1, 0, n - 1), dtype=np.int64)


def _calm(requests: Requests, candidates: Flags, kinds: Ints, block: Ints) -> Flags:
    """Candidates of blocks that are no slower than the quick ones of their kind's deployment."""
    index = np.zeros(len(requests))
    decode, rest = requests.phases[:, PHASE["decode"]], requests.e2e - requests.phases[:, PHASE["decode"]]
    for kind in np.unique(kinds[candidates]):
        rows = candidates & (kinds == kind)
        counted = rows & (requests.output > 1)
        token = np.quantile(decode[counted] / (requests.output[counted] - 1), 0.25) if counted.any() else 0.0
        rough = np.quantile(rest[rows], 0.25) + token * np.maximum(requests.output[rows] - 1, 0)
        index[rows] = np.log(np.maximum(requests.e2e[rows], 1e-6) / np.maximum(rough, 1e-6))
    place = requests.instance.codes * (int(block.max(initial=0)) + 1) + block
    calm = np.zeros(len(requests), dtype=np.bool_)
    for deployment in np.unique(requests.deployment.codes[candidates]):
        rows = np.flatnonzero(candidates & (requests.deployment.codes == deployment))
        _, inverse, sizes = np.unique(place[rows], return_inverse=True, return_counts=True)
        order = np.lexsort((index[rows], inverse))
        begins = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        middle = index[rows][order][begins + sizes // 2]
        told = sizes >= min(3, int(sizes.max()))  # fewer have no middle
        quick = float(np.quantile(middle[told], 0.25))
        calm[rows[(middle <= quick + np.log(CALM_RATIO))[inverse]]] = True
    return calm


def _hits(requests: Requests, calm: Flags) -> Floats:
    """Share of each request's tenant, by what its calm requests of the same model found."""
    place = requests.tenant.codes * len(requests.model.names) + requests.model.codes
    size = int(place.max(initial=0)) + 1
    count = np.bincount(place[calm], minlength=size)
    prompt = np.bincount(place[calm], requests.prompt[calm], size)
    cached = np.bincount(place[calm], requests.cached[calm], size)
    share = np.where((count >= LEAST) & (prompt > 0), cached / np.maximum(prompt, 1), np.nan)
    return np.asarray(share[place])


def _fit(requests: Requests, ground: Flags, kind: tuple[str, str, str, bool]) -> Fit:
    phases, uncached = requests.phases[ground], requests.uncached[ground]
    tokens = np.maximum(requests.output[ground] - 1, 0)
    decode, prefill = phases[:, PHASE["decode"]], phases[:, PHASE["prefill"]]
    slope = _slope(uncached, prefill)
    output_token = 0.0
    if (counted := tokens > 0).sum() >= LEAST:
        rate = decode[counted] / tokens[counted]
        most = np.quantile(rate, _CLIP)
        output_token = float(np.sum(np.minimum(rate, most) * tokens[counted]) / tokens[counted].sum())
    rest = phases.copy()
    rest[:, PHASE["prefill"]] -= slope * uncached
    rest[:, PHASE["decode"]] -= output_token * tokens
    low, high = np.quantile(rest, [1 - _CLIP, _CLIP], axis=0)
    base = np.clip(rest, np.minimum(low, 0.0), high).mean(axis=0)
    base[PHASE["decode"]] = max(base[PHASE["decode"]], 0.0) if output_token == 0 else 0.0
    return Fit(
        kind=kind,
        n=int(ground.sum()),
        base=base,
        prefill_token=slope,
        output_token=output_token,
        prompt=float(requests.prompt[ground].mean()),
        uncached=float(uncached.mean()),
        output=float(requests.output[ground].mean()),
        e2e=float(requests.e2e[ground].mean()),
        spread=float((rest.sum(axis=1) - base.sum()).std()),
    )


def _slope(x: Floats, y: Floats) -> float:
    """Median slope of pairs that differ in x (Theil–Sen), at least 0; pairs at fixed distances, so that it repeats."""
    slopes: list[Floats] = []
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    for step in {max(len(x) // 2, 1), max(len(x) // 3, 1), max(2 * len(x) // 3, 1)}:
        apart, risen = x[step:] - x[:-step], y[step:] - y[:-step]
        far = apart > max(0.05 * float(np.ptp(x)), 1.0)
        slopes.append((risen[far] / apart[far])[:_PAIRS])
    every = np.concatenate(slopes)
    return max(float(np.median(every)), 0.0) if len(every) >= LEAST else 0.0
