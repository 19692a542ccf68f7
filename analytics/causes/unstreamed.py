"""Answers that came in one piece, of which the edge alone tells: how long they waited, by what the server's page shows.

Nothing of such an answer is known but its end. A server's queue is worked off in order of arrival: of those that had
come by a sample's time, all but the ones that then waited had been taken up, and a request is taken up when as many are
as had come with it. What is left of its time is taken for decoding, the computing of its prompt with it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from analytics.causes.table import PHASE

if TYPE_CHECKING:
    from analytics.causes.arrays import Floats
    from analytics.causes.table import Evidence, Samples


def parted(evidence: Evidence) -> Evidence:
    """The same with phases of requests that know none: ``queue`` and ``decode`` in place of ``other``.

    Those are requests without an engine half that have tokens and no time to the first. Without samples of their server
    all of it is ``decode``. Said twice it changes nothing.
    """
    requests = evidence.requests
    bare = ~requests.engine_half & (requests.ttft <= 0) & (requests.output > 1) & requests.whole
    rows = np.flatnonzero(bare & (requests.phases[:, PHASE["other"]] > 0))
    if not len(rows) or len(requests.cohort):
        return evidence
    phases = requests.phases.copy(order="K")
    wait = np.zeros(len(requests))
    instance = requests.instance
    for code in np.unique(instance.codes[rows]):
        samples = evidence.samples.get(instance.names[code])
        if samples is not None:
            mine = np.flatnonzero(instance.codes == code)
            wait[mine] = _waits(requests.start[mine], samples, requests.scale)
    left = phases[rows, PHASE["other"]]
    phases[rows, PHASE["queue"]] = np.minimum(wait[rows], left)
    phases[rows, PHASE["decode"]] = left - phases[rows, PHASE["queue"]]
    phases[rows, PHASE["other"]] = 0.0
    return replace(evidence, requests=replace(requests, phases=phases))


def _waits(start: Floats, samples: Samples, scale: float) -> Floats:
    """Seconds from each arrival, in order, until as many had been taken up as had come with it.

    0 for what no sample saw waiting, and for what waited after the last.
    """
    told = np.isfinite(samples.waiting)
    time, waiting = samples.time[told], samples.waiting[told]
    found = np.zeros(len(start))
    if not len(time):
        return found
    came = np.searchsorted(start, time, side="right") * scale
    taken = np.maximum.accumulate(came - waiting)
    own = np.arange(1, len(start) + 1) * scale
    seen = np.searchsorted(time, start)
    at = np.maximum(np.searchsorted(taken, own), seen)
    late = np.flatnonzero((at > seen) & (at < len(time)))  # it was seen waiting
    after, before = at[late], at[late] - 1
    step = np.maximum(taken[after] - taken[before], 1e-9)
    share = np.clip((own[late] - taken[before]) / step, 0.0, 1.0)
    found[late] = time[before] + share * (time[after] - time[before]) - start[late]
    return found
