"""The ledger of an account: what each request took above its reference, and who has been charged for it.

For every request ``actual − reference = charges + unexplained``. A charge is taken from what a phase took above its
reference and is still there, and never more than the request as a whole took above its reference: so nothing is charged
twice, no charge is below zero, and a request that was quick has none. What nobody is charged for keeps its sign.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from analytics.causes.table import PHASE, PHASES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from analytics.causes.arrays import Flags, Floats


class Ledger:
    """Seconds above the reference, and charges.

    Args:
        excess: ``(n, len(PHASES))`` seconds above the reference, signed.
    """

    def __init__(self, excess: Floats) -> None:
        self.excess = excess.sum(axis=1)
        self._left = np.maximum(excess, 0.0)
        self._room = np.maximum(self.excess, 0.0)
        self._charged: dict[str, Floats] = {}

    def left(self, phase: str) -> Floats:
        """Seconds of a phase above its reference that nobody is charged for."""
        left: Floats = np.minimum(self._left[:, PHASE[phase]], self._room)
        return left

    def take(self, cause: str, phases: Iterable[str], wanted: Floats | float, where: Flags | None = None) -> Floats:
        """Charge a cause up to ``wanted`` seconds of each request, out of phases in turn.

        Returns:
            What was taken of each.
        """
        n = len(self.excess)
        rest = np.maximum(np.broadcast_to(np.asarray(wanted, dtype=np.float64), (n,)), 0.0).copy()
        if where is not None:
            rest[~where] = 0.0
        taken = np.zeros(n)
        for phase in phases:
            column = PHASE[phase]
            amount = np.minimum(np.minimum(self._left[:, column], self._room), rest)
            if not amount.any():
                continue
            self._left[:, column] -= amount
            self._room -= amount
            rest -= amount
            taken += amount
            self._charged.setdefault(cause, np.zeros((n, len(PHASES))))[:, column] += amount
        return taken

    def give_back(self, cause: str, where: Flags | None = None) -> None:
        """Undo a cause's charges: its seconds are nobody's again."""
        held = self._charged.get(cause)
        if held is None:
            return
        back = held if where is None else held * where[:, None]
        self._left += back
        self._room += back.sum(axis=1)
        if where is None or not held[~where].any():
            del self._charged[cause]
        else:
            held[where] = 0.0

    @property
    def causes(self) -> tuple[str, ...]:
        """Causes that are charged."""
        return tuple(self._charged)

    def charged(self, cause: str) -> Floats:
        """``(n, len(PHASES))`` seconds charged to a cause."""
        return self._charged.get(cause, np.zeros((len(self.excess), len(PHASES))))

    def of(self, cause: str) -> Floats:
        """Seconds of each request charged to a cause."""
        seconds: Floats = self.charged(cause).sum(axis=1)
        return seconds

    @property
    def unexplained(self) -> Floats:
        """Seconds above the reference that nobody is charged for, signed."""
        rest: Floats = self.excess.copy()
        for held in self._charged.values():
            rest -= held.sum(axis=1)
        return rest
