"""Who asks the store: part of every reader, and of the key of every answer that is kept for others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["reader", "owner"]


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks.

    Attributes:
        role: As whom: ``owner`` may write.
        tenant: The one tenant whose rows are for him; "" for all.
    """

    role: Role = "reader"
    tenant: str = ""
