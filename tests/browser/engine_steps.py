"""Engine steps for the browser tests: of a server bound by its sequences, then by its KV blocks, resting at times."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

    from collector.store.client import Store


def fill_steps(store: Store, now: datetime, instance: str, seconds: int, recording: str = "") -> None:
    """Steps of one engine core up to ``now``, with the limits that they keep to."""
    chance = random.Random(3)
    start = now - timedelta(seconds=seconds)
    rows: list[dict[str, Any]] = []
    at, counter = 0.0, 0
    while at < seconds:
        counter += 1
        share = at / seconds
        prefill = chance.choice([0, 0, 0, chance.randrange(20, 500)])
        running = min(16, 4 + round(24 * share)) if share < 0.8 else chance.randrange(2, 8)
        elapsed = 0.02 + running * 0.0006 + prefill * 0.0002 + chance.random() * 0.004
        at += elapsed
        rests = counter % 500 == 0
        full = 0.6 < share < 0.8
        rows.append({
            "time": start + timedelta(seconds=at), "instance": instance, "deployment": "chat", "engine": "vllm",
            "model": "llama", "dp_rank": "0", "recording": recording, "pid": 7, "counter": counter,
            "running": 0 if rests else running, "waiting": 0 if rests or share < 0.4 or share > 0.8 else 5,
            "finished": running if rests else 0, "preemptions": int(full and counter % 9 == 0),
            "kv_cache_usage_ratio": 0.96 if full else 0.3 + 0.4 * share, "prefill_requests": int(prefill > 0),
            "prefill_tokens": prefill, "decode_requests": running, "decode_tokens": running, "prompt_tokens": prefill,
            "generation_tokens": running, "elapsed_seconds": elapsed,
        })  # fmt: skip
        at += chance.uniform(2, 8) if rests else 0.0
    store.insert("engine_steps", rows)
    store.insert("instance_config", [{
        "time": start - timedelta(seconds=5), "instance": instance, "engine": "vllm", "recording": recording,
        "config": {"max_num_seqs": "16", "max_num_batched_tokens": "512"},
    }])  # fmt: skip
