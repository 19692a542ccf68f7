"""What a request's work cost when all was well: fitted per kind over the deployment's peers.

A *kind* is a deployment's model and route, and whether the engine's own record is there. It is neither an instance nor
a version: else a slow replica would be its own normal. Of the time before the window the calm part counts: blocks of an
instance in which the median request took no more than about twice what the quicker quarter of all blocks took, so that
a fault that began earlier is no reference either. Where the time before holds too little, calm parts of the window
itself serve, which is said.

A kind has its fit (`fit`) of these, or one that was kept before the window (`kept`), where that rests on as many or on
plenty. Beside it a block is calm by what it costs: no fault of all the time before the window is taken for calm.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from analytics.causes.arrays import present
from analytics.causes.fit import LEAST, Fit, cost, fit_of
from analytics.causes.kept import Kept
from analytics.causes.table import PHASE, PHASES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from analytics.causes.arrays import Flags, Floats, Ints
    from analytics.causes.fit import Kind
    from analytics.causes.table import Requests

ENOUGH: Final = 30
"""Requests of the time before the window below which the window's own calm parts are looked at."""
PLENTY: Final = 1_000
"""Requests from which a kept fit is as good as one of any number."""
BLOCKS: Final = 24
"""Blocks that a reference period is cut into, at most; a block has some requests of each instance."""
BLOCK_REQUESTS: Final = 8
CALM_RATIO: Final = 2.0
"""Times that the median request of a block may cost what it costs in the quicker quarter of blocks."""


@dataclass
class Reference:
    """The reference of an account.

    Attributes:
        fits: One a kind.
        fit_of: Place of each request's fit, −1 where its kind has none.
        calm: Requests that the fits rest on.
        expected: ``(n, len(PHASES))`` seconds that each request's own work costs.
        inside: Of each request, whether calm parts of the window itself are the reference of its deployment.
        hit: Share of its prompt that each request's tenant found in the prefix cache in the reference; NaN for one that
            was not there.
        block: Block of its deployment's time of each request, of the calm ones alone meaningful.
    """

    fits: list[Fit] = field(default_factory=list)
    fit_of: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    calm: Flags = field(default_factory=lambda: np.empty(0, dtype=np.bool_))
    expected: Floats = field(default_factory=lambda: np.empty((0, len(PHASES))))
    inside: Flags = field(default_factory=lambda: np.empty(0, dtype=np.bool_))
    hit: Floats = field(default_factory=lambda: np.empty(0))
    block: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @property
    def known(self) -> Flags:
        """Requests whose kind has a reference."""
        return self.fit_of >= 0

    def each(self, name: str, rows: Ints | slice = slice(None)) -> Floats:
        """A figure of each request's fit, of all requests or of some; 0 where it has none."""
        values = np.array([*(float(getattr(fit, name)) for fit in self.fits), 0.0])
        return values[self.fit_of[rows]]


def reference_of(requests: Requests, kept: Kept | None = None) -> Reference:
    """The reference of requests: those before the window, else calm parts of it; kept fits where they know more.

    Each deployment has its own, whoever else is there.

    Args:
        requests: Of the time before and of the window.
        kept: What was known when the window began.
    """
    n = len(requests)
    known = (kept or Kept()).fits
    usable = requests.whole & (requests.e2e > 0)
    kinds, names = _kinds(requests)
    of_kind = {kind: known[name] for kind, name in enumerate(names) if name in known}
    made = Reference(fit_of=np.full(n, -1), calm=np.zeros(n, dtype=np.bool_), inside=np.zeros(n, dtype=np.bool_))
    made.expected = np.zeros((n, len(PHASES)), order="F")
    for code in present(requests.deployment.codes):
        of_it = requests.deployment.codes == code
        made.inside[of_it] = _serves_itself(requests, usable, of_it, kinds, of_kind)
    candidates = usable & (made.inside | ~requests.inside)
    made.block = _blocks(requests, candidates)
    made.calm = _calm(requests, candidates, kinds, made.block, of_kind)
    made.hit = _hits(requests, made.calm)
    for kind, name in enumerate(names):
        rows = kinds == kind
        fit = _fit_for(requests, kinds, names, kind, made.calm, known.get(name))
        if fit is None:
            continue
        made.fit_of[rows] = len(made.fits)
        made.fits.append(fit)
    _expect(made, requests)
    return made


def _expect(made: Reference, requests: Requests) -> None:
    """What each request's own work costs (`fit.cost`), a phase of all kinds at a time."""
    base = np.array([*(fit.base for fit in made.fits), np.zeros(len(PHASES))])
    for phase in np.flatnonzero(base.any(axis=0)):
        made.expected[:, phase] = base[made.fit_of, phase]
    made.expected[:, PHASE["prefill"]] += made.each("prefill_token") * requests.uncached
    made.expected[:, PHASE["decode"]] += made.each("output_token") * np.maximum(requests.output - 1, 0)


def _serves_itself(requests: Requests, usable: Flags, of_it: Flags, kinds: Ints, known: Mapping[int, Fit]) -> bool:
    """Whether too little lies before the window for a deployment's reference."""
    before, inside = usable & of_it & ~requests.inside, of_it & requests.inside
    there = present(kinds[usable & inside])
    own = [kind for kind in there if int(kind) not in known]
    lacking = [kind for kind in own if (before & (kinds == kind)).sum() < LEAST]
    few = before.sum() < ENOUGH and (len(own) > 0 or not len(there))
    return bool(few or (before.any() and len(lacking) == len(present(kinds[inside]))))


