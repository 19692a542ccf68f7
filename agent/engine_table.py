"""What an engine's table is made of, and which tables there are.

An engine is a file of ``agent/engines/`` with a module-level ``TABLE``; nothing lists them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal

from agent import engines
from agent.engine_families import is_common
from base import found
from base.errors import UnknownEngineError
from base.vocabulary import Signal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agent.pages.page import Layout, Page
    from base.vocabulary import Distribution

Combine = Literal["sum", "max"]
Role = Literal["both", "router"]
HEALTH_PATH: Final = "/health"
METRICS_PATH: Final = "/metrics"
SURE: Final = 3
"""A page is one engine's whatever other names it has: its labels or a family of its own say so."""
OWN: Final = 2
"""A page has names that only one engine writes."""
HOST: Final = 1
"""A page has names of a program that engines run in; an engine's own names beside them say more."""
BARE: Final = 0
"""A page has names without a prefix, which any program could write."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One signal and where a page has it.

    Args:
        signal: What it means.
        source: Series name on the newest version known.
        old: Names of older versions, newest first; of each model the first name that the page has is taken, the others
            are passed over.
        plus: Further series of the same page that are added in; the signal is absent unless all are there.
        beside: Series that the page must have too, so that a number means what the signal says: prompt tokens are
            look-ups in a cache only where hits are counted.
        scale: Factor from the page's unit to ours (µs → s: 1e-6).
        where: Labels a series must have to count, each with its value or one of its values.
        where_old: The same for series of ``old`` names, where those are labelled otherwise.
        combine: How several series of one model and rank become one value.
        of_server: Series without a rank belong to the first rank's sample, without a model to the first model's: one
            counter makes no sample of its own.

    Of two rules of one signal the second adds to the first.
    """

    signal: Signal
    source: str
    old: tuple[str, ...] = ()
    plus: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    scale: float = 1.0
    where: Mapping[str, str | frozenset[str]] = field(default_factory=dict)
    where_old: Mapping[str, str | frozenset[str]] | None = None
    combine: Combine = "sum"
    of_server: bool = False

    @property
    def counter(self) -> bool:
        """Whether the signal only grows."""
        return self.signal.endswith("_total")

    def names(self) -> tuple[str, ...]:
        """Every series name the rule reads."""
        return (self.source, *self.old, *self.plus)


_POSITIONS: Final = 8
"""Positions of a draft that have a signal of their own; later ones are in the total alone."""


def accepted_by_position(source: str, label: str) -> tuple[Rule, ...]:
    """Rules for accepted tokens by their position in the draft, which ``label`` tells, counted from 0."""
    return tuple(
        Rule(Signal(f"spec_decode_accepted_at_{place}_total"), source, where={label: str(place)})
        for place in range(_POSITIONS)
    )


@dataclass(frozen=True, slots=True)
class Histogram:
    """One distribution and the histogram family a page has it in; ``old``, ``scale`` and ``where`` as in :class:`Rule`.

    ``beside``: It comes by :class:`Statistics`, which may be had later than the first page: what it shows at first is
    no increase. ``of_server`` as in :class:`Rule`.
    """

    distribution: Distribution
    source: str
    old: tuple[str, ...] = ()
    scale: float = 1.0
    beside: bool = False
    of_server: bool = False
    where: Mapping[str, str | frozenset[str]] = field(default_factory=dict)

    def names(self) -> tuple[str, ...]:
        """Every family name the rule reads."""
        return (self.source, *self.old)


@dataclass(frozen=True, slots=True)
class About:
    """What a server tells of itself beside its metrics page; empty where it does not say."""

    version: str = ""
    model: str = ""
    config: Mapping[str, str] = field(default_factory=dict)

    def within(self, length: int) -> About:
        """The same with each text cut to ``length`` characters: a server may say anything."""
        config = {key: value[:length] for key, value in self.config.items()}
        return About(self.version[:length], self.model[:length], config)


