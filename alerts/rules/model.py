"""SLOs and threshold rules as a file states them, and the plain rules they become. Pure: no file, no clock, no store.

One file holds ``slos`` (objectives that generate burn-rate rules) and ``rules`` (thresholds beside them). Models
refuse unknown fields, so that a misspelt one is an error and not a rule that never pages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping  # noqa: TC003 pydantic reads it at run time
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from alerts.rules.burn import BurnWindow, highest_burn_rate, windows_for
from alerts.state import NoData, Timing
from analytics.outcomes import BAD
from analytics.signals import SIGNALS
from base.durations import Duration, PositiveDuration  # noqa: TC001 pydantic reads them at run time
from base.vocabulary import Outcome, Signal

Severity = Literal["critical", "error", "warning", "info"]
SEVERITIES: Final[tuple[Severity, ...]] = ("info", "warning", "error", "critical")
"""Ascending; the words are PagerDuty's."""


BAD_OUTCOMES: Final = tuple(Outcome(name) for name in BAD)
"""What spends the budget; a client's own error or abort is a request and not a bad one."""

REQUEST_SIGNALS: Final[Mapping[str, tuple[str, str]]] = {
    **{name: (signal.value, signal.present) for name, signal in SIGNALS.items()},
    "itl_p99_seconds": ("itl_p99_seconds", "itl_gaps > 0"),
    "itl_max_seconds": ("itl_max_seconds", "itl_gaps > 0"),
}
"""Latencies of a request: SQL of the value and of whether a row has it, the same as the dashboard's."""
_TITLES: Final = {"itl_p99_seconds": "p99 gap between tokens", "itl_max_seconds": "longest gap between tokens"}
METRIC_SIGNALS: Final = {name: signal.distribution for name, signal in SIGNALS.items() if signal.distribution}
"""Latencies that some server shows as a histogram."""
GAUGES: Final = ("up", "running", "waiting", "kv_cache_usage_ratio", "scrape_seconds")
RATES: Final[Mapping[str, str]] = {
    signal.value.removesuffix("_total") + "_per_second": signal.value.removesuffix("_total") + "_delta"
    for signal in Signal
    if signal.value.endswith("_total") and not signal.value.endswith("_seconds_total")
}
"""Rate names and the increase columns they come from: ``preemptions_per_second`` → ``preemptions_delta``."""
RATIOS: Final[Mapping[str, tuple[str, str]]] = {
    "prefix_cache_hit_ratio": ("prefix_cache_hits_delta", "prefix_cache_queries_delta")
}
SAMPLE_SIGNALS: Final = (*GAUGES, *RATES, *RATIOS)

STORE_RULE: Final = "store_unreachable"
TAP_RULE: Final = "tap_losing"
"""The pager's own rules, which need no file."""

DIMENSIONS: Final = ("model", "tenant", "instance", "deployment", "engine", "region", "version")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def title(signal: str) -> str:
    """A request's latency in words, for a sentence."""
    return _TITLES.get(signal) or SIGNALS[signal].title[:1].lower() + SIGNALS[signal].title[1:]


