"""What one round knows: counts of requests by window, samples of servers, and who was heard of when."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from analytics.slo import Measure


class Counted(NamedTuple):
    """Weights counted over one window."""

    total: float
    bad: float


@dataclass(frozen=True, slots=True)
class Group:
    """Counts of requests with one set of labels in one window.

    Attributes:
        labels: Those by which some rule tells requests apart.
        counts: What was counted.
        router, recording, served: As `analytics.counters.Part`, of what servers' metrics tell.
    """

    labels: Mapping[str, str]
    counts: Mapping[Measure, Counted]
    router: bool = False
    recording: str = ""
    served: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """One scrape: Unix seconds and the columns that the server told."""

    at: float
    values: Mapping[str, float]


@dataclass(slots=True)
class Series:
    """Samples of one instance and model, oldest first. `labels` are those of the newest sample."""

    labels: dict[str, str]
    samples: list[Sample] = field(default_factory=list)


class Breach(NamedTuple):
    """What a server must tell and does not, as its agent last said.

    Attributes:
        kind: A `base.vocabulary.Breach`.
        what: The signal, family or source.
        at: Since when, Unix seconds.
        known: Whether the agent that said so still watches: what it told before it was started again may be over.
    """

    kind: str
    what: str
    at: float
    known: bool


class Open(NamedTuple):
    """What a tap has open.

    Attributes:
        requests: How many.
        none_for: Seconds for which it has had none, 0 where it has some.
        owed_since: Unix time since which its server has sent nothing of an answer that it owes, 0 where it owes none.
    """

    requests: float
    none_for: float
    owed_since: float = 0.0


@dataclass(slots=True)
class Measured:
    """What one round knows.

    Attributes:
        counts: By window seconds, the groups of requests that finished in it.
        series: Recent samples.
        last_seen: Instances with the Unix time of their newest sample.
        was_up: Instances that were up at some time in that span.
        breaches: By instance, what stands broken, oldest first.
        open_requests: By instance before which a tap stands that is there: requests that it has open, and for how long
            it has had none (seconds; 0 where it has some).
    """

    counts: dict[float, list[Group]] = field(default_factory=dict)
    series: list[Series] = field(default_factory=list)
    last_seen: list[tuple[dict[str, str], float]] = field(default_factory=list)
    was_up: set[str] = field(default_factory=set)
    breaches: dict[str, list[Breach]] = field(default_factory=dict)
    open_requests: dict[str, Open] = field(default_factory=dict)
