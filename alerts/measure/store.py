"""Asks the store what the rules of a round need: one statement per shape of data, however many rules there are.

Long windows move slowly, so each is asked again only when it could have changed by half a percent of its length.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from alerts.measure import counting
from alerts.rules.model import (
    DIMENSIONS,
    RATES,
    RATIOS,
    BurnRule,
    Measure,
    Rule,
    Scope,
    ShareCondition,
    SignalCondition,
    SilentCondition,
    Threshold,
    WedgedCondition,
)
from base.named_sql import filled, statements

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from alerts.rules.burn import Counted

log = structlog.get_logger()

MAX_GROUPS: Final = 50_000
MAX_SAMPLES: Final = 500_000
LOOK_BACK_SECONDS: Final = 30.0
"""Samples looked at beyond what a rule needs, so that late ones and a missed round change nothing."""
WAS_UP_SECONDS: Final = 3600.0
"""An instance that was not up within this span is being deployed and cannot go down."""
PROGRESS: Final = (
    "generation_tokens_delta",
    "prompt_tokens_delta",
    "requests_finished_delta",
    "requests_failed_delta",
    "engine_steps_delta",
    "inferences_delta",
    "executions_delta",
)
"""Any of these above zero is progress."""
GAUGE_COLUMNS: Final = {"running": "sum", "waiting": "sum", "kv_cache_usage_ratio": "max"}
_SQL: Final = Path(__file__).with_name("store.sql")


class Rows(Protocol):
    """What is needed of a store."""

    def rows(
        self, sql: str, parameters: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Rows of a query; raises a ServescopeError when the store is away or refuses."""
        ...


@dataclass(frozen=True, slots=True)
class Group:
    """Counts of requests with one set of labels in one window."""

    labels: Mapping[str, str]
    counts: Mapping[Measure, Counted]


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


@dataclass(slots=True)
class Measured:
    """What one round knows.

    Attributes:
        counts: By window seconds, the groups of requests that finished in it.
        series: Recent samples.
        last_seen: Instances with the Unix time of their newest sample.
        was_up: Instances that were up at some time in that span.
    """

    counts: dict[float, list[Group]] = field(default_factory=dict)
    series: list[Series] = field(default_factory=list)
    last_seen: list[tuple[dict[str, str], float]] = field(default_factory=list)
    was_up: set[str] = field(default_factory=set)


