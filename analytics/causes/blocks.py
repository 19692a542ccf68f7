"""Requests' columns by minute, kept from one look to the next: what has not changed since is not read again.

A live window moves by seconds from look to look, and an account needs all of its requests. What the store is asked for
anew is a mark of each minute, over few columns; of minutes whose mark is another, the rows. So rows that come late, in
any order, are in the next look, and what is worked out of kept columns is what would be worked out of all read anew.

A minute into which rows came a moment ago is not kept: a second row of the same request might bear the same time.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from analytics.causes.columns import columns_of, joined, taken
from analytics.window import EVER
from base.named_sql import beside

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping, Sequence

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
    """A bounded memory of blocks, by who asked what, and by their marks. Threads may share it.

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

    def get(self, key: Hashable, mark: int) -> Columns | None:
        """Columns of a block whose mark is still that; None where they are not kept."""
        with self._guard:
            known, columns, _ = self._kept.get(key, (None, {}, 0))
            if known != mark:
                return None
            self._kept.move_to_end(key)
            return columns

    def put(self, key: Hashable, mark: int, columns: Columns, rows: int) -> None:
        """Keep the columns of a block, read after its mark was asked for."""
        with self._guard:
            self._rows += rows - self._kept.pop(key, (0, {}, 0))[2]
            self._kept[key] = (mark, columns, rows)
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


def rows_of(
    inquiry: Inquiry,
    fragments: Mapping[str, str],
    sql: Mapping[str, str],
    wanted: Sequence[Wanted],
    stride: int,
    blocks: Blocks = KEPT,
) -> Columns:
    """The columns of the statement ``rows`` over some blocks, in order of time: kept ones, and the others read.

    Args:
        inquiry: Who asks whom, and which requests are selected.
        fragments: Of the statement.
        sql: Where ``rows`` is; it takes ``reference_ms``, ``until_ms``, ``stride`` and ``only``.
        wanted: Blocks in order of time.
        stride: Every which request is read.
        blocks: What is kept.
    """
    if not wanted:
        return {}
    asked: dict[str, Any] = {"first_ms": wanted[0].begin_ms, "end_ms": wanted[-1].begin_ms + BLOCK_MS}
    marks = {
        int(row["begin_ms"]): (int(row["mark"]), bool(row["fresh"]))
        for row in inquiry.ask("marks", fragments, _SQL, block_ms=BLOCK_MS, fresh=FRESH_SECONDS, **asked)
    }
    # the selection decides what is told as selected; whose the window is does not
    whose = (inquiry.store.asker, replace(inquiry.selection, window=EVER), tuple(sorted(fragments.items())), stride)
    found: dict[int, Columns] = {}
    for one in wanted:
        kept = blocks.get((whose, one), marks[one.begin_ms][0]) if one.begin_ms in marks else None
        if kept is not None:
            found[one.begin_ms] = kept
    missing = [one for one in wanted if one.begin_ms in marks and one.begin_ms not in found]
    for stretch in _stretches(missing):
        read = _read(inquiry, fragments, sql, stretch, stride)
        minute = np.asarray(read["at_ms"], dtype=np.int64) // BLOCK_MS * BLOCK_MS
        order = np.argsort(minute, kind="stable")
        for one in stretch:
            first, last = np.searchsorted(minute[order], [one.begin_ms, one.begin_ms + 1])
            mine = taken(read, order[first:last])
            found[one.begin_ms] = mine
            mark, fresh = marks[one.begin_ms]
            if not fresh:
                blocks.put((whose, one), mark, mine, int(last - first))
    parts = [found[begin] for begin in sorted(found)]
    return joined(parts) if parts else _read(inquiry, fragments, sql, wanted[:1], stride)


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
    return columns_of(inquiry.arrow("rows", {**fragments, **shape}, sql, **asked))
