"""Slots of samples, of a span: kept ones of minutes that have not changed, and the others read (`blocks`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from analytics.causes.blocks import BLOCK_MS, KEPT, Wanted, kept_blocks
from analytics.causes.columns import Names, columns_of, floats, joined, taken

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from analytics.causes.arrays import Floats
    from analytics.causes.blocks import Fingerprints
    from analytics.causes.columns import Columns
    from analytics.inquiry import Inquiry

APART_MS: Final = 60_000
"""Milliseconds between two samples of a process, three slots at least, from which nobody knows what it did between."""
_PROCESS: Final = ("name", "node", "recording", "process", "pid")


def slots_of(
    inquiry: Inquiry,
    statement: tuple[str, Mapping[str, str], Mapping[str, str]],
    span: tuple[int, int],
    slot_ms: int,
    fingerprints: Fingerprints,
    **more: Any,
) -> dict[str, Any]:
    """Columns of a statement that makes slots of a table's rows, in any order.

    Args:
        inquiry: Who asks whom.
        statement: Its name, which is the table's among the fingerprints, its fragments, and where it is. It takes
            ``reference_ms``, ``to_ms``, ``slot_ms`` and ``limit``; each row has the ``at_ms`` of a sample of its slot.
        span: From when on, and until when, Unix ms.
        slot_ms: Milliseconds of a slot.
        fingerprints: Of the span.
        more: What else it takes, ``limit`` among it.
    """
    name, fragments, sql = statement
    first, last = span

    def read(since: int, until: int) -> dict[str, Any]:
        asked: dict[str, Any] = {"reference_ms": since, "to_ms": until, "slot_ms": slot_ms, **more}
        return columns_of(inquiry.arrow(name, fragments, sql, **asked))

    if any(at % slot_ms for at in (BLOCK_MS, first, last)):  # what an end or a minute cuts is another slot
        return read(first, last)
    wanted = [Wanted(at) for at in range(first // BLOCK_MS * BLOCK_MS, last, BLOCK_MS)]
    given = tuple((key, tuple(value) if isinstance(value, list) else value) for key, value in sorted(more.items()))

    def read_all(stretch: Sequence[Wanted]) -> Columns:
        return read(stretch[0].begin_ms, stretch[-1].begin_ms + BLOCK_MS)

    parts = kept_blocks((name, fingerprints.whose, slot_ms, given), wanted, fingerprints.of.get(name, {}), read_all)
    if not parts:
        return read(first, first)
    found = joined(parts)
    at = floats(found["at_ms"])
    if len(at) >= more["limit"]:  # of too many some are left out, which goes by all of the span
        return read(first, last)
    return {
        column: of.used() if isinstance(of, Names) else of
        for column, of in taken(found, np.flatnonzero((at >= first) & (at < last))).items()
    }


def remembered(
    inquiry: Inquiry,
    statement: tuple[str, Mapping[str, str], Mapping[str, str]],
    part: str,
    fingerprints: Fingerprints,
    **asked: Any,
) -> list[dict[str, Any]]:
    """Rows of a statement over the whole span: none asked for where there is nothing, kept where nothing has changed.

    Args:
        inquiry: Who asks whom.
        statement: Its name, its fragments, and where it is.
        part: Of the fingerprints, which are of all rows that it may look at.
        fingerprints: Of the span.
        asked: What it takes; what is a list decides on its answer beside the rows.
    """
    name, fragments, sql = statement
    if not fingerprints.n(part):
        return []
    fingerprint = fingerprints.of[part][0]
    key = (name, fingerprints.whose, tuple(tuple(value) for value in asked.values() if isinstance(value, list)))
    kept = KEPT.get(key, fingerprint.value)
    if kept is not None:
        return list(kept["rows"])
    rows = inquiry.ask(name, fragments, sql, **asked)
    if not fingerprint.fresh:
        KEPT.put(key, fingerprint.value, {"rows": rows}, len(rows))
    return rows


def rates_of(row: Columns, slot_ms: int) -> dict[str, Any]:
    """Columns of processes, in place of their counters what these grew by in a second: ``cpu`` and ``delay``.

    NaN where the sample before is unknown or long ago.

    Args:
        row: Of `load.hosts`: counters ``cpu_s`` and ``delay_s``, and whose.
        slot_ms: Milliseconds of a slot.
    """
    at = np.asarray(row["at_ms"], dtype=np.int64)
    process = np.zeros(len(at), dtype=np.int64)
    for name in _PROCESS:
        texts = Names.of(row[name])
        process = process * (len(texts.names) + 1) + texts.codes
    order = np.lexsort((at, process))
    passed = np.diff(at[order])
    follows = (process[order][1:] == process[order][:-1]) & (passed > 0) & (passed < max(APART_MS, 3 * slot_ms))
    found = taken({name: of for name, of in row.items() if name not in {"cpu_s", "delay_s"}}, order)
    return found | {
        name: _grew(floats(row[f"{name}_s"])[order], np.where(follows, passed, np.nan)) for name in ("cpu", "delay")
    }


def _grew(counter: Floats, passed: Floats) -> Floats:
    """What a counter grew by in a second since the row before, over milliseconds that passed; NaN for the first."""
    return np.concatenate([np.full(min(len(counter), 1), np.nan), np.diff(counter) / passed * 1000])
