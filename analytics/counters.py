"""What an engine's counters of requests mean: whether *finished* counts the failed ones too is each engine's own.

SQL over ``engine_samples``. A counter of failures that a server does not show is unknown, and its requests then belong
to no share of failures. Where *finished* counts failures by their reason, a reason without a series is 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agent.engine_table import tables
from base.named_sql import beside, filled

if TYPE_CHECKING:
    from analytics.selection import Filter

_SQL: Final = beside(__file__)
_INCLUDING: Final = ", ".join(f"'{name}'" for name, table in sorted(tables().items()) if table.finished_includes_failed)
_ROUTERS: Final = ", ".join(f"'{name}'" for name, table in sorted(tables().items()) if table.role == "router")
_FAILED: Final = "requests_failed_delta"
_FINISHED: Final = "requests_finished_delta"

FAILED: Final = f"if(engine IN ({_INCLUDING}) AND {_FINISHED} IS NOT NULL, ifNull({_FAILED}, 0), {_FAILED})"
"""Failed requests of a sample; NULL where the server does not say."""
ENDED: Final = f"if(engine IN ({_INCLUDING}) OR {_FAILED} IS NULL, {_FINISHED}, ifNull({_FINISHED}, 0) + {_FAILED})"
"""Requests that ended, well or not, each once; NULL where the server counts none."""
JUDGED: Final = f"if(({FAILED}) IS NULL, NULL, {ENDED})"
"""Requests that ended at a server that says which of them failed: what a share of failures is of."""
FRAGMENTS: Final = {"failed_requests": FAILED, "ended_requests": ENDED, "judged_requests": JUDGED}
"""For the statements that count them."""


def once(chosen: Filter) -> str:
    """Condition that counts each request once: not at a router, where the window has other servers' samples.

    What a router hands on is on its servers' pages too, and the sum of both is twice what there was. A router that is
    asked for by instance or engine is shown, and so are routers whose servers nobody watches.
    """
    if chosen.instance or chosen.engine:
        return ""
    return " " + filled(_SQL["once"], {"routers": _ROUTERS})
