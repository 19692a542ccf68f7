"""An instance that has work (running or waiting requests) and makes no progress for `after`."""

from __future__ import annotations

from collections import Counter
from math import inf
from typing import TYPE_CHECKING, Final, Literal

from agent.engine_table import Table, tables
from alerts.measure.needs import Needs
from alerts.measure.signals import OF_SAMPLES, PROGRESS, columns_of
from alerts.rules import blind
from alerts.rules.condition import Condition
from alerts.rules.reading import Reading, apart, trailing_run
from alerts.text import number, subject
from base.durations import PositiveDuration  # noqa: TC001 pydantic reads it at run time
from base.formats import rounded
from base.vocabulary import Signal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from alerts.measure.measured import Measured, Open, Sample
    from alerts.rules.blind import Blind
    from alerts.rules.scope import Scope


_STEPS: Final = "engine_steps_delta"
_OF_A_SHUT_DOOR: Final = frozenset({Signal.RUNNING, Signal.WAITING, Signal.KV_CACHE_USAGE_RATIO})


def _tells_late(engine: str, samples: Sequence[Sample]) -> bool:
    """Whether counters of this engine move only as requests end: a long answer is no wedge."""
    table = tables().get(engine)
    return table is not None and table.counts_late and not any(_STEPS in sample.values for sample in samples)


def _can_tell(table: Table) -> bool:
    """Whether a page of this engine can show work and no progress while requests are under way, or a shut door."""
    shown = {rule.signal for rule in table.rules}
    if table.role != "router" and shown >= _OF_A_SHUT_DOOR:
        return True
    steady = [_STEPS] if table.counts_late else list(PROGRESS)
    moves = {Signal(f"{column.removesuffix('_delta')}_total") for column in steady}
    return bool(shown & {Signal.RUNNING, Signal.WAITING}) and bool(shown & moves)


def _none_runs(sample: Sample) -> bool:
    """Whether requests wait and the server says that none runs."""
    return sample.values.get("running") == 0.0 and sample.values.get("waiting", 0.0) > 0


def _owed_since(at_tap: Open | None) -> float:
    """Unix time since which a server has sent nothing of an answer that it owes; never where it owes none."""
    return at_tap.owed_since or inf if at_tap is not None else inf


def _shows_nothing(sample: Sample) -> bool:
    """Whether a server says that no request is in it, as an idle one's page does and a frozen one's may."""
    return sample.values.get("running") == 0.0 and sample.values.get("waiting", 0.0) == 0.0


def _is_shut(sample: Sample) -> bool | None:
    """Whether all wait, none runs and the KV cache is empty, so that no long answer is made; None: it is not told.

    What a server whose counters move late can show of a wedge.
    """
    if not all(name in sample.values for name in ("running", "waiting", "kv_cache_usage_ratio")):
        return None
    return _none_runs(sample) and sample.values["kv_cache_usage_ratio"] == 0.0


def _aspect(sample: Sample, at_tap: Open | None, after: float) -> str:
    """What the newest sample, and the tap before it, say of how it is stuck."""
    if at_tap is not None and not at_tap.requests and at_tap.none_for >= after:
        since = rounded(round(at_tap.none_for))
        return f"; its tap has had no request open for {since}: what it shows may be left of requests that were aborted"
    if at_tap is not None and at_tap.requests and _shows_nothing(sample):
        return (
            ": its page shows none of them, its tap has them open, and an answer that it owes does not come; the "
            "engine may be dead behind its API"
        )
    if not _none_runs(sample):
        return ""
    if _is_shut(sample):
        return ": all wait, none runs, and the KV cache is empty; the engine takes nobody in, or is dead behind its API"
    return ": all wait and none runs"


class When(Condition):
    """An instance that has work (running or waiting requests) and makes no progress for `after`."""

    kind: Literal["wedged"]
    after: PositiveDuration = 15.0

    @property
    def patience(self) -> float:
        """Its own span, at least."""
        return self.after

    def needs(self, scope: Scope) -> Needs:
        """Work and progress of every instance."""
        columns = columns_of("running", "waiting", "kv_cache_usage_ratio", *PROGRESS)
        return Needs(columns=columns, look_back=self.after, open_requests=True, replays=scope.replays)

    def identity(self) -> tuple[str, ...]:
        """One model can hang while another goes on."""
        return ("instance", "model")

    def judge(self, scope: Scope, measured: Measured, now: float) -> list[Reading]:  # noqa: ARG002 samples have times
        """A reading for each instance and model whose progress can be told."""
        readings = []
        groups = list(apart(self.identity(), scope, measured.series))
        models = Counter(labels.get("instance", "") for labels, _, _ in groups)
        for labels, context, samples in groups:
            late = _tells_late(context.get("engine", ""), samples)
            at_tap = measured.open_requests.get(labels.get("instance", ""))
            # Of several models nobody knows whose answer it is.
            owed_since = _owed_since(at_tap) if models[labels.get("instance", "")] == 1 and not late else inf
            points = []
            for sample in samples:
                shut = _is_shut(sample) if late else True
                if shut is None:
                    continue
                progress = [sample.values[name] for name in PROGRESS if name in sample.values]
                if _none_runs(sample):
                    # an engine may step on and on without taking anybody in
                    progress = [
                        sample.values[name] if name != _STEPS else 0.0 for name in PROGRESS if name in sample.values
                    ]
                work = sample.values.get("running", 0.0) + sample.values.get("waiting", 0.0)
                if at_tap is not None and sample.at >= owed_since and _shows_nothing(sample):
                    work = at_tap.requests
                if progress:
                    points.append((sample.at, shut and work > 0 and not any(progress), work))
            run = trailing_run(points)
            if run is None:
                continue
            stuck = rounded(round(run.seconds))
            reason = f"{subject(labels)} has {number(run.seen.value)} requests and made no progress for {stuck}"
            reason += _aspect(samples[-1], at_tap, self.after) if run.seen.breached else ""
            readings.append(Reading(labels, run.seen, reason, 0.0, 0.0, context))
        return readings

    def blind(self, scope: Scope, held: float) -> Iterator[Blind]:  # noqa: ARG002 its own span counts
        """Labels that samples have not, engines that show no wedge, spans nothing is kept for."""
        yield from blind.labels(scope, OF_SAMPLES, "samples of a server")
        yield from blind.engines(scope, _can_tell, "progress while requests are under way")
        yield from blind.longest((("when", "after"), self.after))