def _patterns(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _share(value: float) -> float:
    if 0 < value < 1:
        return value
    percent = f": write {value / 100:.10g} for {value:g} %" if 1 < value < 100 else ""  # noqa: PLR2004 percent
    raise ValueError(f"must be a share, above 0 and below 1{percent}")


def _share_or_none(value: float) -> float:
    return value if value == 0 else _share(value)


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Patterns = Annotated[tuple[str, ...], BeforeValidator(_patterns)]


@lru_cache(maxsize=65_536)
def _any_matches(value: str, patterns: tuple[str, ...]) -> bool:
    """Remembered, for a round asks the same of every rule and group each few seconds."""
    return any(fnmatchcase(value, pattern) for pattern in patterns)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Scope(_Strict):
    """Which requests or samples a rule looks at. Each field is a pattern or a list of them (``*`` and ``?``)."""

    model: Patterns = ()
    tenant: Patterns = ()
    instance: Patterns = ()
    deployment: Patterns = ()
    engine: Patterns = ()
    region: Patterns = ()
    version: Patterns = ()
    recordings: Literal["exclude", "include"] = "exclude"

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels lie inside; a missing label is an empty one."""
        for name in DIMENSIONS:
            patterns: tuple[str, ...] = getattr(self, name)
            if patterns and not _any_matches(labels.get(name, ""), patterns):
                return False
        return True

    def dimensions(self) -> tuple[str, ...]:
        """The labels that it narrows."""
        return tuple(name for name in DIMENSIONS if getattr(self, name))

    def fixed(self) -> dict[str, str]:
        """Labels that it pins to one exact value, which an alert of the whole scope may carry."""
        return {
            name: patterns[0]
            for name in DIMENSIONS
            if len(patterns := getattr(self, name)) == 1 and not set(patterns[0]) & set("*?[")
        }


Source = Literal["rows", "metrics"]


@dataclass(frozen=True, slots=True)
class Measure:
    """What is counted of requests: which are valid and which of them are bad. Rules that share it share columns.

    Attributes:
        bad: Outcomes that are bad.
        limits: (signal, seconds) pairs; a request that exceeds any is bad.
        latency_only: Only requests that have every limited signal are valid.
        source: ``rows``: request by request. ``metrics``: the servers' own counters and histograms, for those that
            nobody stands in front of.
    """

    bad: tuple[str, ...] = ()
    limits: tuple[tuple[str, float], ...] = ()
    latency_only: bool = False
    source: Source = "rows"


class AvailabilitySli(_Strict):
    """Share of requests that the service answered: good are all but those with an outcome in `bad`.

    With ``source: metrics`` it is what the servers count as failed, which leaves out what never reached them.
    """

    kind: Literal["availability"] = "availability"
    bad: tuple[Outcome, ...] = BAD_OUTCOMES
    source: Source = "rows"

    def measure(self) -> Measure:
        """What to count."""
        return Measure(bad=tuple(o.value for o in self.bad), source=self.source)


class LatencySli(_Strict):
    """Share of the requests that have `signal` in which it is at most `threshold_seconds`.

    With ``source: metrics`` it is read out of the servers' histograms: a request counts as good when its whole bucket
    lies at or below the threshold.
    """

    kind: Literal["latency"]
    signal: Literal[tuple(REQUEST_SIGNALS)] = "ttft_seconds"  # type: ignore[valid-type]
    threshold_seconds: Positive
    source: Source = "rows"

    @model_validator(mode="after")
    def _shown(self) -> LatencySli:
        if self.source == "metrics" and self.signal not in METRIC_SIGNALS:
            raise ValueError(f"no server shows {self.signal} as a histogram; use one of {', '.join(METRIC_SIGNALS)}")
        return self

    def measure(self) -> Measure:
        """What to count."""
        return Measure((), ((self.signal, self.threshold_seconds),), latency_only=True, source=self.source)


class GoodputSli(_Strict):
    """Share of requests that were answered *and* kept every limit in `limits` (signal: seconds)."""

    kind: Literal["goodput"]
    limits: Annotated[dict[Literal[tuple(REQUEST_SIGNALS)], Positive], Field(min_length=1)]  # type: ignore[valid-type]

    def measure(self) -> Measure:
        """What to count."""
        return Measure(tuple(o.value for o in BAD_OUTCOMES), tuple(sorted(self.limits.items())))


Sli = Annotated[AvailabilitySli | LatencySli | GoodputSli, Field(discriminator="kind")]


class WindowSpec(_Strict):
    """One pair of burn-rate windows, in place of the workbook's."""

    long: PositiveDuration
    short: PositiveDuration
    factor: Positive
    severity: Severity | None = None

    @model_validator(mode="after")
    def _ordered(self) -> WindowSpec:
        if self.short > self.long:
            raise ValueError(f"the short window ({self.short:g} s) is longer than the long one ({self.long:g} s)")
        return self


class _Named(_Strict):
    name: str
    description: str = ""
    filter: Scope = Scope()
    runbook: str = ""
    keep_firing_for: Duration = 15.0

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError("use lower-case letters, digits, dots, dashes and underscores, at most 63")
        return name


class Slo(_Named):
    """A service level objective.

    Attributes:
        sli: What makes a request good.
        target: Share of good requests over `period`, as a ratio (0.999).
        period: The window of the error budget.
        severity: Severity of its fast windows; the slow ones are ``warning`` unless `windows` says otherwise.
        windows: Burn-rate windows in place of the workbook's.
        min_requests: Low-traffic guard: valid requests needed in the long window.
        by: Labels by which the objective is judged apart; empty: as one.
    """

    sli: Sli
    target: Annotated[float, AfterValidator(_share)]
    period: PositiveDuration = 30 * 86400.0
    severity: Severity = "critical"
    windows: tuple[WindowSpec, ...] = ()
    min_requests: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 10
    by: tuple[Literal[DIMENSIONS], ...] = ()  # type: ignore[valid-type]

    @field_validator("sli", mode="before")
    @classmethod
    def _short_form(cls, value: object) -> object:
        return {"kind": value} if value == "availability" else value

    def burn_windows(self) -> tuple[BurnWindow, ...]:
        """The windows with their factors and severities."""
        if self.windows:
            return tuple(BurnWindow(w.long, w.short, w.factor, w.severity or self.severity) for w in self.windows)
        return tuple(
            BurnWindow(
                w.long_seconds, w.short_seconds, w.factor, self.severity if w.severity == "critical" else "warning"
            )
            for w in windows_for(self.period)
        )

    def warnings(self) -> tuple[str, ...]:
        """What is allowed and yet surely not meant."""
        most = highest_burn_rate(self.target)
        return tuple(
            f"SLO {self.name}: a factor of {w.factor:g} can never be exceeded, "
            f"for with a target of {self.target:g} the highest burn rate is {most:g}"
            for w in self.burn_windows()
            if w.factor >= most
        )


class SignalCondition(_Strict):
    """An engine sample's signal above or below a number; per instance and model unless `by` is ``[instance]``."""

    kind: Literal["signal"] = "signal"
    signal: Literal[SAMPLE_SIGNALS]  # type: ignore[valid-type]
    above: float | None = None
    below: float | None = None
    over: Duration = 0.0
    by: tuple[Literal["instance", "model"], ...] = ("instance", "model")

    @model_validator(mode="after")
    def _one_bound(self) -> SignalCondition:
        if (self.above is None) == (self.below is None):
            raise ValueError("give exactly one of above and below")
        if "instance" not in self.by:
            raise ValueError("by must name instance: samples of two instances have no common clock")
        return self


class SilentCondition(_Strict):
    """No engine sample of a known instance for `after`; an instance unseen for `remember` is forgotten."""

    kind: Literal["silent"]
    after: PositiveDuration = 30.0
    remember: PositiveDuration = 3600.0


class WedgedCondition(_Strict):
    """An instance that has work (running or waiting requests) and makes no progress for `after`."""

    kind: Literal["wedged"]
    after: PositiveDuration = 15.0


class ShareCondition(_Strict):
    """Share of bad requests among those that finished in `window`, above a ratio."""

    kind: Literal["share"]
    sli: Sli = AvailabilitySli()
    above: Annotated[float, AfterValidator(_share_or_none)]
    window: PositiveDuration = 30.0
    min_requests: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 20
    by: tuple[Literal[DIMENSIONS], ...] = ("deployment",)  # type: ignore[valid-type]

    @field_validator("sli", mode="before")
    @classmethod
    def _short_form(cls, value: object) -> object:
        return {"kind": value} if value == "availability" else value


Condition = Annotated[SignalCondition | SilentCondition | WedgedCondition | ShareCondition, Field(discriminator="kind")]


class Threshold(_Named):
    """A rule that compares a number with a bound.

    Attributes:
        when: The condition.
        for_: How long it must hold (``for`` in the file).
        severity: Of its alerts.
        no_data: What silence means: ``ok``, ``keep`` or ``alert``.
    """

    when: Condition
    for_: Annotated[Duration, Field(alias="for")] = 0.0
    severity: Severity = "critical"
    no_data: NoData | None = None

    def timing(self) -> Timing:
        """Patience for the state machine. Shares default to ``ok`` without data (no traffic), signals to ``keep``."""
        policy: NoData = self.no_data or ("ok" if isinstance(self.when, ShareCondition | SilentCondition) else "keep")
        return Timing(self.for_, self.keep_firing_for, policy)


class RulesFile(_Strict):
    """The whole file."""

    version: Literal[1] = 1
    slos: tuple[Slo, ...] = ()
    rules: tuple[Threshold, ...] = ()

    def warnings(self) -> tuple[str, ...]:
        """Everything that is allowed and yet surely not meant."""
        nothing = (
            ()
            if self.slos or self.rules
            else ("no SLO and no rule: only an absent store and a tap that loses requests page",)
        )
        return (*nothing, *(text for slo in self.slos for text in slo.warnings()))


@dataclass(frozen=True, slots=True)
class BurnRule:
    """All windows of one severity of one SLO: one alert per set of labels."""

    slo: Slo
    severity: Severity
    windows: tuple[BurnWindow, ...]

    @property
    def name(self) -> str:
        """``<slo>-burn`` for the first severity of an SLO, with the severity behind it for the others."""
        return (
            f"{self.slo.name}-burn" if self.severity == self.slo.severity else f"{self.slo.name}-burn-{self.severity}"
        )

    def timing(self) -> Timing:
        """Burn rates have their patience in the windows; no traffic spends no budget."""
        return Timing(0.0, self.slo.keep_firing_for, "ok")


def burn_rules(slo: Slo) -> tuple[BurnRule, ...]:
    """The rules that an SLO generates, one per severity of its windows."""
    windows = slo.burn_windows()
    severities: dict[Any, None] = dict.fromkeys(w.severity for w in windows)
    return tuple(BurnRule(slo, s, tuple(w for w in windows if w.severity == s)) for s in severities)


Rule = Threshold | BurnRule


def all_rules(file: RulesFile) -> tuple[Rule, ...]:
    """Every rule of a file, thresholds first (they answer fastest)."""
    return (*file.rules, *(rule for slo in file.slos for rule in burn_rules(slo)))
