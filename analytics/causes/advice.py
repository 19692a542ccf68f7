"""What to turn for each cause, what drives it, whose work it is measured by, and what people call it."""

from __future__ import annotations

from typing import Final

DRIVER: Final = {
    "longer_prompts": "own_work",
    "longer_outputs": "own_work",
    "cold_prefix_cache": "own_work",
    "deploy": "version",
    "slow_instance": "instance",
    "model_slow": "compute",
    "gpu_throttled": "gpu_clock",
    "spec_acceptance_drop": "acceptance",
    "kv_transfer": "interconnect",
    "lora_slots": "adapter_slots",
    "kv_cache_full": "kv_tokens_held",
    "preemption": "kv_tokens_held",
    "prefill_interference": "prompt_tokens_computed",
    "batch_interference": "sequences_decoded",
    "queue_saturated": "requests_inside",
    "retry_storm": "requests_inside",
    "router_imbalance": "routing",
    "gpu_fault": "gpu",
    "engine_frozen": "process",
    "cpu_starved": "host_cpu",
    "frontend_cpu": "frontend_process",
    "restart": "process",
    "cold_start": "process",
    "slow_client": "reader",
    "upstream_error": "failures",
}
"""What took the time, by cause."""
STAGES: Final = ("work", "rate", "contention", "failure")
"""Parts of the account that causes belong to, in its order (docs/causes.md)."""
_STAGE_OF: Final = {
    "own_work": "work",
    **dict.fromkeys(("version", "instance", "compute", "gpu_clock", "acceptance"), "rate"),
    "failures": "failure",
}
NAMES: Final = {
    "longer_prompts": "longer prompts",
    "longer_outputs": "longer answers",
    "cold_prefix_cache": "cold prefix cache",
    "deploy": "slower version",
    "slow_instance": "slow instance",
    "model_slow": "slow model",
    "gpu_throttled": "GPU slowed down",
    "spec_acceptance_drop": "fewer drafted tokens accepted",
    "kv_transfer": "KV transfers",
    "lora_slots": "no slot for the adapter",
    "kv_cache_full": "KV cache full",
    "preemption": "preemptions",
    "prefill_interference": "others' prompts",
    "batch_interference": "larger batches",
    "queue_saturated": "queue saturated",
    "retry_storm": "retry storm",
    "router_imbalance": "uneven routing",
    "gpu_fault": "GPU fault",
    "engine_frozen": "engine stood still",
    "cpu_starved": "starved of CPU",
    "frontend_cpu": "front-end process busy",
    "restart": "restart",
    "cold_start": "cold start",
    "slow_client": "slow readers",
    "upstream_error": "failed requests",
}
"""What people call a cause."""
ONSETS: Final = {
    "gpu_fault": "a GPU fault",
    "oom_kill": "a process killed for want of memory",
    "deploy": "a deploy",
    "config_changed": "a changed configuration",
    "restart": "a restart",
    "engine_frozen": "a stand-still",
    "instance_left": "an instance that left",
    "kv_cache_full": "a full KV cache",
}
"""What failures may begin with, in words; of several at once the first, since it brings the later ones about."""
SHARED: Final = {
    "kv_cache_full": "held",
    "preemption": "held",
    "prefill_interference": "prefilled",
    "cold_prefix_cache": "prefilled",
    "batch_interference": "decoding",
    "queue_saturated": "inside",
    "retry_storm": "inside",
}
"""Causes in which some work took time, others' mostly, and which work (`Place.by_tenant`)."""
ADVICE: Final = {
    "longer_prompts": (
        "Bound the prompt (max-model-len, max_tokens of retrieval), or route long ones apart.",
        "slow-work-change.md",
    ),
    "longer_outputs": (
        "Bound max_tokens; check what changed in the callers' prompts.",
        "slow-work-change.md",
    ),
    "cold_prefix_cache": (
        "Keep the shared part first and unchanged in prompts; route sessions to one replica.",
        "prefix-cache-collapse.md",
    ),
    "deploy": (
        "Roll back, or compare the two versions' settings.",
        "slow-rate-change.md",
    ),
    "slow_instance": (
        "Take the instance out of rotation and look at its GPU and host.",
        "slow-rate-change.md",
    ),
    "model_slow": (
        "Profile the model; add instances of it (instance_group) or batch it (dynamic_batching).",
        "slow-rate-change.md",
    ),
    "gpu_throttled": (
        "Cool the machine or raise the GPU's power limit; move load off the instance until its clock is back.",
        "slow-gpu.md",
    ),
    "spec_acceptance_drop": (
        "See what is asked for now that the draft does not foresee; draft fewer tokens, or turn speculation off.",
        "slow-speculation.md",
    ),
    "kv_transfer": (
        "Look at the network between the servers that compute prompts and those that decode.",
        "slow-kv-transfer.md",
    ),
    "lora_slots": (
        "Let more adapters run at one time, or send those of an adapter to a replica of their own.",
        "slow-adapters.md",
    ),
    "gpu_fault": (
        "Take the instance out of rotation, drain it and reset or replace the GPU by what the Xid says.",
        "gpu-fault.md",
    ),
    "kv_cache_full": (
        (
            "Limit the tenant's concurrency or max-num-seqs; give the cache more memory (gpu-memory-utilization) "
            "or another replica."
        ),
        "kv-cache-full.md",
    ),
    "preemption": (
        "As for a full KV cache: fewer sequences (max-num-seqs) or more blocks.",
        "preemption-storm.md",
    ),
    "prefill_interference": (
        ("Lower max-num-batched-tokens so that prompts go in smaller chunks; limit the tenant; or prefill apart."),
        "slow-interference.md",
    ),
    "batch_interference": (
        "Lower max-num-seqs, or add a replica.",
        "slow-interference.md",
    ),
    "queue_saturated": (
        "Add replicas, or let more in at once (max-num-seqs; Triton: instance_group) while cache and gaps allow it.",
        "engine-waiting.md",
    ),
    "retry_storm": (
        "Have clients back off with jitter; refuse early instead of late.",
        "error-burst.md",
    ),
    "router_imbalance": (
        "Route by load (least outstanding requests) instead of in turn or by hash.",
        "slow-routing.md",
    ),
    "engine_frozen": (
        "Look at the engine process (py-spy, dmesg); restart it if it stays still.",
        "engine-wedged.md",
    ),
    "cpu_starved": (
        "Give the server CPUs of its own (cpuset, requests = limits); move what competes.",
        "slow-cpu.md",
    ),
    "frontend_cpu": (
        "More API server processes (api-server-count); less work a token (stream-interval).",
        "slow-cpu.md",
    ),
    "restart": (
        "See why it went down; drain before a restart.",
        "instance-down.md",
    ),
    "cold_start": (
        "Warm a server up before it gets traffic.",
        "slow-cold-start.md",
    ),
    "slow_client": (
        "Nothing to mend at the server: these clients read slowly.",
        "slow-client.md",
    ),
    "upstream_error": (
        "See which errors, whose and since when.",
        "error-burst.md",
    ),
}
"""What to turn, and the page of `docs/runbooks`, by cause."""

