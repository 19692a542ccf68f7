"""The job that keeps references and charges, a period at a time: an account of each, written where others find it.

All state is in the store. A period that was kept twice counts once, as it was worked out last: its rows bear the time
of their account. Charges are written last, so that a period whose charges are there is whole; a job that was ended in
the middle does it again. Periods without a request leave no row and cost one statement.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from analytics.causes.account import account_of
from analytics.causes.advice import DRIVER
from analytics.causes.due import PERIOD_SECONDS
from analytics.causes.kept import kept_for, noise_rows, reference_rows
from analytics.causes.load import load
from analytics.causes.reference import calm_fits
from analytics.causes.table import PHASES
from analytics.causes.who import parts_of
from analytics.inquiry import Inquiry, Reader
from analytics.selection import Filter, Selection
from analytics.window import Window

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from analytics.causes.account import Account

_SUMS: Final = ("requests", "seconds", "reference_seconds")
_GROUPS: Final = ("deployment", "model", "instance", "tenant")
MOST_REQUESTS: Final = 100_000
"""Requests that one account reads; of more every k-th."""


class Keeper(Reader, Protocol):
    """A store that may write."""

    def insert(self, table: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Insert rows that have the same keys."""


def keep(store: Keeper, until: float) -> int:
    """Keep the period that ends at a time.

    Args:
        store: As its owner.
        until: Unix seconds, a multiple of `PERIOD_SECONDS`.

    Returns:
        Requests of the account.

    Raises:
        ServescopeError: The store is away, or refuses.
    """
    end = datetime.fromtimestamp(until, UTC)
    selection = Selection(Window(end - timedelta(seconds=PERIOD_SECONDS), end), Filter(recording="exclude"))
    inquiry = Inquiry(store, selection)
    kept = kept_for(inquiry)
    evidence = load(inquiry, MOST_REQUESTS, kept=kept.deployments)
    account = account_of(evidence, kept)
    now = datetime.now(UTC)
    since = datetime.fromtimestamp(evidence.origin_ms / 1000, UTC)
    span = {"since": since, "until": end}
    fits = [replace(fit, since=since, until=end) for fit in calm_fits(account.requests, kept)]
    noise = {key: one.with_(kept.noise_of(*key).at_most()) for key, one in account.noise.items()}
    store.insert("cause_references", [row | {"computed_at": now} for row in reference_rows(fits)])
    store.insert("cause_noise", [row | span | {"computed_at": now} for row in noise_rows(noise)])
    store.insert("cause_seconds", charges(account, selection.window.start, now))
    return int(account.counted.sum() * account.requests.scale)


def charges(account: Account, begin: datetime, now: datetime) -> list[dict[str, object]]:
    """Rows of ``cause_seconds``: what was charged of whom, and what all took above the reference (without a cause).

    The charges and what is unexplained sum to the excess of the same requests.
    """
    requests, counted, scale = account.requests, np.flatnonzero(account.counted), account.requests.scale
    columns = {name: getattr(requests, name) for name in _GROUPS}
    group = np.zeros(len(counted), dtype=np.int64)
    for column in columns.values():
        group = group * (len(column.names) + 1) + column.codes[counted]
    _, first, group = np.unique(group, return_index=True, return_inverse=True)
    whose = [{name: of.names[of.codes[place]] for name, of in columns.items()} for place in counted[first]]
    same: dict[str, object] = {"time": begin, "computed_at": now}
    nobody = {f"by_{name}": "" for name in ("tenant", "instance", "version", "gpu")}
    blank = {"cause": "", "phase": "", "driver": "", **nobody}
    sums = [np.bincount(group, column[counted], len(whose)) * scale for column in (account.ledger.excess, requests.e2e)]
    many = np.bincount(group, minlength=len(whose)) * scale
    rows = [
        same | one | blank | {"requests": float(n), "seconds": float(above), "reference_seconds": float(took - above)}
        for one, n, above, took in zip(whose, many, *sums, strict=True)
    ]
    for cause in account.ledger.causes:
        held = account.ledger.charged(cause, counted)
        most = held.argmax(axis=1)  # a request counts once, where it lost most
        for part in parts_of(account, cause, account.counted):
            mine = part.rows[counted]
            who = nobody | {f"by_{name}": value for name, value in part.who.items()}
            for column, phase in enumerate(PHASES):
                seconds = np.bincount(group, held[:, column] * mine, len(whose)) * scale
                hit = np.bincount(group, mine & (held[:, column] > 0) & (most == column), len(whose)) * scale
                rows += [
                    same | whose[place] | who | {"cause": cause, "phase": phase, "driver": DRIVER[cause],
                    "requests": float(hit[place]), "seconds": float(seconds[place]), "reference_seconds": 0.0}
                    for place in np.flatnonzero(seconds > 0)
                ]  # fmt: skip
    # a period of which nothing can be said is kept too, else it were due for ever
    return rows or [same | dict.fromkeys(_GROUPS, "") | blank | dict.fromkeys(_SUMS, 0.0)]
