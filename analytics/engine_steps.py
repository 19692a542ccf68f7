"""Engine steps as those read them who ask for each: in order, whichever of a server's processes told of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from base.named_sql import beside

if TYPE_CHECKING:
    from collections.abc import Mapping

_SQL: Final = beside(__file__)


def in_order(first: str, last: str, whose: str) -> Mapping[str, str]:
    """Fragments by which ``/*in_order*/`` is a query of steps.

    Args:
        first: SQL of the time from which on.
        last: SQL of the time until which, itself left out.
        whose: SQL of a condition, with its ``AND``; "" for none.
    """
    return {**_SQL, "first": first, "last": last, "whose": whose}
