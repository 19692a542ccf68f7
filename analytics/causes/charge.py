"""The ledger of an account: what each request took above its reference, and who has been charged for it.

For every request ``actual − reference = charges + unexplained``. A charge is taken from what a phase took above its
reference and is still there, and never more than the request as a whole took above its reference: so nothing is charged
twice, no charge is below zero, and a request that was quick has none. What nobody is charged for keeps its sign.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from analytics.causes.table import PHASE, PHASES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from analytics.causes.arrays import Flags, Floats, Ints


class Part(NamedTuple):
    """Seconds of a cause that are somebody's, or nobody's.

    Attributes:
        rows: Requests that it is of.
        seconds: What each of all requests lost to it.
        who: Whose, as `evidence.Cause` has it.
        share: The share of the work that took the time.
        work: Which work that is; empty where it is none.
    """

    rows: Flags
    seconds: Floats
    who: dict[str, str]
    share: float
    work: str


class Ledger:
    """Seconds above the reference, and charges.

    Args:
        excess: ``(n, len(PHASES))`` seconds above the reference, signed; it is the ledger's from then on.
    """

    def __init__(self, excess: Floats) -> None:
        self.excess = excess.sum(axis=1)
        # a phase a row, so that what is taken of one lies together
        self._left = np.ascontiguousarray(excess.T)
        np.maximum(self._left, 0.0, out=self._left)
        self._room = np.maximum(self.excess, 0.0)
        # of a cause only the phases that it is charged in: most are charged in one or two
        self._charged: dict[str, dict[int, Floats]] = {}

    def left(self, phase: str, rows: Ints | slice = slice(None)) -> Floats:
        """Seconds of a phase above its reference that nobody is charged for, of all requests or of some."""
        left: Floats = np.minimum(self._left[PHASE[phase]][rows], self._room[rows])
        return left

    def take(
        self, cause: str, phases: Iterable[str], wanted: Floats | float, rows: Flags | Ints | slice = slice(None)
    ) -> Floats:
        """Charge a cause up to ``wanted`` seconds of each request, out of phases in turn.

        Args:
            cause: Its name.
            phases: In turn.
            wanted: Seconds, one for all or of each of ``rows``.
            rows: Requests that are charged: flags of all, or places without repetition.

        Returns:
            What was taken of each of ``rows``.
        """
        if isinstance(rows, np.ndarray) and rows.dtype == np.bool_:
            rows = np.flatnonzero(rows)
        room = self._room[rows]
        rest = np.maximum(np.broadcast_to(np.asarray(wanted, dtype=np.float64), room.shape), 0.0)
        taken = np.zeros(len(room))
        if not rest.any():
            return taken
        for phase in phases:
            column = self._left[PHASE[phase]]
            amount = np.minimum(np.minimum(column[rows], room), rest)
            if not amount.any():
                continue
            column[rows] -= amount
            room -= amount
            rest -= amount
            taken += amount
            self._held(cause, PHASE[phase])[rows] += amount
        self._room[rows] = room
        return taken

    def give_back(self, cause: str, where: Flags | None = None) -> None:
        """Undo a cause's charges: its seconds are nobody's again."""
        held = self._charged.get(cause)
        if held is None:
            return
        charged = self.of(cause) > 0
        rows = np.flatnonzero(charged if where is None else charged & where)
        back = np.zeros(len(rows))
        for phase, column in sorted(held.items()):
            back += column[rows]
            self._left[phase][rows] += column[rows]
            column[rows] = 0.0
        self._room[rows] += back
        if not any(column.any() for column in held.values()):
            del self._charged[cause]

    @property
    def causes(self) -> tuple[str, ...]:
        """Causes that are charged."""
        return tuple(self._charged)

    def charged(self, cause: str, rows: Flags | Ints | slice = slice(None)) -> Floats:
        """``(n, len(PHASES))`` seconds charged to a cause, of all requests or of some."""
        found = np.zeros((len(PHASES), len(self.excess[rows])))
        for phase, column in self._charged.get(cause, {}).items():
            found[phase] = column[rows]
        return found.T

    def sums(self, cause: str, rows: Flags) -> Floats:
        """Seconds of each of `PHASES` charged to a cause, in sum over some requests."""
        found = np.zeros(len(PHASES))
        for phase, column in self._charged.get(cause, {}).items():
            found[phase] = column[rows].sum()
        return found

    def charged_in(self, phase: str, rows: Ints | slice = slice(None)) -> Floats:
        """Seconds of a phase charged to all causes, of all requests or of some."""
        found = np.zeros(len(self.excess[rows]))
        for held in self._charged.values():
            if PHASE[phase] in held:
                found += held[PHASE[phase]][rows]
        return found

    def of(self, cause: str, rows: Ints | slice = slice(None)) -> Floats:
        """Seconds of each request charged to a cause, of all requests or of some."""
        found = np.zeros(len(self.excess[rows]))
        for _, column in sorted(self._charged.get(cause, {}).items()):
            found += column[rows]
        return found

    @property
    def unexplained(self) -> Floats:
        """Seconds above the reference that nobody is charged for, signed."""
        rest: Floats = self.excess.copy()
        for cause in self._charged:
            rest -= self.of(cause)
        return rest

    def _held(self, cause: str, phase: int) -> Floats:
        """Seconds of each request charged to a cause in a phase, to be added to."""
        held = self._charged.setdefault(cause, {})
        if phase not in held:
            held[phase] = np.zeros(len(self.excess))
        return held[phase]
