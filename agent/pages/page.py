"""Prometheus text → samples, within bounds.

A page's series barely change between two scrapes, only their values do. So a :class:`PageReader` remembers the lines
of the last page: an unchanged line costs a comparison, a changed one a prefix check and one ``float``. Only a page
whose lines moved is laid out anew, and even then a known series is a dictionary lookup.
What one line says is `agent.pages.line`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import compress
from operator import ne
from typing import TYPE_CHECKING, Final, NamedTuple
from weakref import WeakValueDictionary

from agent.pages.line import last_word, name_and_labels, unescaped, value_of
from base.errors import PageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one page. A page over ``bytes`` or ``series`` is refused whole, a line over the others is skipped."""

    bytes: int = 16 * 1024 * 1024
    series: int = 100_000
    line_bytes: int = 64 * 1024
    labels: int = 64


class Sample(NamedTuple):
    """One line of a page; ``timestamp`` in seconds where the server gave one."""

    name: str
    labels: Mapping[str, str]
    value: float
    timestamp: float | None


class Fault(NamedTuple):
    """A line that could not be read: its number (from 1) and what is wrong with it."""

    line: int
    reason: str


@dataclass(slots=True, weakref_slot=True)
class Series:
    """What identifies a line; it stays as it is, for the readers of several servers share it.

    Args:
        name: Metric name as the page writes it.
        labels: Its labels as the page writes them.
        identity: The labels that tell it from others of the name, whatever their order; an empty label is none.
        head: All that stands before the value; empty of a series that was on no page.
    """

    name: str
    labels: Mapping[str, str]
    identity: frozenset[tuple[str, str]]
    head: bytes = field(default=b"", compare=False, repr=False)


_KNOWN: Final[WeakValueDictionary[bytes, Series]] = WeakValueDictionary()
"""The series of all pages that somebody reads, by their heads: servers that are alike have them once."""


_SUFFIXES: Final = ("_bucket", "_sum", "_count")
_COMPOSITE: Final = frozenset({"histogram", "summary", "gaugehistogram"})
_FAULTS_KEPT: Final = 20
_REASON_KEPT: Final = 200
_REPEATED: Final = -1
"""In place of the slot of a line whose series an earlier line has."""
_NO_SERIES: Final = b"\n"
"""In place of the prefix of a line without a series: none begins so."""


@dataclass(eq=False, slots=True)
class Layout:
    """The series of a page in page order, and its ``# TYPE`` lines; the same object as long as the series stay."""

    series: tuple[Series, ...]
    types: Mapping[str, str]
    _places: dict[str, list[int]] = field(default_factory=dict)

    @property
    def places(self) -> Mapping[str, Sequence[int]]:
        """Where the series of each metric stand on the page."""
        if not self._places:
            for slot, one in enumerate(self.series):
                self._places.setdefault(one.name, []).append(slot)
        return self._places

    def family(self, name: str) -> str:
        """Name of the metric family a series name belongs to: ``x_bucket`` → ``x`` where ``x`` is a histogram."""
        if name in self.types:
            return name
        for suffix in _SUFFIXES:
            if name.endswith(suffix) and self.types.get(base := name.removesuffix(suffix)) in _COMPOSITE:
                return base
        return name

    def families(self) -> list[str]:
        """Families that have at least one sample, in page order."""
        return list(dict.fromkeys(self.family(name) for name in dict.fromkeys(one.name for one in self.series)))


@dataclass(frozen=True, slots=True)
class Page:
    """One page as read.

    Args:
        layout: Its series; compare by identity to know whether anything but values changed.
        values: One value per series of the layout.
        timestamps: Seconds by position in ``values``, for the few servers that send them.
        faults: The first lines that were passed over.
        faults_total: How many lines were passed over: unreadable ones and repeated ones.
        repeated: How many of them are of a series that an earlier line has; the first line counts, as with Prometheus.
    """

    layout: Layout
    values: Sequence[float]
    timestamps: Mapping[int, float] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    faults_total: int = 0
    repeated: int = 0

    def told(self) -> str:
        """What was passed over, for a person: ``3 malformed lines (1 repeats a series), the first is line 7: …``."""
        again = f" ({self.repeated} repeat a series)" if self.repeated else ""
        lines = "malformed line" if self.faults_total == 1 else "malformed lines"
        first = f", the first is line {self.faults[0].line}: {self.faults[0].reason}" if self.faults else ""
        return f"{self.faults_total} {lines}{again}{first}"

    def samples(self) -> Iterator[Sample]:
        """Every sample in page order."""
        for slot, (one, value) in enumerate(zip(self.layout.series, self.values, strict=True)):
            yield Sample(one.name, one.labels, value, self.timestamps.get(slot))


def _series(head: bytes, name: str, labels: dict[str, str]) -> Series:
    identity = frozenset(pair for pair in labels.items() if pair[1])
    return _KNOWN.setdefault(head, Series(name, labels, identity, head))


