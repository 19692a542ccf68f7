"""What the metrics pages of servers would have said of requests that are known one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from analytics.causes.cohorts import cohorts
from analytics.causes.table import PHASE

if TYPE_CHECKING:
    from analytics.causes.table import Evidence, Requests

ENGINE = ("queue", "prefill", "decode", "compute_input", "compute_infer", "compute_output", "stall", "frontend")
"""Phases that lie inside of a server."""


def pages(requests: Requests, origin_ms: int, *, seconds: bool = True, split: bool = True) -> dict[str, list[Any]]:
    """The row of arrays that `causes.finishers` would be, a page a second.

    Without ``seconds`` pages have none, without ``split`` those of queue and first token alone, as SGLang's.
    """
    inside = requests.phases[:, [PHASE[name] for name in ENGINE]].sum(axis=1)
    found: dict[tuple[str, str, str, int], list[int]] = {}
    for row in np.flatnonzero(requests.whole):
        names = (requests.instance, requests.model, requests.version)
        key = tuple(column.names[column.codes[row]] for column in names)
        found.setdefault((*key, int(requests.start[row] + inside[row]) + 1), []).append(int(row))  # type: ignore[arg-type]
    told: list[dict[str, Any]] = []
    for (instance, model, version, second), rows in sorted(found.items()):
        prompt = float(requests.prompt[rows].sum())
        one: dict[str, Any] = {
            f"{name}_s": float(requests.phases[rows, PHASE[name]].sum()) if seconds else float("nan")
            for name in ENGINE[:6]
        }
        decodes = requests.phases[rows, PHASE["decode"]].any()
        first = requests.phases[rows][:, [PHASE["queue"], PHASE["prefill"], PHASE["stall"]]].sum(axis=1).mean()
        if not split:
            one |= {"prefill_s": float("nan"), "decode_s": float("nan")}
        told.append(one | {
            "at_ms": origin_ms + second * 1000, "selected": 1, "interval": 1.0, "n": len(rows),
            "e2e_s": float(inside[rows].sum()) if seconds else float("nan"),
            "waiting_s": float(requests.phases[rows, PHASE["queue"]].sum()),
            "running_s": float(inside[rows].sum() - requests.phases[rows, PHASE["queue"]].sum()),
            "first": float(first) if seconds and decodes else float("nan"),
            "asked": prompt, "hits": float(requests.cached[rows].sum()), "prompt": prompt / len(rows),
            "output": float(requests.output[rows].mean()), "instance": instance, "model": model, "version": version,
            "deployment": requests.deployment.names[requests.deployment.codes[rows[0]]],
            "engine": requests.engine.names[requests.engine.codes[rows[0]]],
        })  # fmt: skip
    return {name: [one[name] for one in told] for name in told[0]}


def by_pages(evidence: Evidence, origin_ms: int, from_ms: int, to_ms: int, **options: bool) -> Evidence:
    """The same evidence, of requests that nobody saw one by one."""
    row = pages(evidence.requests, origin_ms, **options)
    return replace(evidence, requests=cohorts(row, origin_ms, from_ms, to_ms, 400_000))
