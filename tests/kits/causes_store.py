"""Simulated requests and steps as rows of a store."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

    from tests.kits.causes_sim import Ask, Server


def stored(one: Ask, number: int, start: datetime, name: str) -> dict[str, Any]:
    """The engine's record of a request; `name` is its deployment's, and makes its ids its own."""
    seconds = {
        "queue_seconds": one.started - one.at,
        "prefill_seconds": one.first - one.started,
        "decode_seconds": one.last - one.first,
        "engine_ttft_seconds": one.first - one.at,
        "engine_e2e_seconds": one.last - one.at,
    }
    engine = {"model": "m", "instance": one.instance, "deployment": name, "version": "1", "outcome": "ok"}
    return {
        "time": start + timedelta(seconds=one.at),
        "key": (int((start + timedelta(seconds=one.at)).timestamp() * 1000) << 22) | number,
        "trace_id": f"{name}{number:012d}",
        "engine": "vllm",
        "prompt_tokens": one.prompt,
        "cached_tokens": one.cached,
        "completion_tokens": one.made,
        "has_engine": 1,
        **seconds,
        **{f"engine_{column}": value for column, value in engine.items()},
        "engine_request_id": f"{name}-{number}",
    }


def stored_steps(server: Server, start: datetime) -> list[dict[str, Any]]:
    """Each step of a server, as its probe tells it."""
    return [
        {
            "time": start + timedelta(seconds=step["done"]),
            "instance": server.name, "model": "m", "dp_rank": "0", "pid": 7, "counter": number,
            "running": int(step["running"]), "waiting": int(step["waiting"]), "deferred": 0,
            "kv_cache_usage_ratio": step["kv"], "preemptions": int(step["preempted"]),
            "prefill_tokens": int(step["prefilled"]), "decode_tokens": int(step["decoded"]),
            "elapsed_seconds": step["took"],
            **({"generation_tokens": int(step["generated"]), "drafts": int(step["drafts"]),
                "accepted_tokens": int(step["accepted"])} if server.accepts else {}),
        }
        for number, step in enumerate(server.steps)
    ]  # fmt: skip