class Measurer:
    """Measures for a fixed set of rules.

    Args:
        rules: The rules.
        ingest_delay_seconds: How late rows may be; windows reach back so much further.
        longest_request_seconds: Requests that run longer may be missed by a short window.
    """

    def __init__(
        self, rules: Sequence[Rule], *, ingest_delay_seconds: float = 3.0, longest_request_seconds: float = 600.0
    ) -> None:
        self._delay = ingest_delay_seconds
        self._longest = longest_request_seconds
        self._kept: dict[float, tuple[float, list[Group]]] = {}
        self._measures: dict[Measure, None] = {}
        self._windows: dict[float, None] = {}
        self._columns: dict[str, str] = {}
        self._look_back = 0.0
        self._remember = 0.0
        dimensions: set[str] = set()
        self._replays = False
        for rule in rules:
            dimensions |= self._note(rule)
        self._dimensions = tuple(name for name in DIMENSIONS if name in dimensions)

    def _note(self, rule: Rule) -> set[str]:
        scope = scope_of(rule)
        self._replays |= scope.recordings == "include"
        match rule:
            case BurnRule():
                self._measures[rule.slo.sli.measure()] = None
                for window in rule.windows:
                    self._windows |= {window.long_seconds: None, window.short_seconds: None}
                return {*scope.dimensions(), *rule.slo.by}
            case Threshold(when=ShareCondition() as share):
                self._measures[share.sli.measure()] = None
                self._windows[share.window] = None
                return {*scope.dimensions(), *share.by}
            case Threshold(when=SignalCondition() as signal):
                self._columns |= _columns_of(signal.signal)
                self._look_back = max(self._look_back, signal.over, 1.0)
                if signal.signal == "up":
                    self._remember = max(self._remember, WAS_UP_SECONDS)
            case Threshold(when=WedgedCondition() as wedged):
                self._columns |= {"running": "sum", "waiting": "sum"} | dict.fromkeys(PROGRESS, "sum")
                self._look_back = max(self._look_back, wedged.after)
            case Threshold(when=SilentCondition() as silent):
                self._remember = max(self._remember, silent.remember)
        return set()

    def measure(self, store: Rows, now: float) -> Measured:
        """Ask the store.

        Args:
            store: Where to ask.
            now: Unix seconds at which windows end.

        Raises:
            ServescopeError: The store is away or refuses; nothing of the round is known then.
        """
        measured = Measured()
        if self._windows:
            measured.counts = self._requests(store, now)
        if self._look_back:
            measured.series = self._samples(store, now)
        if self._remember:
            rows = self._seen(store, now)
            names = ("instance", "deployment", "engine", "region", "version")
            measured.last_seen = [(_labels(row, names), int(row["at"]) / 1000) for row in rows]
            measured.was_up = {str(row["instance"]) for row in rows if row["was_up"]}
        return measured

    def _where_recordings(self) -> str:
        return "1" if self._replays else "recording = ''"

    def _requests(self, store: Rows, now: float) -> dict[float, list[Group]]:
        due = [w for w in self._windows if w not in self._kept or abs(now - self._kept[w][0]) >= w / 200]
        if due:
            found = self.count(store, sorted(due), now)
            for window in due:
                self._kept[window] = (now, found[window])
        return {window: self._kept[window][1] for window in self._windows}

    def count(self, store: Rows, windows: Sequence[float], now: float) -> dict[float, list[Group]]:
        """Groups of requests that finished within each window (seconds) before `now`: one statement per source.

        Raises:
            ServescopeError: The store is away or refuses.
        """
        found: dict[float, list[Group]] = {window: [] for window in windows}
        for source in dict.fromkeys(counting.source_of(measure) for measure in self._measures):
            measures = [measure for measure in self._measures if counting.source_of(measure) == source]
            names = [n for n in self._dimensions if source == "request_counts" or n != "tenant"]
            columns, parameters = counting.columns(measures, windows, now - self._delay)
            parameters |= {"limit": MAX_GROUPS + 1, "until": _ms(now + 60)}
            parameters["from"] = _ms(now - max(windows) - self._delay)
            if source == "request_counts":
                parameters["arrived_from"] = parameters["from"] - _ms(self._longest)
            keys = [*names, *(["replayed"] if self._replays else [])]
            sql = filled(
                statements(_SQL)[source],
                {
                    "columns": ",\n    ".join(
                        [*names, *(["recording != '' AS replayed"] if self._replays else []), *columns]
                    ),
                    "recordings": self._where_recordings(),
                    "group": f"GROUP BY {', '.join(keys)}" if keys else "",
                },
            )
            rows = store.rows(sql, parameters)
            if len(rows) > MAX_GROUPS:
                log.error("rules_see_too_many_groups", limit=MAX_GROUPS, by=keys)
            for row in rows:
                labels: dict[str, str] = {name: str(row[name]) for name in names}
                labels["replayed"] = str(int(row.get("replayed") or 0))
                for index, window in enumerate(windows):
                    found[window].append(Group(labels, counting.counts(measures, index, row)))
        return found

    def _samples(self, store: Rows, now: float) -> list[Series]:
        columns = "".join(f",\n    {how}({name}) AS {name}" for name, how in self._columns.items())
        sql = filled(statements(_SQL)["samples"], {"columns": columns, "recordings": self._where_recordings()})
        start = now - self._look_back - self._delay - LOOK_BACK_SECONDS
        rows = store.rows(sql, {"from": _ms(start), "limit": MAX_SAMPLES})
        if len(rows) >= MAX_SAMPLES:
            log.error("rules_see_too_many_samples", limit=MAX_SAMPLES)
        series: dict[tuple[str, str], Series] = {}
        told = ("up", "scrape_seconds", "interval_seconds", *self._columns)
        for row in rows:
            labels = _labels(row, ("instance", "model", "deployment", "engine", "region", "version"))
            kept = series.setdefault((labels["instance"], labels["model"]), Series(labels))
            kept.labels = labels
            values = {name: float(row[name]) for name in told if row.get(name) is not None}
            kept.samples.append(Sample(int(row["at"]) / 1000, values))
        return list(series.values())

    def _seen(self, store: Rows, now: float) -> list[dict[str, Any]]:
        sql = filled(statements(_SQL)["last_seen"], {"recordings": self._where_recordings()})
        return store.rows(sql, {"from": _ms(now - self._remember), "limit": MAX_GROUPS})


def scope_of(rule: Rule) -> Scope:
    """The scope of a rule of either kind."""
    return rule.slo.filter if isinstance(rule, BurnRule) else rule.filter


def _columns_of(signal: str) -> dict[str, str]:
    if signal in RATES:
        return {RATES[signal]: "sum"}
    if signal in RATIOS:
        return dict.fromkeys(RATIOS[signal], "sum")
    return {signal: GAUGE_COLUMNS[signal]} if signal in GAUGE_COLUMNS else {}


def _labels(row: Mapping[str, Any], names: Iterable[str]) -> dict[str, str]:
    return {name: str(row[name]) for name in names} | {"replayed": str(int(row.get("replayed") or 0))}


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
