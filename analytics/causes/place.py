"""One instance over time, second by second: what its server and machine said of it, and when it stood still."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from analytics.causes.grid import Bins, overlap, runs, united
from analytics.causes.phases import Phases
from analytics.causes.steps import SILENT_SECONDS
from analytics.causes.table import Host

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from analytics.causes.arrays import Floats
    from analytics.causes.table import Event, Evidence, Fault, Gpu, Samples

_OLD_SECONDS: Final = 10.0
"""Age, and number of intervals, from which what a sample said is not known any more."""
_OLD_INTERVALS: Final = 5.0
LEAST_RAN: Final = 0.05
"""Share of the time in which a process is taken to run at the least; a kernel's counts are of a moment."""
MOSTLY_RAN: Final = 0.8
"""The same from which it is not taken to be held up by others."""
AWAY_SHARE: Final = 0.5
"""Share of the time in which a page did not answer in which nobody was served: it is asked for again a while later."""
AFTER_SECONDS: Final = 60.0
"""Seconds after a GPU's fault in which what begins is its consequence."""
SLACK_SECONDS: Final = 5.0
"""Seconds by which the fault may be told later than what it did."""


@dataclass
class Place(Phases):
    """An instance, with what is known of it beside its requests.

    Args:
        samples: Its engine samples, where there are any.
        host: Its machine.
        events: What happened to it.
        gpus: GPUs that its processes run on.
        slowed_by: Share of its clock that each GPU lacks in each bin, where that made requests slower
            (`gpus.charge_throttled`).
        deployed: Engine samples of all servers of its deployment, those too that serve none of the requests.
        yield_lost: Share of what a step yields that speculation has lost in each bin, where that made requests slower
            (`speculation.charge_acceptance`).
    """

    samples: Samples | None = None
    host: Host = field(default_factory=Host)
    events: Sequence[Event] = ()
    gpus: Sequence[Gpu] = ()
    slowed_by: dict[str, Floats] = field(default_factory=dict)
    deployed: Sequence[Samples] = ()
    yield_lost: Floats | None = None

    @cached_property
    def ran(self) -> Floats:
        """Share of each bin in which its process had a CPU when it wanted one; 1 where the host was not measured."""
        delay = np.nan_to_num(self.bins.held(self.host.delay_time, self.host.delay, self.host.age))
        return np.clip(1.0 - delay, LEAST_RAN, 1.0)

    @cached_property
    def waiting(self) -> Floats:
        """The same as the server's page shows it, where no request's own record tells of a queue; 0 where unknown."""
        told = self.requests.engine_half[self.part].any()
        return self.queued if told else np.nan_to_num(self.sampled("waiting"))

    def sampled(self, name: str) -> Floats:
        """A column of the samples on the bins, or of steps where they tell more of it; NaN where nobody said."""
        seen = self._seen(name)
        if self.steps is None or name not in {"waiting", "kv", "preemptions"}:
            return seen
        if name == "preemptions":
            counted = self.steps.over("preempted", self.bins)
            return np.where(self.steps.most("count", self.bins) > 0, counted, seen)
        return np.fmax(seen, self.steps.most(name, self.bins))

    def _seen(self, name: str) -> Floats:
        return self._held(getattr(self.samples, name)) if self.samples is not None else np.full(self.bins.n, np.nan)

    def shown(self, name: str) -> Floats:
        """A gauge of `table.FEATURES` on the bins; NaN where nobody said."""
        values = self.samples.features.get(name) if self.samples is not None else None
        return np.full(self.bins.n, np.nan) if values is None else self._held(values)

    def _held(self, values: Floats) -> Floats:
        assert self.samples is not None  # noqa: S101 - whose values they are
        interval = self.samples.interval[self.samples.interval > 0]
        age = max(_OLD_SECONDS, _OLD_INTERVALS * float(np.median(interval)) if len(interval) else 0.0)
        return self.bins.held(self.samples.time, values, age)

    def counted(self, name: str, whose: Iterable[Samples] | None = None) -> Floats:
        """What a counter of `table.FEATURES` grew by in each bin: of this server (by its steps), or of some in sum."""
        found = np.zeros(self.bins.n)
        for one in whose if whose is not None else [self.samples] if self.samples is not None else []:
            values = one.features.get(name)
            if values is not None and (known := np.isfinite(values) & (one.interval > 0)).any():
                until = one.time[known]
                found += self.bins.spread(until - one.interval[known], until, values[known])
        by_steps = self.steps.counted(name, self.bins) if self.steps is not None and whose is None else None
        return found if by_steps is None else np.where(np.isfinite(by_steps), by_steps, found)

    @cached_property
    def down(self) -> list[tuple[float, float]]:
        """Spans in which its page was not to be had or it had just been restarted, by samples and events."""
        found = [(event.time - 1.0, event.time) for event in self.events if event.event == "instance_restarted"]
        if self.samples is not None:
            time = self.samples.time
            for first, last in runs(~self.samples.up):
                before = float(time[first - 1]) if first else float(time[first])
                found.append((before, float(time[last]) if last < len(time) else float(time[-1])))
        return united(found, gap=1.0)

    @cached_property
    def restarts(self) -> list[tuple[float, float]]:
        """Of `down`, those after which it began anew, each up to when its page was there again."""
        begun = [event.time for event in self.events if event.event == "instance_restarted"]
        return [span for span in self.down if any(span[0] - 2 <= at <= span[1] + 5 for at in begun)]

    @cached_property
    def faults(self) -> list[Fault]:
        """What went wrong with its GPUs, in order."""
        return sorted((fault for gpu in self.gpus for fault in gpu.faults), key=lambda one: one.time)

    @cached_property
    def faulted(self) -> list[tuple[float, float]]:
        """Of `restarts` and `frozen`, those that began with a fault of a GPU or within `AFTER_SECONDS` of one."""
        spans = [*self.restarts, *self.frozen]
        times = [fault.time for fault in self.faults]
        return united([one for one in spans if any(at - SLACK_SECONDS <= one[0] <= at + AFTER_SECONDS for at in times)])

    @cached_property
    def begun(self) -> list[float]:
        """When it began to serve: restarts, and the first time that its page answered after having been away."""
        ups = [event.time for event in self.events if event.event in {"instance_restarted", "instance_up"}]
        return sorted(ups)

    @cached_property
    def frozen(self) -> list[tuple[float, float]]:
        """Spans in which requests were inside and nothing moved.

        By steps: none between two that follow each other, requests being inside, beyond what the prompts of the later
        one may take. By the samples' counters: no token, no finished request between two samples, while a request that
        arrived before was still inside after. The time that the prompts then in prefill may rightly take is left out:
        a long prompt shows no progress until it is computed. A page that does not answer, or answers late, while
        requests that were inside come to a good end after it and none before is a process that stood still, unless it
        began anew or, where it was late, had no CPU.
        """
        stood = self.steps.stood(self.prefill_token) if self.steps is not None else []
        # steps tell to the millisecond, and that it went on where a page merely did not say so
        told = [
            span
            for span in self._frozen_by_pages
            if not any(a < span[1] and span[0] < b for a, b in stood)
            and not (self.steps is not None and self.steps.went_on(*span))
        ]
        return united([*stood, *told], gap=0.5)

    @cached_property
    def _frozen_by_pages(self) -> list[tuple[float, float]]:
        found: list[tuple[float, float]] = []
        if self.samples is None:
            return found
        time, progress = self.samples.time, self.samples.progress
        silent = (progress == 0) & (self.samples.interval > 0)
        for first, last in runs(silent):
            since = float(time[first] - self.samples.interval[first])
            until = float(time[last - 1])
            if until - since >= SILENT_SECONDS:
                found += self._stuck(since, until)
        restarted = self.restarts
        for since, until in self.down:
            if until - since >= SILENT_SECONDS and (since, until) not in restarted:
                found += self._survived(since, until, AWAY_SHARE)
        for asked, came in self.samples.late:
            # A server that lacks a CPU is late with its page too.
            held_up = float(self.bins.mean(self.ran, np.array([asked]), np.array([came]))[0]) < MOSTLY_RAN
            if not held_up and not any(a < came and asked < b for a, b in restarted):
                before = time[time < asked]
                found += self._survived(float(before[-1]) if len(before) else asked, came)
        return united(found, gap=0.5)

    def _stuck(self, since: float, until: float) -> list[tuple[float, float]]:
        start, begin, first, last = self.span
        # inside and not merely being read slowly: its first token, or its last, is yet to come
        inside = (start < until - SILENT_SECONDS) & (last > since)
        whole = inside & (last >= until - 0.5)
        if not whole.any():
            return []
        # counters tell of whole intervals; first and last tokens of requests tell where in them it began and ended
        moved = np.concatenate([first, last])
        earlier, later = moved[(moved > since - 1.5) & (moved <= since)], moved[moved >= until - 0.5]
        begins = max(float(earlier.max()) if len(earlier) else since, float(start[whole].min()))
        ends = min(float(later.min()), until + 1.5)
        prefilling = whole & (first >= ends) & (begin <= ends)
        rightly = self.prefill_token * float(self.of(self.requests.uncached)[prefilling].sum())
        return [(begins, ends)] if ends - begins - rightly >= SILENT_SECONDS else []

    def _survived(self, since: float, until: float, least: float = 1.0) -> list[tuple[float, float]]:
        """When nobody was served while the page was away, being so for at least a share of that time.

        A page that is away while answers come is a page that is away.
        """
        start, _, _, last = self.span
        good = self.of(self.requests.whole.astype(float)) > 0
        went, came = last[good & (last > since) & (last <= since + 1.0)], last[good & (last > since + 1.0)]
        ends = min(float(came.min(initial=until)), until)
        through = good & (start < ends - SILENT_SECONDS) & (last >= ends - 0.5)
        if not through.any() or ends < since + least * (until - since) - 0.5:
            return []
        return [(max(since, float(start[through].min()), float(went.max(initial=since))), ends)]

    def standing(self, spans: list[tuple[float, float]]) -> tuple[Floats, Floats]:
        """Seconds of spans in each request's time before its first token, and after it."""
        start, _, first, last = self.span
        end = np.maximum(last, first)
        return overlap(start, first, spans), overlap(first, end, spans)


def places_of(evidence: Evidence, token: Floats) -> list[Place]:
    """Every instance that served one of the requests.

    Args:
        evidence: Requests, and what is known beside them.
        token: Seconds an uncached prompt token of each request takes.
    """
    requests = evidence.requests
    if not len(requests):
        return []
    bins = Bins.over(float(np.floor(requests.start.min())), float(requests.end.max()) + 1)
    found = []
    for code, name in enumerate(requests.instance.names):
        rows = np.flatnonzero(requests.instance.codes == code)
        if name:
            own = [event for event in evidence.events if event.instance == name]
            usual = float(np.median(token[rows])) if len(rows) else 0.0
            deployment = requests.deployment.names[requests.deployment.codes[rows[0]]] if len(rows) else ""
            deployed = [one for one in evidence.samples.values() if deployment and one.deployment == deployment]
            found.append(
                Place(
                    name, requests, rows, bins, usual, evidence.steps.get(name), samples=evidence.samples.get(name),
                    host=evidence.hosts.get(name, Host()), events=own, gpus=evidence.gpus.get(name, ()),
                    deployed=deployed,
                )
            )  # fmt: skip
    return found
