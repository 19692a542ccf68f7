"""What the account is made of: requests as columns, and what instances and hosts were doing, as arrays.

A hundred thousand requests are no hundred thousand Python objects, but columns (`columns`). Times are seconds since an
origin, durations seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from analytics.causes.columns import Names, floats
from analytics.slo import BAD
from base.vocabulary import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from analytics.causes.arrays import Flags, Floats, Ints
    from analytics.causes.columns import Columns
    from analytics.causes.steps import Steps

PHASES: Final = (
    *("edge", "transit", "frontend", "queue", "stall", "prefill", "decode"),
    *("compute_input", "compute_infer", "compute_output", "other"),
)
"""Where a request's seconds are; ``other`` is what no phase holds, and may be below zero."""
PHASE: Final = {name: index for index, name in enumerate(PHASES)}
FIRST_TOKEN: Final = ("queue", "stall", "prefill", "frontend")
"""Phases before the first token inside of a server, in the order in which a wait shows in them."""
WORK: Final = ("prefill", "decode", "compute_input", "compute_infer", "compute_output")
"""Phases in which an engine works for the request."""


_LEAST_SECONDS: Final = 1e-9


def measured(seconds: Floats) -> Floats:
    """Durations of which what is below a nanosecond is nothing: no clock told it, and what is divided by it is not."""
    return np.where(seconds < _LEAST_SECONDS, 0.0, seconds)


def new_versions(version: Names, usual: Ints) -> Ints:
    """Codes of the versions that are none of the usual ones; none where no usual one is known.

    Args:
        version: The versions of all requests; "" is one that nobody told.
        usual: Codes of the requests of the reference.
    """
    named = [code for code, name in enumerate(version.names) if name]
    known = np.intersect1d(usual, named)
    return np.setdiff1d(named, known).astype(np.int64) if len(known) else np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Requests:
    """Requests of reference period and window; all arrays have one value a request.

    Those of an instance lie together, in order of arrival: most of what is asked is asked of one instance.

    Attributes:
        start: Arrival, seconds since the origin.
        e2e: End-to-end seconds.
        phases: ``(n, len(PHASES))`` seconds; each row sums to ``e2e``.
        ttft: Seconds to the first token, 0 where unknown.
        prompt, cached, output: Tokens.
        gap_max: Longest gap between tokens at the edge, seconds; 0 where unknown.
        preempted: How often the engine says it was preempted.
        engine_half: Whether the engine's own record is there.
        whole: Whether it was answered: neither failed nor given up.
        failed: Whether it ended in the service's fault.
        inside: Whether it is of the window, not of the time before it.
        selected: Whether it is asked about.
        instance, deployment, tenant, model, route, version, engine, outcome, error: Texts.
        scale: Requests that each stands for, where only one of several was read.
        cohort: Of those that are known by their mean alone (`cohorts`), which belong together; empty where each is
            known by itself.
        key: What tells apart those of one arrival in the store; empty where none is known by itself.
    """

    start: Floats
    e2e: Floats
    phases: Floats
    ttft: Floats
    prompt: Floats
    cached: Floats
    output: Floats
    gap_max: Floats
    preempted: Floats
    engine_half: Flags
    whole: Flags
    failed: Flags
    inside: Flags
    selected: Flags
    instance: Names
    deployment: Names
    tenant: Names
    model: Names
    route: Names
    version: Names
    engine: Names
    outcome: Names
    error: Names
    scale: float = 1.0
    cohort: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    key: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, dtype=np.uint64))

    def known(self, rows: Ints) -> int:
        """How many things are known of some requests, by their places: their number, or that of their cohorts."""
        return len(np.unique(self.cohort[rows])) if len(self.cohort) else len(rows)

    def __len__(self) -> int:
        return len(self.start)

    @cached_property
    def end(self) -> Floats:
        """When it was over."""
        return self.start + self.e2e

    @cached_property
    def decode_start(self) -> Floats:
        """When its first token was there: after the time to first token, else before what decoding took."""
        decode = self.phases[:, PHASE["decode"]]
        late = self.start + np.where(self.ttft > 0, self.ttft, np.maximum(self.e2e - decode, 0.0))
        return np.minimum(late, self.end)

    @cached_property
    def decode_end(self) -> Floats:
        """When its last token was made; a slow reader gets it later."""
        decode = self.phases[:, PHASE["decode"]]
        return np.minimum(self.decode_start + np.where(decode > 0, decode, self.e2e), self.end)

    @cached_property
    def prefill_start(self) -> Floats:
        """When its prefill began: what it took before its first token."""
        return np.maximum(self.decode_start - self.phases[:, PHASE["prefill"]], self.start)

    @cached_property
    def uncached(self) -> Floats:
        """Prompt tokens that had to be computed."""
        return np.maximum(self.prompt - self.cached, 0.0)