@dataclass(frozen=True, slots=True)
class Statistics:
    """What an engine counts and shows on no page, but where it can be asked for it.

    Attributes:
        path: On the serving API.
        what: What they tell, for a person.
        page: The body as lines of a page, each series of which stays for as long as what it counts is there; raises
            ValueError where it can't be read.
    """

    path: str
    what: str
    page: Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Table:
    """How one engine's page reads.

    Args:
        engine: Engine id, equal to the folder name of its fixtures.
        prefixes: A page is this engine's when one of its series begins with one of these.
        signs: Whether a page is this engine's though no name begins so, or by more than its names.
        marks: Text in what others send of such a page, by which it is looked for there where no name begins so: whole
            names or values of labels. Whether a page is this engine's is then for `signs` to say.
        strength: How much recognising a page says (:data:`SURE` to :data:`BARE`); of several the strongest counts.
        role: What the program is, or by its page: ``router`` hands requests on and runs no model itself.
        rules: Signals.
        histograms: Distributions.
        ignored: Families that are known and not read, with the reason; a ``_created`` twin needs no entry.
        spellings: Other beginnings of metric names → the one that ``rules`` have, likeliest first: the same metrics
            under another name. Of a metric that a page spells in several ways, one spelling counts.
        others: Beginnings of families of a host program on the same page, with the reason for leaving them out.
        model_labels: Labels that may name the model, likeliest first; none where the page names none.
        nameless: Values of those labels that name nothing (``undefined``).
        rank_label: Label that is the data-parallel rank; "" where there is none.
        copy_labels: Labels of ranks that all count the same: of series that differ in these alone, only the lowest
            rank's is added up.
        part_labels: Labels whose series are parts of the one that has no such label: beside it they are not added.
        host_labels: Labels that a host program puts on every series.
        info: Families whose labels are the server's configuration, with the labels to take; none named takes all.
        optional: Signals that only some set-ups of the engine show, so that their absence is no news.
        since: Versions (their first two numbers) from which on a page has a signal or a distribution; what is not named
            is promised by none.
        begins_with_requests: Whether most series begin with the first request that ends: before, none is missed.
        metrics_port_offset: Port of the metrics page less the port of the serving API; 0 where they are one.
        page_path: Path of the metrics page.
        about_path: Path on the serving API that tells the version.
        about_older: Where older versions tell it.
        about: Reads the JSON of ``about_path``.
        health_path: Path on the serving API that answers 200 while the server can be used.
        statistics: What the engine counts and shows on no page.
        extras: Signals that no rule can read off a page, such as from a label's text; they are the first sample's.
        notes: Says in plain English what to know of this very page.
        off: Signals whose counters this very page shows, and the server does not count.
        told_twice: Whether a page has old names beside the new ones by design, so that both together are no news.
        renamed_until: Old names → the version (its first two numbers) from which on a page does not have them any more:
            before, its makers show them beside the new ones, so that both together are no news either.
        gone_is_over: A series that leaves the page has ended and begins at 0 when it comes again (a model that is
            unloaded); otherwise it goes on from where it was.
        finished_includes_failed: Whether ``requests_finished_total`` counts failed requests too: a share of failures is
            then of finished alone, otherwise of finished and failed together.
        counts_late: Whether only requests that end move a counter, but for engine steps where the page has them: a
            server that works on a long answer then looks like one that stands still.
        prompt_includes_cached: Whether ``prompt_tokens_total`` counts tokens that a prefix cache had.
    """

    engine: str
    prefixes: tuple[str, ...]
    rules: tuple[Rule, ...]
    signs: Callable[[Layout], bool] = lambda _layout: False
    marks: tuple[str, ...] = ()
    strength: int = OWN
    role: Role | Callable[[Layout], Role] = "both"
    histograms: tuple[Histogram, ...] = ()
    ignored: Mapping[str, str] = field(default_factory=dict)
    spellings: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, str] = field(default_factory=dict)
    model_labels: tuple[str, ...] = ()
    nameless: frozenset[str] = frozenset()
    rank_label: str = ""
    copy_labels: tuple[str, ...] = ()
    part_labels: tuple[str, ...] = ()
    host_labels: frozenset[str] = frozenset()
    info: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    optional: frozenset[Signal] = frozenset()
    since: Mapping[Signal | Distribution, tuple[int, ...]] = field(default_factory=dict)
    begins_with_requests: bool = True
    metrics_port_offset: int = 0
    page_path: str = METRICS_PATH
    about_path: str = ""
    about_older: str = ""
    about: Callable[[Mapping[str, Any]], About] = lambda _reply: About()
    health_path: str = HEALTH_PATH
    statistics: Statistics | None = None
    extras: Callable[[Page], Mapping[Signal, float]] | None = None
    notes: Callable[[Page], list[str]] = lambda _page: []
    off: Callable[[Page], frozenset[Signal]] = lambda _page: frozenset()
    told_twice: bool = False
    renamed_until: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    gone_is_over: bool = False
    finished_includes_failed: bool = False
    counts_late: bool = False
    prompt_includes_cached: bool = True

    def recognises(self, layout: Layout) -> bool:
        """Whether the page is this engine's; one that has declared its metrics and has no value yet is."""
        begins = (*self.prefixes, *self.spellings)
        return (
            any(name.startswith(begins) for name in layout.places)
            or any(name.startswith(begins) for name in layout.types)
            or self.signs(layout)
        )

    def plays(self, layout: Layout) -> Role:
        """The role of the server whose page it is."""
        return self.role(layout) if callable(self.role) else self.role

    def spelled(self, name: str) -> str:
        """A metric's name as ``rules`` have it."""
        for beginning, ours in self.spellings.items():
            if name.startswith(beginning):
                return f"{ours}{name.removeprefix(beginning)}"
        return name

    def slots(self, layout: Layout) -> Mapping[str, Sequence[int]]:
        """Where the series of each metric stand, by its name as ``rules`` have it."""
        by_name = layout.places
        if not self.spellings:
            return by_name
        slots: dict[str, Sequence[int]] = {}
        for name in sorted(by_name, key=self._likeliest):
            slots.setdefault(self.spelled(name), by_name[name])
        return slots

    def _likeliest(self, name: str) -> int:
        beginnings = list(self.spellings)
        return next((1 + beginnings.index(one) for one in beginnings if name.startswith(one)), 0)

    def model_of(self, labels: Mapping[str, str], otherwise: str) -> str:
        """The model that a series is about."""
        nameless = self.nameless
        return next(
            (named for label in self.model_labels if (named := labels.get(label)) and named not in nameless), otherwise
        )

    def knows(self, family: str) -> bool:
        """Whether a family is read or ignored on purpose."""
        if family.startswith(tuple(self.others)) and not family.startswith(tuple(self.spellings)):
            return True
        family = self.spelled(family)
        known = known_families(self.engine)
        # Without its # TYPE line a histogram's parts look like families of their own.
        if any(family.endswith(part) and family.removesuffix(part) in known for part in _HISTOGRAM_PARTS):
            return True
        if family in known or (family.endswith("_created") and _base(family) & known != frozenset()):
            return True
        return is_common(family) and not family.startswith(self.prefixes)

    def expected(self) -> list[Signal]:
        """Signals that every healthy page of this engine has."""
        return [signal for signal in dict.fromkeys(rule.signal for rule in self.rules) if signal not in self.optional]


