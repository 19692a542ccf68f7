"""Columns by minute, kept from one look to the next: what has not changed since is not read again.

A live window moves by seconds from look to look, and an account needs all of its requests and samples. What the store
is asked for anew is a fingerprint of each minute of each table, over few columns and in one statement; of minutes whose
fingerprint is another, the rows. So rows that come late, in any order, are in the next look, and what is worked out of
kept columns is what would be worked out of all read anew.

A minute into which rows came a moment ago is not kept: a second row of the same request might bear the same time.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from analytics.causes.columns import columns_of, joined, taken
from analytics.causes.table import in_order
from analytics.window import EVER
from base.named_sql import beside

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

    from analytics.causes.columns import Columns
    from analytics.inquiry import Inquiry

BLOCK_MS: Final = 60_000
"""Milliseconds of a block; blocks begin at whole minutes."""
MOST_ROWS: Final = 500_000
"""Rows that are kept of all who ask, some 250 bytes each; the longest unused go first."""
FRESH_SECONDS: Final = 5
"""Seconds since the newest insert into a block from which it is kept."""
MOST_READS: Final = 4
"""Stretches of blocks that are read one by one; of more, all between the first and the last at once."""
_SQL: Final = beside(__file__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A block that is wanted.

    Attributes:
        begin_ms: Unix milliseconds of its begin.
        only: Deployments whose requests are wanted of it; None for all.
    """

    begin_ms: int
    only: tuple[str, ...] | None = None


class Blocks:
    """A bounded memory of blocks, by who asked what, and by their fingerprints. Threads may share it.

    Args:
        most_rows: Rows that are kept.
    """

    def __init__(self, most_rows: int = MOST_ROWS) -> None:
        self._most_rows = most_rows
        self._guard = threading.Lock()
        self._kept: OrderedDict[Hashable, tuple[int, Columns, int]] = OrderedDict()
        self._rows = 0

    @property
    def rows(self) -> int:
        """How many are kept."""
        return self._rows

    def get(self, key: Hashable, fingerprint: int) -> Columns | None:
        """Columns of a block whose fingerprint is still that; None where they are not kept."""
        with self._guard:
            known, columns, _ = self._kept.get(key, (None, {}, 0))
            if known != fingerprint:
                return None
            self._kept.move_to_end(key)
            return columns

    def put(self, key: Hashable, fingerprint: int, columns: Columns, rows: int) -> None:
        """Keep the columns of a block, read after its fingerprint was asked for."""
        with self._guard:
            self._rows += rows - self._kept.pop(key, (0, {}, 0))[2]
            self._kept[key] = (fingerprint, columns, rows)
            while self._rows > self._most_rows:
                self._rows -= self._kept.popitem(last=False)[1][2]

    def forget(self) -> None:
        """Drop all."""
        with self._guard:
            self._kept.clear()
            self._rows = 0

    @contextmanager
    def aside(self) -> Iterator[None]:
        """For a while nothing is kept; afterwards what was."""
        with self._guard:
            known, rows = self._kept, self._rows
            self._kept, self._rows = OrderedDict(), 0
        try:
            yield
        finally:
            with self._guard:
                self._kept, self._rows = known, rows


KEPT: Final = Blocks()
"""What this process keeps."""


class Fingerprint(NamedTuple):
    """What changes when anything of some rows does.

    Attributes:
        value: A sum of hashes.
        fresh: Whether something came a moment ago.
        n: How many rows; of steps, how many steps.
    """

    value: int
    fresh: bool
    n: int


@dataclass(frozen=True)
class Fingerprints:
    """Fingerprints of a span.

    Attributes:
        whose: Who asks, and of live requests or recordings: part of the key of what is kept.
        of: By table and begin of a block (Unix ms); of what is asked of the whole span by 0.
    """

    whose: Hashable
    of: Mapping[str, Mapping[int, Fingerprint]]

    def n(self, part: str) -> int:
        """Rows of a table in the span."""
        return sum(one.n for one in self.of.get(part, {}).values())


def fingerprints_of(inquiry: Inquiry, fragments: Mapping[str, str], origin_ms: int) -> Fingerprints:
    """Fingerprints of all that an account reads, asked for before it is read: what comes in between changes them later.

    Args:
        inquiry: Whose window; who asks whom.
        fragments: Of the statement.
        origin_ms: From when on (Unix ms).
    """
    first, last = origin_ms // BLOCK_MS * BLOCK_MS, -(-inquiry.window.to_ms // BLOCK_MS) * BLOCK_MS
    asked: dict[str, Any] = {"first_ms": first, "end_ms": last, "reference_ms": origin_ms}
    found: dict[str, dict[int, Fingerprint]] = {}
    for row in inquiry.ask("fingerprints", fragments, _SQL, block_ms=BLOCK_MS, fresh=FRESH_SECONDS, **asked):
        fingerprint = Fingerprint(int(row["fingerprint"]), bool(row["fresh"]), int(row["n"]))
        found.setdefault(str(row["part"]), {})[int(row["begin_ms"])] = fingerprint
    return Fingerprints((inquiry.store.asker, tuple(sorted(fragments.items()))), found)


