"""Pages that come in any order, read in the order of their times.

What a counter gained stands between neighbours in time. So pages lie in *runs*: of each run a page is one interval of
scraping after the other, and only its first waits, for it is not known yet what came before it. The others are told as
they come. A page that comes after the end of a run goes on with it; when the end of a run meets the beginning of the
next, the next one's first page is told, with what it gained since, and the two are one. What nothing came between for
a while is taken as neighbours too. What comes between neighbours after all is told without what it gained, for the
page after it has that.

The first page of all is told at once, without what it gained, for nothing may ever come before it; where something
does, it is told again and is then the same row with more in it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, Protocol, Self, TypeVar

from collector.scraped.cadence import Cadence

if TYPE_CHECKING:
    from collections.abc import Callable

    from collector.scraped.pages import Put

HOLD_SECONDS: Final = 150.0
"""Time without a page between two runs after which none is waited for: vmagent comes again within 60 s, and each time
may take it 60 s (``-remoteWrite.retryMaxInterval``, ``-remoteWrite.sendTimeout``)."""
_BARE_SECONDS: Final = 900.0
"""The same for a first page that was told already, where waiting costs nobody anything."""
_MOST_RUNS: Final = 16
_MOST_HELD: Final = 256
"""Pages in a row that show nothing, before the first that does."""


class Reads(Protocol):
    """Reads a target's pages one after the other; what it tells of one rests on the one before."""

    def fork(self) -> Self:
        """Another one that has read the same."""
        ...

    def read(self, put: Put, *, tell: bool = True) -> None:
        """Read the next page, and tell what it says."""
        ...

    def alone(self, put: Put) -> None:
        """Tell what a page says, without what it gained and without events; go on as if it had not been there."""
        ...

    def owe(self, put: Put) -> None:
        """Have what counts by interval, and came late, in what the next page gained."""
        ...


_Reader = TypeVar("_Reader", bound=Reads)


@dataclass(slots=True)
class _Run(Generic[_Reader]):
    """Pages one after the other.

    Attributes:
        head: The first one that shows something, and those before it, while they wait for what was before.
        bare: Whether these were told already.
        based: Whether something was shown, so that what the next one gained is known.
        first_ns: Its time.
        last_ns: The last one's.
        came: When the last one came.
        reader: Has read up to the last one.
        begun: When its first page changed.
        grown: When its last page changed.
    """

    head: list[Put]
    first_ns: int
    last_ns: int
    came: float
    reader: _Reader
    begun: float
    grown: float
    bare: bool
    based: bool


@dataclass(slots=True)
class Order(Generic[_Reader]):
    """The pages of one target.

    Args:
        fresh: Makes a reader that has read nothing.
    """

    fresh: Callable[[Put], _Reader]
    _runs: list[_Run[_Reader]] = field(default_factory=list)
    _cadence: Cadence = field(default_factory=Cadence)

    def take(self, put: Put, now: float) -> None:
        """A page, whenever it was scraped; ``now`` in seconds of a clock that never goes back."""
        if put.rest:
            at = bisect_right(self._runs, put.time_ns, key=lambda run: run.first_ns)
            for run in self._runs[max(at - 1, 0) : max(at, 1)]:
                run.reader.owe(put)
            return
        before = self._before(put)
        if before is not None and put.time_ns >= before.last_ns:
            self._cadence.learn(put.time_ns - before.last_ns, put.came - before.came)
            self._meet(now)  # what is near is known better now: this page may even lie within what has met
            before = self._before(put)
        if before is not None and put.time_ns < before.last_ns:
            before.reader.alone(put)
            return
        if before is not None and self._cadence.near(put.time_ns - before.last_ns):
            before.reader.read(put, tell=before.based or before.bare)
            if not before.based:
                before.head.append(put)
                before.based = put.shows or len(before.head) >= _MOST_HELD
            before.last_ns, before.came, before.grown = put.time_ns, put.came, now
        else:
            reader = before.reader.fork() if before is not None else self.fresh(put)
            bare = not self._runs
            reader.read(put, tell=bare)
            run = _Run([put], put.time_ns, put.time_ns, put.came, reader, now, now, bare, based=put.shows)
            insort(self._runs, run, key=lambda one: one.first_ns)
        self._meet(now)

    def tick(self, now: float, *, last: bool = False) -> None:
        """Tell what has waited long enough; all where ``last``."""
        self._meet(now, last=last)
        first = self._runs[0] if self._runs else None
        hold = _BARE_SECONDS if first is not None and first.bare else HOLD_SECONDS
        if first is not None and first.head and (last or now - first.begun >= hold):
            if not first.bare:
                for put in first.head:
                    self.fresh(put).alone(put)
            first.head = []

    @property
    def waiting(self) -> bool:
        """Whether a page waits."""
        return any(run.head for run in self._runs)

    def _before(self, put: Put) -> _Run[_Reader] | None:
        at = bisect_left(self._runs, put.time_ns, key=lambda run: run.first_ns)
        return self._runs[at - 1] if at else None

    def _meet(self, now: float, *, last: bool = False) -> None:
        at = 1
        while at < len(self._runs):
            one, other = self._runs[at - 1 : at + 1]
            quiet = now - max(one.grown, other.begun) >= HOLD_SECONDS
            many = len(self._runs) > _MOST_RUNS
            if not (last or quiet or many or self._cadence.near(other.first_ns - one.last_ns)):
                at += 1
                continue
            held = not one.based and not one.bare
            for put in other.head:
                one.reader.read(put, tell=not held)
            if not one.based:
                one.head += other.head
            if other.based:
                one.reader, one.based = other.reader, True
            one.last_ns, one.came, one.grown = other.last_ns, other.came, other.grown
            del self._runs[at]
