"""Work change: what requests cost more because they asked for more, not because they were served worse.

Of a kind with means ``u`` (prompt tokens that had to be computed) and ``o`` (output tokens) in its reference, ``c``,
``d`` seconds a token, and a tenant that found a share ``h`` of its prompts in the prefix cache, a request differs by

- ``cold_prefix_cache``: ``c · (its prompt · h − its cached tokens)``, nothing for a tenant without a reference
- ``longer_prompts``: ``c · (its uncached tokens − u)`` less that
- ``longer_outputs``: ``d · (its output − o)``

of which the first two add up to ``c`` times the difference in uncached tokens. Single requests differ from the mean at
any time; only what a kind's requests of the window sum to counts, and only where that is more than chance and matters.
It is then shared among those that asked for more, in proportion; else the reference of a request is its own work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from analytics.causes.arrays import Floats, Ints
    from analytics.causes.fit import Fit
    from analytics.causes.reference import Reference
    from analytics.causes.table import Requests

SIGMAS: Final = 5.0
"""Standard errors by which the sum must differ from none: tenants come in bursts, so that requests are not independent
and fewer would be found by chance."""
MATTERS: Final = 0.05
"""Share of the reference's seconds below which a change of work is not told."""
FOUND: Final = 0.1
"""Share of its prompts that a tenant has to have found in the cache to have a cache to lose."""
CAUSES: Final = ("longer_prompts", "cold_prefix_cache", "longer_outputs")
"""Their names."""


def work_changes(requests: Requests, reference: Reference) -> dict[str, Floats]:
    """Seconds of each request by cause, never below zero; only causes that are there."""
    found: dict[str, Floats] = {}
    for place, fit in enumerate(reference.fits):
        mine = np.flatnonzero((reference.fit_of == place) & requests.whole)
        inside, calm = np.flatnonzero(requests.inside[mine]), np.flatnonzero(reference.calm[mine])
        window = mine[inside]
        if len(window) < 2 or len(calm) < 2:  # noqa: PLR2004 - below, nothing spreads
            continue
        # those of a cohort are known by their mean, which counts once
        alike = len(window) / requests.known(window)
        for cause, terms in _terms(fit, requests, reference, mine):
            there, usual = terms[inside], terms[calm]
            total = float(there.sum())
            chance = float(usual.std()) * np.sqrt(alike * len(there) * (1 + len(there) / len(usual)))
            if total <= max(SIGMAS * chance, MATTERS * fit.e2e * len(there)):
                continue
            more = np.maximum(there, 0.0)
            share = found.setdefault(cause, np.zeros(len(requests)))
            share[window] += more * (total / more.sum())
    return found


def _terms(fit: Fit, requests: Requests, reference: Reference, rows: Ints) -> Iterator[tuple[str, Floats]]:
    """By which each of some requests of a kind differs from its mean, cause by cause."""
    hit, prompt, cached = reference.hit[rows], requests.prompt[rows], requests.cached[rows]
    missed = np.where(np.isfinite(hit), hit * prompt - cached, 0.0)
    yield "longer_prompts", fit.prefill_token * (requests.uncached[rows] - fit.uncached - missed)
    yield "cold_prefix_cache", fit.prefill_token * missed
    yield "longer_outputs", fit.output_token * (requests.output[rows] - fit.output)