FEATURES: Final = (
    *("generated", "drafts", "accepted", "acceptance_length"),
    *("transfers", "transfer_s"),
    *("adapters_running", "adapters_held_back", "adapter_slots", "deferred", "capacity"),
)
"""What only some servers show: tokens made, drafts of them and drafted tokens accepted since the sample before, tokens
a step yields a sequence; KV transfers that ended since then and their seconds; LoRA adapters that run, those that wait
and none of whose requests runs, and slots for them; requests that wait for something of their own, and for capacity."""


LATE_SECONDS: Final = 1.5
"""Seconds in which a server that has something to do shows its page, even a busy one."""


@dataclass
class Samples:
    """One instance's engine samples, summed over models and ranks (KV: the fullest), in order of time.

    Values are NaN where the server does not say. ``progress`` is all that it made since the sample before: tokens,
    finished requests, inferences. ``late`` has the pages that took `LATE_SECONDS` or longer: when each was asked for
    and when it came. ``features`` has those of `FEATURES` that were asked for.
    """

    time: Floats
    interval: Floats
    up: Flags
    running: Floats
    waiting: Floats
    kv: Floats
    preemptions: Floats
    progress: Floats
    late: Sequence[tuple[float, float]] = ()
    deployment: str = ""
    features: dict[str, Floats] = field(default_factory=dict)


@dataclass
class Host:
    """One instance's machine and processes.

    Attributes:
        time, pressure: PSI of the machine: share of time that some task waited for a CPU.
        delay_time, delay: Seconds a second that the engine's busiest process was runnable without a CPU, at most the
            share of the time that its threads wanted one.
        front_time, front: CPU seconds a second of the process that takes the requests.
        busy: At ``time``: share of the machine's CPUs that is in use.
        cores: At ``time``: how many it has.
        processes: Time, CPU seconds a second and seconds a second without a CPU of each of the server's processes.
        age: Seconds for which a sample holds.
    """

    time: Floats = field(default_factory=lambda: np.empty(0))
    pressure: Floats = field(default_factory=lambda: np.empty(0))
    delay_time: Floats = field(default_factory=lambda: np.empty(0))
    delay: Floats = field(default_factory=lambda: np.empty(0))
    front_time: Floats = field(default_factory=lambda: np.empty(0))
    front: Floats = field(default_factory=lambda: np.empty(0))
    busy: Floats = field(default_factory=lambda: np.empty(0))
    cores: Floats = field(default_factory=lambda: np.empty(0))
    processes: list[tuple[Floats, Floats, Floats]] = field(default_factory=list)
    age: float = 60.0


GPU_AGE: Final = 10.0
"""Seconds for which a GPU's sample holds at least."""
GPU_AGE_MOST: Final = 120.0
"""The same at most."""


@dataclass(frozen=True)
class Fault:
    """A GPU's fault: when (seconds since the origin), of which, in words."""

    time: float
    gpu: str
    what: str


@dataclass
class Gpu:
    """One GPU of an instance, over time.

    Attributes:
        gpu: UUID.
        name: Product.
        label: What people call it: its number and machine.
        time: Seconds since the origin.
        slowed: Share of the step in which it was slowed down (`gpus.REASONS`); NaN where it does not tell.
        reasons: Those bits.
        clock: Mean SM clock, Hz; NaN where it does not tell.
        age: Seconds for which a sample holds.
        faults: What went wrong.
    """

    gpu: str
    name: str
    label: str
    time: Floats
    slowed: Floats
    reasons: Floats
    clock: Floats
    age: float = GPU_AGE
    faults: list[Fault] = field(default_factory=list)


@dataclass(frozen=True)
class Event:
    """Something that happened: when (seconds since the origin), what, where."""

    time: float
    event: str
    instance: str
    version: str
    message: str
    deployment: str = ""


@dataclass
class Evidence:
    """All that the account is worked out from."""

    requests: Requests
    samples: dict[str, Samples] = field(default_factory=dict)
    hosts: dict[str, Host] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    gpus: dict[str, list[Gpu]] = field(default_factory=dict)
    steps: dict[str, Steps] = field(default_factory=dict)
    origin_ms: int = 0


def in_order(instance: Ints, at: Floats, key: NDArray[np.uint64]) -> Ints:
    """The order of `Requests`: by instance, time and key.

    Args:
        instance: Code of each request's; codes are in the order of names.
        at: When it arrived, in any unit.
        key: What tells apart those of one instance and time.
    """
    small = np.int16 if int(instance.max(initial=0)) <= np.iinfo(np.int16).max else np.int64  # sorted by their digits
    order = np.argsort(instance.astype(small), kind="stable")
    of, time, last = instance[order], at[order], key[order]
    later = (time[1:] > time[:-1]) | ((time[1:] == time[:-1]) & (last[1:] >= last[:-1]))
    # parts that were in order one by one, as blocks are, need no more
    return order if (later | (of[1:] != of[:-1])).all() else np.lexsort((key, at, instance))


