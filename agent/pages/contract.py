"""What a page must have, and when it no longer has it: told once, and once more when it is mended.

A page that changes its names, its units or what it counts says so nowhere; whoever reads on reads nothing, or nonsense.
Kinds of breach:

- ``absent``: a signal or a distribution that every page of this version has is not there. ``gone``: one that was
  there is not any more. Families that nobody knows and that came with it are named: one of them may be its new name.
  Series of most engines begin with requests: of a server that was started again nothing is gone before it answered
  somebody.
- ``unknown``: families that the engine's table neither reads nor leaves out.
- ``doubled``: the same counts under an old and a new name, and not by design of that version. One of them counts.
- ``unit``: a ratio above 1, more hits than look-ups, more time in a part of requests than in the whole of them, or more
  time in requests than has passed since the server was seen idle, when none of them can have been there.
- ``frozen``: a counter that had moved stands still while requests finish. Those that failed or were given up need not
  move it; nor do requests move prompt tokens at their end where a server counts those at the start of each.

Each is told to be over when the page itself shows it. Of a ratio that was above 1, or of requests that took longer than
they can have, a page never does, for percents may lie below 1 too: that is judged anew once the server was started
again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from base.formats import rounded
from base.vocabulary import Distribution, Signal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from agent.engine_table import Table
    from agent.pages.page import Layout

PATIENCE: Final = 10
"""Pages in a row that must lack a signal: a page that is cut once is no new version."""
_MOVED_REQUESTS: Final = 20
"""Requests that finish without a counter's moving before it counts as frozen."""
_WORK_PAGES: Final = 300
"""Pages with work, and no word of an answer, after which a server that was started again shows all that it will."""
_MOVING: Final = (
    Signal.PROMPT_TOKENS_TOTAL,
    Signal.GENERATION_TOKENS_TOTAL,
    Signal.ENGINE_STEPS_TOTAL,
    Signal.REQUEST_SECONDS_TOTAL,
)
"""Counters that every finished request moves where they move at all."""
_RATIOS: Final = (Signal.KV_CACHE_USAGE_RATIO, Signal.KV_CACHE_HOST_USAGE_RATIO, Signal.KV_OFFLOAD_PINNED_RATIO)
_ROUNDING: Final = 1.01
_PARTS: Final = (Signal.PREFILL_SECONDS_TOTAL, Signal.DECODE_SECONDS_TOTAL, Signal.COMPUTE_INFER_SECONDS_TOTAL)
"""Sums of a part of each request that are counted when it ends, as its whole time is."""
_SEAM: Final = 2.0
"""A server writes its sums one by one while requests end; another unit is a thousandfold."""
_LONGER: Final = 5.0
"""Times the seconds since a server was idle, and some more: its front end may hold requests that no gauge has."""
_UNSEEN_SECONDS: Final = 5.0
_FEW: Final = 5
"""Requests of which a mean is taken."""
_NAMED: Final = 10
_TOLD_KEPT: Final = 256
"""Families by which nobody is troubled again: a page may show new ones for ever."""
_NUMBERS: Final = re.compile(r"\d+")

Totals = tuple["Mapping[Signal, float]", "Mapping[Signal, float]", "Mapping[Signal, float]"]
Shown = Signal | Distribution


class Breach(NamedTuple):
    """One thing that a page does not keep, or keeps again.

    Attributes:
        kind: ``absent``, ``gone``, ``unknown``, ``doubled``, ``unit`` or ``frozen``.
        what: The signal, the distribution or the family.
        message: For a person; begins with what and has no name of the server.
        mended: Whether it is over.
    """

    kind: str
    what: str
    message: str
    mended: bool = False


def version_of(text: str) -> tuple[int, ...]:
    """The first two numbers of a version, ``0.11.2rc1`` → (0, 11); empty where it has none."""
    return tuple(int(one[:6]) for one in _NUMBERS.findall(text)[:2])