_HISTOGRAM_PARTS: Final = ("_sum", "_count", "_bucket")
_NAME_SHOWN: Final = 100


def _base(created: str) -> frozenset[str]:
    name = created.removesuffix("_created")
    return frozenset({name, f"{name}_total"})


@cache
def known_families(engine: str) -> frozenset[str]:
    """Families that the table of ``engine`` reads or ignores by name."""
    table = tables()[engine]
    names = {name for rule in table.rules for name in rule.names()}
    names |= {name.removesuffix(part) for name in names for part in _HISTOGRAM_PARTS}
    names |= {name for histogram in table.histograms for name in histogram.names()}
    return frozenset(names | table.ignored.keys() | table.info.keys())


@cache
def tables() -> Mapping[str, Table]:
    """Every engine's table, by engine id.

    Raises:
        NotFoundError: A file of ``agent/engines/`` has none.
    """
    return {table.engine: table for table in found.members(engines, "TABLE").values()}


def find_table(engine: str) -> Table:
    """The table of an engine id.

    Raises:
        UnknownEngineError: No such table; names those there are.
    """
    try:
        return tables()[engine]
    except KeyError:
        raise UnknownEngineError(
            f"engine {engine!r} is not known", f"Use one of: {', '.join(sorted(tables()))}, or auto"
        ) from None


def detect(page: Page) -> Table:
    """The table that recognises a page; where an engine and its host do, the engine's.

    Raises:
        UnknownEngineError: None does; names what was seen instead.
    """
    knowing = [table for table in tables().values() if table.recognises(page.layout)]
    if knowing:
        return max(knowing, key=lambda table: table.strength)
    seen = [name[:_NAME_SHOWN] for name in page.layout.families()]
    what = ", ".join(seen[:5]) + (f" and {len(seen) - 5} more" if len(seen) > 5 else "") if seen else "no metric at all"  # noqa: PLR2004
    raise UnknownEngineError(
        f"no engine table recognises this metrics page (it has {what})",
        f"Known engines: {', '.join(sorted(tables()))}",
    )


def config_of(table: Table, layout: Layout) -> dict[str, str]:
    """The server's configuration from its info series, without the labels that name model and rank.

    Of several series of a family the first counts: ranks of one server are configured alike.
    """
    config: dict[str, str] = {}
    left = dict(table.info)
    for one in layout.series:
        name, labels = table.spelled(one.name), one.labels
        if name in left:
            wanted = left.pop(name) or labels.keys() - {*table.model_labels, table.rank_label, *table.host_labels}
            config |= {key: value for key, value in labels.items() if key in wanted}
    return config
