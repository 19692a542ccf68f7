"""The requests that one instance served, second by second: who was in which phase, and what was held."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from analytics.causes.steps import cost_of
from analytics.causes.table import PHASE

if TYPE_CHECKING:
    from analytics.causes.arrays import Flags, Floats, Ints
    from analytics.causes.grid import Bins
    from analytics.causes.steps import StepCost, Steps
    from analytics.causes.table import Requests

TENANTS: Final = 30
"""Tenants that are told apart at an instance, those of the most work; the rest are one."""
_SPREAD: Final = frozenset({"prefilled", "arriving"})
"""Kinds of work that are done once, however long it takes; of the others there is some at every moment."""


@dataclass
class Phases:
    """An instance, by its requests and its engine's steps.

    Args:
        name: Its name.
        requests: All requests.
        rows: Indices of those that it served.
        bins: Seconds.
        prefill_token: Seconds an uncached prompt token takes, by the reference.
        steps: Its engine's steps, where a probe tells of them.
        cost: What a step costs when all is well (`learn`).
    """

    name: str
    requests: Requests
    rows: Ints
    bins: Bins
    prefill_token: float = 0.0
    steps: Steps | None = None
    cost: StepCost | None = None
    _of_tenants: dict[str, dict[str, Floats]] = field(default_factory=dict)

    def learn(self, calm: Flags) -> None:
        """Learn what a step costs, and what a prompt token does, from calm seconds.

        Args:
            calm: Of each request here, whether the reference rests on it.
        """
        if self.steps is None:
            return
        self.cost = cost_of(self.steps, self.calm_bins(calm), self.bins)
        if self.cost is not None and self.cost.token > 0:
            self.prefill_token = self.cost.token

    def calm_bins(self, calm: Flags) -> Flags:
        """Bins in which calm requests began, and no other."""
        at = np.clip(((self.span[0] - self.bins.first) / self.bins.step).astype(np.int64), 0, self.bins.n - 1)
        wild = np.zeros(self.bins.n, dtype=np.bool_)
        good = np.zeros(self.bins.n, dtype=np.bool_)
        wild[at[~calm]] = True
        good[at[calm]] = True
        return good & ~wild

    @cached_property
    def part(self) -> Ints | slice:
        """`rows` as a slice where they lie together, as `table.Requests` has them: of columns it makes views."""
        rows = self.rows
        together = len(rows) > 0 and int(rows[-1] - rows[0]) + 1 == len(rows)
        return slice(int(rows[0]), int(rows[-1]) + 1) if together else rows

    def of(self, column: Floats) -> Floats:
        """A column of the requests of this place; not to be written into."""
        return column[self.part]

    @cached_property
    def span(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Arrival, begin of prefill, first token, last token of its requests, seconds since the origin."""
        requests = self.requests
        return (
            self.of(requests.start),
            self.of(requests.prefill_start),
            self.of(requests.decode_start),
            self.of(requests.decode_end),
        )

    @cached_property
    def decoding(self) -> Floats:
        """Mean number of sequences that are decoded in each bin."""
        _, _, first, last = self.span
        return self.bins.level(first, last, self._generates * self.requests.scale)

    @cached_property
    def prefilled(self) -> Floats:
        """Uncached prompt tokens a second in each bin."""
        _, begin, first, _ = self.span
        tokens = self.of(self.requests.uncached) * self.requests.scale
        return self.bins.spread(begin, first, tokens) / self.bins.step

    def computing(self, start: Floats, end: Floats) -> Floats:
        """Share of the time between each start and end in which prompts are computed, by what a token takes."""
        length = np.maximum(end - start, 1e-3)
        by_rows = self.bins.mean(np.minimum(self.prefilled * self.prefill_token, 1.0), start, end)
        if self.steps is None or not self.steps.batch_told:
            return by_rows
        by_steps = np.minimum(self.steps.between("prefilled", start, end) * self.prefill_token / length, 1.0)
        return np.where(self.steps.known(start, end), by_steps, by_rows)

    def among(self, start: Floats, end: Floats) -> Floats:
        """Mean number of sequences decoded at once between each start and end: of the steps in it, else of rows."""
        by_rows = self.bins.mean(self.decoding, start, end)
        if self.steps is None or not self.steps.batch_told:
            return by_rows
        count = self.steps.between("count", start, end)
        by_steps = self.steps.between("decoded", start, end) / np.maximum(count, 1e-9)
        return np.where(self.steps.known(start, end) & (count >= 1), by_steps, by_rows)

    @cached_property
    def queued(self) -> Floats:
        """Mean number of requests in the engine's queue in each bin."""
        _, begin, _, _ = self.span
        queue = np.minimum(self.of(self.requests.phases[:, PHASE["queue"]]), begin - self.span[0])
        return self.bins.level(begin - queue, begin, self.requests.scale)

    @cached_property
    def arrivals(self) -> Floats:
        """Requests a second that arrive in each bin."""
        start = self.span[0]
        return self.bins.spread(start, start, np.full(len(start), self.requests.scale)) / self.bins.step

    def by_tenant(self, what: str) -> dict[str, Floats]:
        """Per tenant and bin: ``held`` KV tokens, ``prefilled`` tokens, ``decoding``, ``arriving``, ``inside``."""
        if what not in self._of_tenants:
            self._of_tenants[what] = self._by_tenant(what)
        return self._of_tenants[what]

    def work(self, what: str) -> tuple[Floats, Floats, Floats]:
        """A kind of work of `by_tenant` by request: since when, until when, and how much.

        That is all of it where it is in `_SPREAD`, else how much there is of it at every moment between.
        """
        start, begin, first, last = self.span
        requests = self.requests
        if what == "held":
            return begin, last, self.of(requests.prompt) + 0.5 * self.of(requests.output)
        if what == "prefilled":
            return begin, first, self.of(requests.uncached)
        if what == "decoding":
            return first, last, self._generates
        return start, start if what == "arriving" else last, np.ones(len(start))

    def work_while(self, what: str, lost: Floats) -> Floats:
        """How much of a kind of work each request had there while seconds were lost, given those of each bin."""
        since, until, height = self.work(what)
        while_ = self.bins.mean(lost, since, until) * height
        return while_ if what in _SPREAD else while_ * np.maximum(until - since, 0.0)

    def _by_tenant(self, what: str) -> dict[str, Floats]:
        requests = self.requests
        since, until, height = self.work(what)
        codes, names = requests.tenant.codes[self.part], requests.tenant.names
        spread = what in _SPREAD
        work = np.bincount(codes, height if spread else height * np.maximum(until - since, 0.0), len(names))
        busiest = np.argsort(-work, kind="stable")[:TENANTS]
        found: dict[str, Floats] = {}
        for name, mine in [
            *((names[code], codes == code) for code in busiest),
            ("", ~np.isin(codes, busiest)),  # the rest, with those that nobody named
        ]:
            if mine.any():
                fill = self.bins.spread if spread else self.bins.level
                series = fill(since[mine], until[mine], height[mine])
                found[name] = found[name] + series if name in found else series
        return found

    @property
    def _generates(self) -> Floats:
        return (self.of(self.requests.output) > 0).astype(np.float64)