def requests_of(row: Columns, origin_ms: int, from_ms: int, scale: float = 1.0) -> Requests:
    """Requests out of the columns of `load.rows`.

    An edge half alone knows no phases but its own: what else it took before its first token stands as ``prefill``, the
    rest as ``decode``; `reference` has such requests as a kind of their own. What the edge waited for its client is the
    request's coming where it fits in before the first token, else the answer's going.
    """
    at = floats(row["at_ms"])
    texts = {name: Names.of(row[name]) for name in _TEXTS}
    # a store hands out rows of one millisecond in any order, and estimates go by order
    key = np.asarray(row["key"], dtype=np.uint64)
    order = in_order(texts["instance"].codes, at, key)
    column = {name: floats(row[name])[order] for name in _NUMBERS}
    # a phase lies together in memory, since one is what is asked for mostly
    phases = np.stack([measured(column[f"{name}_s"]) for name in PHASES[:-1]] + [np.zeros(len(at))]).T
    engine_half = column["has_engine"] > 0
    e2e, ttft = measured(column["e2e_s"]), measured(column["ttft_s"])
    bare = ~engine_half
    edge = np.clip(phases[:, PHASE["edge"]], 0.0, e2e)
    first = np.minimum(ttft, e2e)
    after = np.where(ttft > 0, e2e - first, 0.0)
    going = np.where(edge > first, np.minimum(edge, after), 0.0)
    phases[bare] = 0.0
    phases[bare, PHASE["edge"]] = edge[bare]
    phases[bare, PHASE["prefill"]] = np.maximum(first - (edge - going), 0.0)[bare]
    phases[bare, PHASE["decode"]] = (after - going)[bare]
    phases[:, PHASE["other"]] = e2e - phases.sum(axis=1)
    texts = {name: of.reordered(order) for name, of in texts.items()}
    return Requests(
        start=(at[order] - origin_ms) / 1000,
        e2e=e2e,
        phases=phases,
        ttft=ttft,
        prompt=column["prompt"],
        cached=column["cached"],
        output=column["output"],
        gap_max=column["gap_max_s"],
        preempted=column["preempted"],
        engine_half=engine_half,
        whole=texts["outcome"].among(["", Outcome.OK.value]),
        failed=texts["outcome"].among(BAD),
        inside=at[order] >= from_ms,
        selected=column["selected"] > 0,
        scale=scale,
        cohort=np.empty(0, dtype=np.int64),
        key=key[order],
        **texts,
    )


def samples_of(row: Columns, origin_ms: int) -> dict[str, Samples]:
    """Engine samples by instance out of the columns of `load.samples`."""
    instance = Names.of(row["name"])
    features = [name for name in FEATURES if name in row]
    values = {name: floats(row[name]) for name in (*_SAMPLE, *features)}
    deployment = Names.of(row["deployment"]) if "deployment" in row else None
    at = (floats(row["at_ms"]) - origin_ms) / 1000
    found: dict[str, Samples] = {}
    for code, name in enumerate(instance.names):
        mine = np.flatnonzero(instance.codes == code)
        mine = mine[np.argsort(at[mine], kind="stable")]
        own = {column: values[column][mine] for column in _SAMPLE}
        found[name] = Samples(
            time=at[mine],
            up=own.pop("up") > 0,
            late=_late(row, mine, origin_ms),
            deployment=deployment.names[deployment.codes[mine[-1]]] if deployment is not None else "",
            features={column: values[column][mine] for column in features},
            **own,
        )
    return found


def _late(row: Columns, mine: Ints, origin_ms: int) -> list[tuple[float, float]]:
    if "took" not in row:
        return []
    took, asked = floats(row["took"])[mine], (floats(row["asked_ms"])[mine] - origin_ms) / 1000
    return [(float(asked[one]), float(asked[one] + took[one])) for one in np.flatnonzero(took >= LATE_SECONDS)]


_NUMBERS: Final = (
    *(f"{name}_s" for name in PHASES[:-1]),
    *("e2e_s", "ttft_s", "gap_max_s", "prompt", "cached", "output", "preempted", "has_engine", "selected"),
)
_TEXTS: Final = (
    *("instance", "deployment", "tenant", "model", "route", "version", "engine", "outcome", "error"),
)  # fmt: skip
_SAMPLE: Final = (
    *("interval", "up", "running", "waiting", "kv", "preemptions", "progress"),
)  # fmt: skip