_TURNED: Final = {
    "sglang": {
        "kv_cache_full": (
            "Limit the tenant's concurrency or max-running-requests; give the cache more memory (mem-fraction-static) "
            "or another replica."
        ),
        "preemption": "As for a full KV cache: fewer requests (max-running-requests) or more memory.",
        "prefill_interference": (
            "Lower chunked-prefill-size so that prompts go in smaller chunks; limit the tenant; or prefill apart."
        ),
        "batch_interference": "Lower max-running-requests, or add a replica.",
        "queue_saturated": (
            "Add replicas, or let more in at once (max-running-requests) while cache and gaps allow it."
        ),
        "spec_acceptance_drop": (
            "See what is asked for now that the draft does not foresee; draft fewer tokens "
            "(speculative-num-draft-tokens, speculative-num-steps), or turn speculation off."
        ),
        "kv_transfer": (
            "Look at the network between prefill and decode servers (disaggregation-transfer-backend, "
            "disaggregation-ib-device)."
        ),
        "lora_slots": (
            "Let more adapters run at one time (max-loras-per-batch), or send those of an adapter to a replica of "
            "their own."
        ),
    },
    "triton": {
        "batch_interference": (
            "Bound the batch (max_batch_size, dynamic_batching), add instances of the model (instance_group), or a "
            "replica."
        ),
        "queue_saturated": (
            "Add instances of the model (instance_group) or batch it (dynamic_batching), or add replicas."
        ),
    },
    "vllm": {
        "queue_saturated": (
            "Add replicas, or let more in at once (max-num-seqs) while cache and gaps allow it."
        ),
        "spec_acceptance_drop": (
            "See what is asked for now that the draft does not foresee; draft fewer tokens "
            "(speculative-config: num_speculative_tokens), or turn speculation off."
        ),
        "kv_transfer": (
            "Look at the network between the servers that compute prompts and those that decode "
            "(kv-transfer-config; NIXL's UCX transports)."
        ),
        "lora_slots": (
            "Let more adapters run at one time (max-loras), or send those of an adapter to a replica of their own."
        ),
    },
}  # fmt: skip
"""What to turn in the words of an engine, where these differ from those of `ADVICE`."""


def advice_for(cause: str, engine: str) -> str:
    """What to turn.

    Args:
        cause: Its name.
        engine: The engine that served those that were hit; empty where several did or nobody knows.
    """
    return _TURNED.get(engine, {}).get(cause, ADVICE[cause][0])


BEGAN: Final = {
    "deploy": "Roll back if the new version is slower; else deploy one replica at a time, warmed up before traffic.",
    "config_changed": "Compare the settings with those before, and turn back what was not meant.",
    "oom_kill": "Give the process more memory, or find what grew in it; drain before it is started again.",
    "restart": ADVICE["restart"][0],
}
"""What to turn where a chain of causes began with an event on record (`mechanisms.BEGINNINGS`)."""


def stage_of(cause: str) -> str:
    """The part of the account that a cause belongs to, one of `STAGES`."""
    return _STAGE_OF.get(DRIVER[cause], "contention")
