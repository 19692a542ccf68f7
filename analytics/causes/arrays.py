"""Types of arrays that the account is made of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


def present(codes: Ints) -> Ints:
    """Codes that are there, in order; none is below −1."""
    return np.flatnonzero(np.bincount(codes + 1)) - 1