@dataclass(slots=True)
class _Draft:
    """A page while it is laid out."""

    series: list[Series] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    prefixes: list[bytes] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    types: dict[str, str] = field(default_factory=dict)
    timestamps: dict[int, float] = field(default_factory=dict)
    first: dict[tuple[str, frozenset[tuple[str, str]]], int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    faults_total: int = 0
    repeated: int = 0

    def skip(self) -> None:
        self.prefixes.append(_NO_SERIES)
        self.slots.append(-1)

    def fault(self, number: int, reason: str) -> None:
        self._tell(number, reason)
        self.skip()

    def _tell(self, number: int, reason: str) -> None:
        self.faults_total += 1
        if len(self.faults) < _FAULTS_KEPT:
            self.faults.append(Fault(number, reason))

    def add(self, one: Series, value: float, timestamp: float | None) -> None:
        number = len(self.prefixes) + 1
        self.prefixes.append(one.head)
        before = self.first.setdefault((one.name, one.identity), number)
        if before != number:
            self.repeated += 1
            self._tell(number, f"the same series as line {before}")
            self.slots.append(_REPEATED)
            return
        if timestamp is not None:
            self.timestamps[len(self.values)] = timestamp
        self.slots.append(len(self.values))
        self.series.append(one)
        self.values.append(value)


class PageReader:
    """Reads the pages of one server one after the other. Not thread-safe; holds about twice a page."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._lines: list[bytes] = []
        self._draft = _Draft()
        self._layout = Layout((), {})

    def read(self, body: bytes) -> Page:
        """Read one page.

        Raises:
            PageError: The page is over a bound, or not one of its lines is a sample though it has lines.
        """
        if len(body) > self._limits.bytes:
            raise PageError(
                f"metrics page has {len(body)} bytes, more than the {self._limits.bytes} allowed",
                "Point at the metrics page of a model server",
            )
        lines = body.split(b"\n")
        if len(lines) != len(self._lines) or not self._update(lines):
            self._lay_out(lines)
        draft = self._draft
        return Page(
            self._layout,
            draft.values.copy(),
            draft.timestamps.copy(),
            tuple(draft.faults),
            draft.faults_total,
            draft.repeated,
        )

    def _update(self, lines: list[bytes]) -> bool:
        """Take over new values; False where a line is no longer the series it was."""
        draft = self._draft
        changed = list(compress(range(len(lines)), map(ne, lines, self._lines)))
        news, heads = [lines[index] for index in changed], [draft.prefixes[index] for index in changed]
        # By calls of C over all of them at once: a page of a busy server changes in most of its lines.
        tails = list(map(bytes.removeprefix, news, heads))
        size = sum(map(len, news))
        if size != sum(map(len, heads)) + sum(map(len, tails)):  # one has not the prefix that it had
            return False
        if size > self._limits.line_bytes and max(map(len, news)) > self._limits.line_bytes:
            return False
        slots = [draft.slots[index] for index in changed]
        try:
            if draft.timestamps or draft.repeated or b"_" in b"".join(tails):
                if not _take_over(draft, slots, tails):
                    return False
            else:
                for slot, value in zip(slots, map(float, tails), strict=True):
                    draft.values[slot] = value
        except ValueError:
            return False
        self._lines = lines
        return True

    def _lay_out(self, lines: list[bytes]) -> None:
        limits, draft = self._limits, _Draft()
        for number, whole in enumerate(lines, 1):
            if len(whole) > limits.line_bytes:
                draft.fault(number, f"line of {len(whole)} bytes, more than the {limits.line_bytes} allowed")
                continue
            head, _, tail = whole.rpartition(b" ")
            one = _KNOWN.get(head + b" ")
            try:
                if one is not None and len(one.labels) <= limits.labels:
                    draft.add(one, *last_word(tail))
                    continue
                line = whole.strip()
                if not line:
                    draft.skip()
                elif line.startswith(b"#"):
                    _declare(line, draft)
                else:
                    name, labels, position = name_and_labels(line, limits.labels)
                    value, timestamp = value_of(line[position:])
                    draft.add(_series(whole[: whole.find(line) + position], name, labels), value, timestamp)
            except ValueError as error:
                draft.fault(number, _reason(error))
            if len(draft.series) + draft.repeated > limits.series:
                raise PageError(
                    f"metrics page has more than {limits.series} series", "Point at the metrics page of a model server"
                )
        if draft.faults and not draft.series:
            first = draft.faults[0]
            raise PageError(
                f"not a metrics page: none of its lines can be read (line {first.line}: {first.reason})",
                "Point at a page in Prometheus text format, usually /metrics",
            )
        if self._layout.series != tuple(draft.series) or self._layout.types != draft.types:
            self._layout = Layout(tuple(draft.series), draft.types)
        draft.first.clear()
        self._draft, self._lines = draft, lines


def _take_over(draft: _Draft, slots: Sequence[int], tails: Sequence[bytes]) -> bool:
    """New values of a page on which series have timestamps or come again; False where one has another kind of tail.

    Raises:
        ValueError: One cannot be read.
    """
    for slot, tail in zip(slots, tails, strict=True):
        value, timestamp = value_of(tail)
        if slot == _REPEATED:
            continue
        if (timestamp is not None) != (slot in draft.timestamps):
            return False
        if timestamp is not None:
            draft.timestamps[slot] = timestamp
        draft.values[slot] = value
    return True


def _declare(line: bytes, draft: _Draft) -> None:
    """A line that begins with ``#``: keep what ``# TYPE`` says, pass over the rest."""
    parts = line.split(None, 3)
    if len(parts) > 1 and parts[1] == b"TYPE":
        if len(parts) < 4:  # noqa: PLR2004 - "#", "TYPE", name, type
            raise ValueError("TYPE without a name and a type")
        draft.types[unescaped(parts[2].strip(b'"'))] = parts[3].decode()
    draft.skip()


def _reason(error: ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    text = str(error)
    return "bad value" if text.startswith("could not convert") else text[:_REASON_KEPT]


def parse(text: bytes | str, limits: Limits | None = None) -> Page:
    """Read one page by itself; see :meth:`PageReader.read`."""
    return PageReader(limits).read(text.encode() if isinstance(text, str) else text)