def served(table: Table, deltas: Mapping[Signal, float]) -> float:
    """Requests that finished with an answer, by a page's increases: not those that failed or were given up."""
    finished = deltas.get(Signal.REQUESTS_FINISHED_TOTAL, 0.0)
    if table.finished_includes_failed:
        finished -= deltas.get(Signal.REQUESTS_FAILED_TOTAL, 0.0)
    return finished - deltas.get(Signal.REQUESTS_ABORTED_TOTAL, 0.0)


def _told_twice(table: Table, spelled: AbstractSet[str]) -> tuple[tuple[str, str], ...]:
    """Old and new name of what a page tells under both."""
    there = [(old, rule.source) for rule in table.rules for old in rule.old if {old, rule.source} <= spelled]
    there += [
        (old, one.source)
        for one in table.histograms
        for old in one.old
        if {f"{old}_bucket", f"{one.source}_bucket"} <= spelled
    ]
    return tuple(there)[:_NAMED]


@dataclass(slots=True)
class Contract:
    """Watches the pages of one server.

    Args:
        table: The engine's.
        version: What the server told; "" is unknown.
    """

    table: Table
    version: str = ""
    _seen: set[Shown] = field(default_factory=set)
    _lacking: tuple[Shown, ...] = ()
    _back: tuple[Shown, ...] = ()
    _anew: bool = False
    _worked: int = 0
    _answered: bool = False
    _strange: frozenset[str] = frozenset()
    _unknown: tuple[str, ...] = ()
    _doubled: tuple[tuple[str, str], ...] = ()
    _missed: dict[Shown, int] = field(default_factory=dict)
    _still: dict[Signal, float] = field(default_factory=dict)
    _away: dict[tuple[str, str], int] = field(default_factory=dict)
    _told: dict[tuple[str, str], None] = field(default_factory=dict)
    _ended: float = inf
    _idle: tuple[float, float, float] | None = (
        None  # when work was seen to be done, what had finished, in which seconds
    )

    def fork(self) -> Contract:
        """The same, that goes on for itself."""
        return replace(
            self,
            _seen=set(self._seen),
            _missed=dict(self._missed),
            _still=dict(self._still),
            _away=dict(self._away),
            _told=dict(self._told),
        )

    def away(self) -> None:
        """The server did not answer, or was started again: series that begin with requests need not be there yet."""
        self._anew, self._worked = True, 0

    def laid_out(self, layout: Layout, shown: Iterable[Shown]) -> None:
        """Series came or went: this is what the page has."""
        there_now = frozenset(shown)
        expected: list[Shown] = [*self.table.expected()]
        expected += [one.distribution for one in self.table.histograms if not one.beside]
        for one in self._still.keys() - there_now:  # what comes again has to move again first
            del self._still[one]
        self._lacking = tuple(one for one in expected if one not in there_now)
        self._back = tuple(one for one in expected if one in there_now)
        strange = tuple(name for name in layout.families() if not self.table.knows(name))
        self._strange, self._unknown = frozenset(strange), strange[:_NAMED]
        spelled = {self.table.spelled(name) for name in layout.places}
        self._doubled = () if self.table.told_twice else _told_twice(self.table, spelled)

    def look(self, samples: Sequence[Totals], *, restarted: bool = False, at: float | None = None) -> list[Breach]:
        """What is new to tell of a page.

        Args:
            samples: Gauges, totals and increases of each sample of it.
            restarted: It is the first one of a server that was started again.
            at: When it was read, in seconds; None where nobody knows.
        """
        found: list[Breach] = []
        if restarted:
            self.away()
            self._idle, self._ended = None, inf
            for signal in (*_RATIOS, Signal.REQUEST_SECONDS_TOTAL):
                self._mend(found, "unit", signal, f"{signal} is judged anew: the server was started again")
        if samples:
            self._look_whether_begun(samples)
            self._look_for_signals(found)
            self._look_at_families(found)
            self._look_at_hits(found, [totals for _, totals, _ in samples])
            self._look_at_parts(found, [totals for _, totals, _ in samples])
            if at is not None:
                self._look_at_whole(found, samples, at)
        for gauges, _, _ in samples:
            self._look_at_ratios(found, gauges)
        self._look_for_frozen(found, samples)
        return found

    @property
    def doubts(self) -> bool:
        """Whether the unit of a ratio is in doubt."""
        return any(("unit", signal) in self._told for signal in _RATIOS)

    def believed(self, gauges: Mapping[Signal, float]) -> Mapping[Signal, float]:
        """Gauges without such ratios: 41.5 is no share, and 0.9 of such a page may be 0.9 %."""
        doubted = [signal for signal in _RATIOS if ("unit", signal) in self._told]
        return {signal: value for signal, value in gauges.items() if signal not in doubted}

    def _look_whether_begun(self, samples: Sequence[Totals]) -> None:
        self._answered = any(
            served(self.table, totals) > 0 or totals.get(Signal.REQUEST_SECONDS_TOTAL, 0.0) > 0
            for _, totals, _ in samples
        )
        if self._anew:
            self._worked += any(gauges.get(Signal.RUNNING) or any(totals.values()) for gauges, totals, _ in samples)
            self._anew = not self._answered and self._worked < _WORK_PAGES

    def _look_at_families(self, found: list[Breach]) -> None:
        for name in self._unknown:
            self._tell(found, "unknown", name, f"{name} is a family that nobody here knows")
        doubled = [pair for pair in self._doubled if not self._by_design(pair[0])] if self._doubled else ()
        for old, new in doubled:
            self._tell(found, "doubled", old, f"{old} and {new} tell of the same: the second counts")
        there = {"unknown": self._strange, "doubled": {old for old, _ in doubled}}
        for one in [told for told in self._told if told[0] in there]:
            self._away[one] = 0 if one[1] in there[one[0]] else self._away.get(one, 0) + 1
            if self._away[one] >= PATIENCE:
                said = "is not on the page any more" if one[0] == "unknown" else "is told under one name"
                self._mend(found, *one, f"{one[1]} {said}")

    def _look_for_signals(self, found: list[Breach]) -> None:
        for signal in self._back:
            self._seen.add(signal)
            self._missed.pop(signal, None)
            for kind in ("absent", "gone"):
                self._mend(found, kind, signal, f"{signal} is on the page again")
        self._back = ()
        for signal in self._lacking:
            kind = "gone" if signal in self._seen else "absent"
            if self.table.gone_is_over if kind == "gone" else not self._promised(signal):
                message = f"{signal} is nothing that a page of version {self.version or 'unknown'} must have"
                self._mend(found, kind, signal, message)
                continue
            if not self._begun(signal, kind):
                continue
            self._missed[signal] = self._missed.get(signal, 0) + 1
            if self._missed[signal] == PATIENCE:
                why = "is on the page no longer" if kind == "gone" else f"is not on the page of version {self.version}"
                new = f"; nobody here knows {', '.join(self._unknown)}" if self._unknown else ""
                self._tell(found, kind, signal, f"{signal} {why}: it is unknown, not 0{new}")

    def _promised(self, signal: Shown) -> bool:
        """Whether a page of this version has a signal."""
        since, version = self.table.since.get(signal), version_of(self.version)
        return since is not None and bool(version) and version >= since

    def _by_design(self, old: str) -> bool:
        """Whether this version has an old name beside the new one."""
        until, version = self.table.renamed_until.get(old), version_of(self.version)
        return until is not None and bool(version) and version < until

    def _begun(self, signal: Shown, kind: str) -> bool:
        """Whether a series would be there by now: those of most engines begin with requests."""
        if self._promised(signal) and not self.table.begins_with_requests:
            return True
        return not self._anew if kind == "gone" else self._answered

    def _look_at_ratios(self, found: list[Breach], gauges: Mapping[Signal, float]) -> None:
        for signal in _RATIOS:
            if gauges.get(signal, 0.0) > _ROUNDING:
                message = f"{signal} is {gauges[signal]:g}, above 1: the page may tell percents"
                self._tell(found, "unit", signal, message)

    def _look_at_hits(self, found: list[Breach], totals: Sequence[Mapping[Signal, float]]) -> None:
        signal = Signal.PREFIX_CACHE_HITS_TOTAL
        queries = Signal.PREFIX_CACHE_QUERIES_TOTAL
        pairs = [(one[signal], one[queries]) for one in totals if signal in one and queries in one]
        if any(hits > _ROUNDING * asked for hits, asked in pairs):
            self._tell(found, "unit", signal, f"{signal} is above its look-ups: the two may have different units")
        elif any(asked for _, asked in pairs):
            self._mend(found, "unit", signal, f"{signal} is not above its look-ups any more")

    def _look_at_parts(self, found: list[Breach], totals: Sequence[Mapping[Signal, float]]) -> None:
        whole = Signal.REQUEST_SECONDS_TOTAL
        for part in _PARTS:
            pairs = [(one[part], one[whole]) for one in totals if part in one and one.get(whole)]
            if any(took > _SEAM * all_of_it for took, all_of_it in pairs):
                message = f"{part} is above {whole}, of which it is a part: the two may have different units"
                self._tell(found, "unit", part, message)
            elif pairs:
                self._mend(found, "unit", part, f"{part} is not above {whole} any more")

    def _look_at_whole(self, found: list[Breach], samples: Sequence[Totals], at: float) -> None:
        """Whether requests took longer than the time since nobody was there."""
        signal, counted = Signal.REQUEST_SECONDS_TOTAL, Signal.REQUESTS_FINISHED_TOTAL
        wanted = {signal, counted}
        if not all(wanted <= totals.keys() and Signal.RUNNING in gauges for gauges, totals, _ in samples):
            return
        finished, took = (sum(totals[name] for _, totals, _ in samples) for name in (counted, signal))
        if self._idle is not None:
            since, finished_then, took_then = self._idle
            mean = (took - took_then) / max(finished - finished_then, 1.0)
            if finished - finished_then >= _FEW and mean > _LONGER * (at - since + _UNSEEN_SECONDS):
                grown = f"{signal} grew by {mean:.3g} a request in the {rounded(at - since)} since the server was idle"
                self._tell(found, "unit", signal, f"{grown}: the page may tell another unit")
        # A core that stands still shows an idle page while requests wait before it: it was idle if it just ended one.
        if finished > self._ended and not any(
            gauges[Signal.RUNNING] or gauges.get(Signal.WAITING) for gauges, _, _ in samples
        ):
            self._idle = at, finished, took
        self._ended = finished

    def _look_for_frozen(self, found: list[Breach], samples: Sequence[Totals]) -> None:
        for signal in _MOVING:
            if any(deltas.get(signal) for _, _, deltas in samples):
                self._still[signal] = -self._ahead(signal, samples)
                self._mend(found, "frozen", signal, f"{signal} moves again")
            elif signal in self._still:
                finished = sum(served(self.table, deltas) for _, totals, deltas in samples if totals.get(signal))
                self._still[signal] += finished
                if finished > 0 and self._still[signal] >= _MOVED_REQUESTS:
                    message = f"{signal} stands still while requests finish ({self._still[signal]:g} of them)"
                    self._tell(found, "frozen", signal, message)

    def _ahead(self, signal: Signal, samples: Sequence[Totals]) -> float:
        """Requests that may finish without moving a counter, since they have moved it already."""
        if signal != Signal.PROMPT_TOKENS_TOTAL or self.table.counts_late:
            return 0.0
        # One that was preempted waits, though its prompt was counted.
        told = [gauges for gauges, totals, _ in samples if totals.get(signal)]
        return sum(gauges.get(Signal.RUNNING, inf) + gauges.get(Signal.WAITING, 0.0) for gauges in told)

    def _tell(self, found: list[Breach], kind: str, what: str, message: str) -> None:
        if (kind, what) in self._told:
            return
        self._told[kind, what] = None
        if kind == "unknown" and len(self._told) > _TOLD_KEPT:
            oldest = next(one for one in self._told if one[0] == kind)
            del self._told[oldest]
            self._away.pop(oldest, None)
        found.append(Breach(kind, what, message))

    def _mend(self, found: list[Breach], kind: str, what: str, message: str) -> None:
        if (kind, what) in self._told:
            del self._told[kind, what]
            self._away.pop((kind, what), None)
            found.append(Breach(kind, what, message, mended=True))
