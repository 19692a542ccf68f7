"""Who harms whom: seconds of an account that one tenant's work took from another's requests.

The driver is the tenant that a charge names (`Cause.who`) of the causes in which work takes others' time
(`advice.SHARED`); the victim is the tenant of the request that lost the seconds. A tenant that waits for its own work
is driver and victim both. So the seconds of a cause's pairs sum to its charge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from analytics.causes.advice import SHARED
from analytics.causes.who import parts_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from analytics.causes.account import Account
    from analytics.causes.arrays import Flags
    from analytics.causes.evidence import Cause

MOST: Final = 200
"""Pairs that are told; what the rest lost is told as one sum."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Seconds that a tenant's work took from requests of a tenant, by one cause.

    Attributes:
        driver: Whose work took them.
        victim: Whose requests lost them; the driver itself where it waited for its own work, empty for requests
            without a tenant.
        cause: Name of the cause.
        seconds: In sum over the victim's requests.
        requests: How many of them lost any.
    """

    driver: str
    victim: str
    cause: str
    seconds: float
    requests: int


@dataclass(frozen=True, slots=True)
class Harm:
    """Who harms whom.

    Attributes:
        pairs: Most seconds first.
        unlisted_seconds: What pairs lost that are not listed.
        nobodys_seconds: Charges of the same causes in which no tenant's work stands out.
    """

    pairs: list[Pair]
    unlisted_seconds: float = 0.0
    nobodys_seconds: float = 0.0


def harm_of(account: Account, causes: Iterable[Cause], rows: Flags, most: int = MOST) -> Harm:
    """Seconds by driver, victim and cause.

    Args:
        account: The account.
        causes: Its causes, as told of ``rows``.
        rows: Requests whose seconds are looked at.
        most: Pairs that are listed.
    """
    requests = account.requests
    pairs: list[Pair] = []
    nobodys = 0.0
    for cause in sorted({one.cause for one in causes} & SHARED.keys()):
        for part in parts_of(account, cause, rows):
            driver = part.who.get("tenant", "")
            if not driver:
                nobodys += float(part.seconds.sum()) * requests.scale
                continue
            names = requests.tenant.names
            seconds = np.bincount(requests.tenant.codes, part.seconds, len(names)) * requests.scale
            hit = np.bincount(requests.tenant.codes, part.seconds > 0, len(names)) * requests.scale
            pairs += [
                Pair(driver, names[place], cause, float(seconds[place]), round(float(hit[place])))
                for place in np.flatnonzero(seconds > 0)
            ]
    pairs.sort(key=lambda pair: (-pair.seconds, pair.driver, pair.victim, pair.cause))
    return Harm(pairs[:most], sum(pair.seconds for pair in pairs[most:]), nobodys)
