"""Columns of an answer as arrays: numbers as they are, texts as codes.

What a store sends as Arrow becomes numpy arrays without a Python object a value; a text comes once, and its rows as
places in a dictionary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from analytics.causes.arrays import Flags, Floats, Ints

    Columns = Mapping[str, Any]
    """By name: numbers as an array or list, texts as `Names` or a list."""


@dataclass(frozen=True)
class Names:
    """A column of texts as codes: ``codes[i]`` is the place of a row's text in ``names``.

    Names are in order, whatever order a store hands its rows out in: estimates go by the order of kinds and instances.
    """

    codes: Ints
    names: tuple[str, ...]

    @classmethod
    def of(cls, texts: Names | Sequence[object]) -> Names:
        """From the texts; what is one already stays."""
        if isinstance(texts, Names):
            return texts
        codes, names = pd.factorize(np.asarray(texts, dtype=object))
        return cls.in_order(np.asarray(codes, dtype=np.int64), [str(name) for name in names])

    @classmethod
    def in_order(cls, codes: Ints, names: Sequence[str]) -> Names:
        """From codes, −1 for none, and distinct names in any order."""
        order = sorted(range(len(names)), key=names.__getitem__)
        places = np.full(len(names) + 1, -1, dtype=np.int64)
        places[order] = np.arange(len(names))
        return cls(places[codes], tuple(names[place] for place in order))

    def used(self) -> Names:
        """The same without texts that no row has."""
        there = np.bincount(self.codes[self.codes >= 0], minlength=len(self.names)) > 0
        if there.all():
            return self
        return Names.in_order(
            np.append(np.cumsum(there) - 1, -1)[self.codes],
            [name for name, has in zip(self.names, there, strict=True) if has],
        )

    def reordered(self, order: Ints) -> Names:
        """The same texts in another order."""
        return Names(self.codes[order], self.names)

    @classmethod
    def joined(cls, parts: Sequence[Names]) -> Names:
        """Rows of several after one another."""
        every = sorted({name for part in parts for name in part.names})
        place = {name: code for code, name in enumerate(every)}
        codes = [np.array([*(place[name] for name in part.names), -1], dtype=np.int64)[part.codes] for part in parts]
        return cls(np.concatenate(codes), tuple(every))

    def among(self, wanted: Sequence[str]) -> Flags:
        """Which rows have one of some texts."""
        return np.array([*(name in wanted for name in self.names), False])[self.codes]

    def __len__(self) -> int:
        return len(self.codes)


def columns_of(table: pa.Table) -> dict[str, Any]:
    """Columns of an Arrow table by name: arrays, and `Names` where it has a dictionary."""
    whole = table.unify_dictionaries().combine_chunks()
    return {name: _column(whole.column(name)) for name in whole.column_names}


def taken(columns: Columns, rows: Ints) -> dict[str, Any]:
    """Some rows of all columns, which hold nothing of the others."""
    return {
        name: Names(of.codes[rows], of.names) if isinstance(of, Names) else np.asarray(of)[rows]
        for name, of in columns.items()
    }


def joined(parts: Sequence[Columns]) -> dict[str, Any]:
    """Rows of several with the same columns after one another; texts that no row has are left out."""
    found: dict[str, Any] = {}
    for name, first in parts[0].items():
        of = [part[name] for part in parts]
        found[name] = Names.joined(of).used() if isinstance(first, Names) else np.concatenate(of)
    return found


def floats(values: Sequence[Any]) -> Floats:
    """Numbers as an array."""
    return np.asarray(values, dtype=np.float64)


def _column(column: pa.ChunkedArray) -> Any:
    values = column.chunk(0) if column.num_chunks else column.combine_chunks()
    if not hasattr(values, "dictionary"):
        return values.to_numpy(zero_copy_only=False)
    # an engine's dictionary has texts that no row has
    codes, used = pd.factorize(values.indices.to_numpy(zero_copy_only=False))
    texts = values.dictionary.to_pylist()
    return Names.in_order(np.asarray(codes, dtype=np.int64), [str(texts[place]) for place in used])
