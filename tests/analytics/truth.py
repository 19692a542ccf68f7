"""The same questions answered from the raw rows in plain Python: nothing here reads the product's SQL."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from base.vocabulary import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

BAD = {
    *(Outcome.REJECTED, Outcome.SERVER_ERROR, Outcome.UPSTREAM_RESET, Outcome.UNREACHABLE, Outcome.TIMEOUT),
}
GOT_A_TOKEN = {"ok", "client_abort", "upstream_reset", "timeout"}
WAITED = {"ok", "timeout"}


def latency(row: dict[str, Any], signal: str) -> float | None:
    """A request's latency, None where it has none."""
    outcome = row["outcome"] if row["has_edge"] else "ok"
    tokens = row["completion_tokens"] - 1
    engine = bool(row["has_engine"])
    has = {
        "ttft_seconds": row["ttft_seconds"] > 0 and outcome in GOT_A_TOKEN,
        "e2e_seconds": row["e2e_seconds"] > 0 and outcome in WAITED,
        **dict.fromkeys(("itl_mean_seconds", "itl_p99_seconds", "itl_max_seconds"), row["itl_gaps"] > 0),
        "edge_seconds": bool(row["has_edge"]),
        "queue_seconds": engine,
        **dict.fromkeys(("prefill_seconds", "decode_seconds", "stall_seconds"), engine and row["prefill_seconds"] > 0),
        **{
            f"compute_{part}_seconds": engine and row["compute_infer_seconds"] > 0
            for part in ("input", "infer", "output")
        },
    }
    if signal != "tpot_seconds":
        return row[signal] if has[signal] else None
    if tokens < 1 or outcome not in WAITED:
        return None
    if row["has_edge"] and row["stream"] and 0 < row["ttft_seconds"] <= row["e2e_seconds"]:
        return (row["e2e_seconds"] - row["ttft_seconds"]) / tokens
    return row["decode_seconds"] / tokens if engine and row["decode_seconds"] > 0 else None


def latencies(rows: Iterable[dict[str, Any]], signal: str) -> list[float]:
    return [value for row in rows if (value := latency(row, signal)) is not None]


def quantile(values: list[float], q: float) -> float:
    """Linear between the two nearest order statistics (Hyndman & Fan, type 7)."""
    ordered = sorted(values)
    rank = q * (len(ordered) - 1)
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (rank - low)


def grouped(rows: Iterable[dict[str, Any]], key: Callable[[dict[str, Any]], Any]) -> dict[Any, list[dict[str, Any]]]:
    found: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        found[key(row)].append(row)
    return dict(found)


def place(times: list[datetime], step: int, moment: datetime) -> int:
    """Which step a moment belongs to."""
    return math.floor((moment - times[0]).total_seconds() / step)


def by_step(rows: Iterable[dict[str, Any]], times: list[datetime], step: int) -> dict[int, list[dict[str, Any]]]:
    return grouped(rows, lambda row: place(times, step, row["time"]))


def inside_rate(amount: float, times: list[datetime], step: int, at: int, window: Any) -> float:
    """An amount of one step per second of the step that lies in the window."""
    start = max(times[at].timestamp(), window.start.timestamp())
    end = min(times[at].timestamp() + step, window.end.timestamp())
    return amount / (end - start)