def calm_fits(requests: Requests, kept: Kept) -> list[Fit]:
    """Fits to the calm ones of all these requests: what is worth keeping of them.

    Of a kind with fewer than `ENOUGH` what was kept before says more, where there is any.
    """
    usable = requests.whole & (requests.e2e > 0)
    if not usable.any():
        return []
    kinds, names = _kinds(requests)
    of_kind = {kind: kept.fits[name] for kind, name in enumerate(names) if name in kept.fits}
    calm = _calm(requests, usable, kinds, _blocks(requests, usable), of_kind)
    counts = np.bincount(kinds[calm], minlength=len(names))
    return [
        fit_of(requests, calm & (kinds == kind), name)
        for kind, name in enumerate(names)
        if counts[kind] >= (ENOUGH if kind in of_kind else LEAST)
    ]


def _fit_for(
    requests: Requests, kinds: Ints, names: Sequence[Kind], kind: int, calm: Flags, kept: Fit | None
) -> Fit | None:
    """The fit of a kind: of its calm requests, or the kept one; else of those that are most alike."""
    name = names[kind]
    ground = (kinds == kind) & calm
    if kept is not None and kept.n >= min(ground.sum(), PLENTY):
        return kept
    for same in ((0, 1, 3), (0, 1)):  # another route of the same model is the nearest, then the other half
        if ground.sum() < LEAST:
            alike = [place for place, other in enumerate(names) if all(other[n] == name[n] for n in same)]
            ground = np.isin(kinds, alike) & calm
    return fit_of(requests, ground, name) if ground.sum() >= LEAST else None


def _kinds(requests: Requests) -> tuple[Ints, list[Kind]]:
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
    """Blocks of each deployment's own time and number: another deployment's requests shift none."""
    found = np.zeros(len(requests), dtype=np.int64)
    for code in present(requests.deployment.codes[candidates]):
        of_it = requests.deployment.codes == code
        mine = candidates & of_it
        start = requests.start[mine]
        instances = max(len(present(requests.instance.codes[mine])), 1)
        n = int(np.clip(mine.sum() // (BLOCK_REQUESTS * instances), 1, BLOCKS))
        edges = np.linspace(start.min(), start.max() + 1e-6, n + 1)
        found[of_it] = np.clip(np.searchsorted(edges, requests.start[of_it], side="right") - 1, 0, n - 1)
    return found


def _calm(requests: Requests, candidates: Flags, kinds: Ints, block: Ints, known: Mapping[int, Fit]) -> Flags:
    """Candidates of blocks that are no slower than the quick ones of their deployment, and than what is known."""
    index = np.zeros(len(requests))
    decode, rest = requests.phases[:, PHASE["decode"]], requests.e2e - requests.phases[:, PHASE["decode"]]
    for kind in present(kinds[candidates]):
        rows = candidates & (kinds == kind)
        if (fit := known.get(int(kind))) is not None:
            usual = cost(fit, requests, rows).sum(axis=1)
            index[rows] = np.log(np.maximum(requests.e2e[rows], 1e-6) / np.maximum(usual, 1e-6))
            continue
        counted = rows & (requests.output > 1)
        token = np.quantile(decode[counted] / (requests.output[counted] - 1), 0.25) if counted.any() else 0.0
        rough = np.quantile(rest[rows], 0.25) + token * np.maximum(requests.output[rows] - 1, 0)
        index[rows] = np.log(np.maximum(requests.e2e[rows], 1e-6) / np.maximum(rough, 1e-6))
    place = requests.instance.codes * (int(block.max(initial=0)) + 1) + block
    calm = np.zeros(len(requests), dtype=np.bool_)
    for deployment in present(requests.deployment.codes[candidates]):
        rows = np.flatnonzero(candidates & (requests.deployment.codes == deployment))
        _, inverse, sizes = np.unique(place[rows], return_inverse=True, return_counts=True)
        order = np.lexsort((index[rows], inverse))
        begins = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        middle = index[rows][order][begins + sizes // 2]
        told = sizes >= min(3, int(sizes.max()))  # fewer have no middle
        quick = float(np.quantile(middle[told], 0.25))
        if np.isin(kinds[rows], list(known)).any():  # what is known is what it should cost
            quick = min(quick, 0.0)
        calm[rows[(middle <= quick + np.log(CALM_RATIO))[inverse]]] = True
    return calm


def _hits(requests: Requests, calm: Flags) -> Floats:
    """Share of each request's tenant, by what its calm requests of the same deployment and model found."""
    place = requests.tenant.codes * len(requests.model.names) + requests.model.codes
    place = place * len(requests.deployment.names) + requests.deployment.codes
    size = int(place.max(initial=0)) + 1
    count = np.bincount(place[calm], minlength=size)
    prompt = np.bincount(place[calm], requests.prompt[calm], size)
    cached = np.bincount(place[calm], requests.cached[calm], size)
    share = np.where((count >= LEAST) & (prompt > 0), cached / np.maximum(prompt, 1), np.nan)
    return np.asarray(share[place])