def kept_blocks(
    whose: Hashable,
    wanted: Sequence[Wanted],
    fingerprints: Mapping[int, Fingerprint],
    read: Callable[[Sequence[Wanted]], Columns],
) -> list[Columns]:
    """Columns of some blocks in order of time: kept ones, and the others read.

    Args:
        whose: What is read, for whom.
        wanted: Blocks in order of time; those without a fingerprint have no rows.
        fingerprints: By begin.
        read: Reads the columns of neighbours; ``at_ms`` among them tells each row's block, whose rows stay in order.
    """
    found: dict[int, Columns] = {}
    for one in wanted:
        kept = KEPT.get((whose, one), fingerprints[one.begin_ms].value) if one.begin_ms in fingerprints else None
        if kept is not None:
            found[one.begin_ms] = kept
    missing = [one for one in wanted if one.begin_ms in fingerprints and one.begin_ms not in found]
    for stretch in _stretches(missing):
        columns = read(stretch)
        minute = np.asarray(columns["at_ms"], dtype=np.int64) // BLOCK_MS * BLOCK_MS
        order = np.argsort(minute, kind="stable")
        for one in stretch:
            first, last = np.searchsorted(minute[order], [one.begin_ms, one.begin_ms + 1])
            mine = taken(columns, order[first:last])
            found[one.begin_ms] = mine
            fingerprint = fingerprints[one.begin_ms]
            if not fingerprint.fresh:
                KEPT.put((whose, one), fingerprint.value, mine, int(last - first))
    return [found[begin] for begin in sorted(found)]


def rows_of(
    inquiry: Inquiry,
    fragments: Mapping[str, str],
    sql: Mapping[str, str],
    wanted: Sequence[Wanted],
    stride: int,
    fingerprints: Fingerprints,
) -> Columns:
    """The columns of the statement ``rows`` over some blocks: kept ones, and the others read.

    Those of a block are in the order of `table.Requests`.

    Args:
        inquiry: Who asks whom, and which requests are selected.
        fragments: Of the statement.
        sql: Where ``rows`` is; it takes ``reference_ms``, ``until_ms``, ``stride`` and ``only``.
        wanted: Blocks in order of time.
        stride: Every which request is read.
        fingerprints: Of them.
    """
    if not wanted:
        return {}
    # the selection decides what is told as selected; whose the window is does not
    whose = ("rows", fingerprints.whose, replace(inquiry.selection, window=EVER), stride)

    def read(stretch: Sequence[Wanted]) -> Columns:
        return _read(inquiry, fragments, sql, stretch, stride)

    parts = kept_blocks(whose, wanted, fingerprints.of.get("requests", {}), read)
    return joined(parts) if parts else read(wanted[:1])


def _stretches(missing: Sequence[Wanted]) -> list[list[Wanted]]:
    """Blocks that are read by one statement each: neighbours of which the same deployments are wanted."""
    found: list[list[Wanted]] = []
    for only, group in groupby(missing, lambda one: one.only):
        same = list(group)
        begins = [0, *(place for place in range(1, len(same)) if _apart(same[place - 1], same[place])), len(same)]
        parts = [same[first:last] for first, last in pairwise(begins)]
        found += parts if len(parts) <= MOST_READS or only is not None else [same]
    return found


def _apart(one: Wanted, other: Wanted) -> bool:
    return other.begin_ms > one.begin_ms + BLOCK_MS


def _read(
    inquiry: Inquiry, fragments: Mapping[str, str], sql: Mapping[str, str], stretch: Sequence[Wanted], stride: int
) -> Columns:
    only = stretch[0].only
    asked: dict[str, Any] = {
        "reference_ms": stretch[0].begin_ms,
        "until_ms": stretch[-1].begin_ms + BLOCK_MS,
        "stride": stride,
    }
    if only is not None:
        asked["only"] = list(only)
    shape = {"only": "" if only is None else _SQL["of_deployments"]}
    found = columns_of(inquiry.arrow("rows", {**fragments, **shape}, sql, **asked))
    order = in_order(found["instance"].codes, np.asarray(found["at_ms"]), np.asarray(found["key"]))
    return taken(found, order)
