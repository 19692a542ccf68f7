"""The words of Servescope: signals, attribute names, outcomes, units.

Everything that names a fact – a column, a function, a page, an attribute on the wire – takes its name from here.
Names follow the OpenTelemetry semantic conventions where one exists (``gen_ai.*``, ``http.*``, ``service.*``) and
Prometheus style with units elsewhere. This module imports the standard library only.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

SCOPE_EDGE: Final = "servescope.edge"
"""Scope of an edge record: one span per request, written by the tap (or a gateway) in front of the model server."""
SCOPE_SAMPLE: Final = "servescope.sample"
"""Scope of an engine sample: one ResourceMetrics per (instance, model, dp_rank) and scrape."""
SCOPE_HOST: Final = "servescope.host"
SCOPE_GPU: Final = "servescope.gpu"
SCOPE_EVENT: Final = "servescope.event"
SCOPE_STEP: Final = "servescope.step"
"""Scope of what an engine's probe tells: log records of many rows each, a column an attribute."""
EVENT_STEPS: Final = "engine_steps"
EVENT_FINISHED: Final = "finished_requests"
EVENT_BROKEN: Final = "contract_broken"
EVENT_MENDED: Final = "contract_mended"
"""A server does not keep what it must tell, and keeps it again."""
SERVICE_TAP: Final = "servescope-tap"
SERVICE_COLLECTOR: Final = "servescope-collector"
"""``service.name`` of a tap's own metrics, beside its target's instance."""
TAP_LOST: Final = "servescope.tap.records_lost"
TAP_REFUSED: Final = "servescope.tap.connections_refused"
TAP_LOSSES: Final = frozenset({TAP_LOST, TAP_REFUSED})
"""Sums of a tap that must not grow."""


class Outcome(StrEnum):
    """How a request ended, as its client saw it."""

    OK = "ok"
    CLIENT_ERROR = "client_error"  # 4xx but 429
    REJECTED = "rejected"  # 429, and 503 for a full queue
    SERVER_ERROR = "server_error"
    CLIENT_ABORT = "client_abort"
    UPSTREAM_RESET = "upstream_reset"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"


class Breach(StrEnum):
    """How a server breaks the contract of what it must tell: attribute ``kind`` of the event."""

    ABSENT = "absent"
    GONE = "gone"
    UNKNOWN = "unknown"
    DOUBLED = "doubled"
    UNIT = "unit"
    FROZEN = "frozen"
    SILENT = "silent"


NO_LOSS: Final = frozenset({Breach.UNKNOWN, Breach.DOUBLED})
"""Breaches by which no figure is wrong or missing."""


class Resource:
    """Resource attributes that every record of an agent carries (absent = unknown, never an empty string)."""

    DEPLOYMENT: Final = "service.name"
    INSTANCE: Final = "service.instance.id"
    VERSION: Final = "service.version"
    REGION: Final = "cloud.region"
    CLUSTER: Final = "k8s.cluster.name"
    POD: Final = "k8s.pod.name"
    NAMESPACE: Final = "k8s.namespace.name"
    POD_NODE: Final = "k8s.node.name"  # of the pod; NODE is the machine of its agent
    NODE: Final = "host.name"
    ENGINE: Final = "servescope.engine"
    ROLE: Final = "servescope.role"
    MODEL: Final = "servescope.model"  # of samples; of spans that name none: the one model of their server
    DP_RANK: Final = "servescope.dp_rank"
    RANK: Final = "servescope.rank"  # of a worker process, as its engine names it: DP0_TP1
    RECORDING: Final = "servescope.recording"


class Edge:
    """Attributes of an edge span. Durations are seconds (double), counts are int."""

    OPERATION: Final = "gen_ai.operation.name"
    REQUEST_MODEL: Final = "gen_ai.request.model"
    RESPONSE_MODEL: Final = "gen_ai.response.model"
    RESPONSE_ID: Final = "gen_ai.response.id"
    FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
    INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
    OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
    CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
    METHOD: Final = "http.request.method"
    ROUTE: Final = "http.route"
    STATUS: Final = "http.response.status_code"
    REQUEST_BYTES: Final = "http.request.body.size"
    RESPONSE_BYTES: Final = "http.response.body.size"
    ERROR_TYPE: Final = "error.type"
    REQUEST_ID: Final = "servescope.request.id"
    TENANT: Final = "servescope.tenant"
    CALLER_SAMPLED: Final = "servescope.caller_sampled"  # absent when the trace began at the tap
    UNSAMPLED: Final = "servescope.unsampled"  # sent on without the sampled flag: the engine records nothing
    OUTCOME: Final = "servescope.outcome"
    STREAM: Final = "servescope.stream"
    TOKENS_COUNTED: Final = "servescope.tokens_counted"  # tokens are counted chunks, the server reported no usage
    EDGE_SECONDS: Final = "servescope.edge_seconds"
    TTFT_SECONDS: Final = "servescope.ttft_seconds"
    E2E_SECONDS: Final = "servescope.e2e_seconds"
    ITL_MEAN_SECONDS: Final = "servescope.itl_mean_seconds"
    ITL_P50_SECONDS: Final = "servescope.itl_p50_seconds"
    ITL_P99_SECONDS: Final = "servescope.itl_p99_seconds"
    ITL_MAX_SECONDS: Final = "servescope.itl_max_seconds"
    GAPS: Final = "servescope.itl_gaps"  # number of gaps the itl figures rest on


class Signal(StrEnum):
    """Signals of an engine sample. ``_total`` ones are counters as the server shows them, the others are gauges.

    Those of :data:`SIGNALS_WITHOUT_COLUMN` lie in the map ``other_signals`` of ``engine_samples``, the others have a
    column there.
    """

    RUNNING = "running"
    WAITING = "waiting"
    KV_CACHE_USAGE_RATIO = "kv_cache_usage_ratio"
    PREEMPTIONS_TOTAL = "preemptions_total"
    PROMPT_TOKENS_TOTAL = "prompt_tokens_total"
    GENERATION_TOKENS_TOTAL = "generation_tokens_total"
    PREFIX_CACHE_QUERIES_TOTAL = "prefix_cache_queries_total"
    PREFIX_CACHE_HITS_TOTAL = "prefix_cache_hits_total"
    REQUESTS_FINISHED_TOTAL = "requests_finished_total"
    REQUESTS_FAILED_TOTAL = "requests_failed_total"
    ENGINE_STEPS_TOTAL = "engine_steps_total"  # vLLM iterations
    BATCH_TOKENS_TOTAL = "batch_tokens_total"  # tokens over all steps (vLLM iteration_tokens sum)
    INFERENCES_TOTAL = "inferences_total"  # Triton nv_inference_count: items, batch counted as its size
    EXECUTIONS_TOTAL = "executions_total"  # Triton nv_inference_exec_count: batches
    RESPONSE_CACHE_HITS_TOTAL = "response_cache_hits_total"
    RESPONSE_CACHE_MISSES_TOTAL = "response_cache_misses_total"
    REQUEST_SECONDS_TOTAL = "request_seconds_total"  # summed per request, whole time in the server
    QUEUE_SECONDS_TOTAL = "queue_seconds_total"
    PREFILL_SECONDS_TOTAL = "prefill_seconds_total"
    DECODE_SECONDS_TOTAL = "decode_seconds_total"
    COMPUTE_INPUT_SECONDS_TOTAL = "compute_input_seconds_total"
    COMPUTE_INFER_SECONDS_TOTAL = "compute_infer_seconds_total"
    COMPUTE_OUTPUT_SECONDS_TOTAL = "compute_output_seconds_total"
    REQUESTS_RECEIVED_TOTAL = "requests_received_total"  # as they came, whatever became of them
    REQUESTS_ABORTED_TOTAL = "requests_aborted_total"  # given up by their clients or by an operator
    ADMISSION_REJECTIONS_TOTAL = "admission_rejections_total"
    WAITING_CAPACITY = "waiting_capacity"  # parts of waiting: for blocks, sequences or the token budget
    WAITING_DEFERRED = "waiting_deferred"  # for a LoRA slot, a KV transfer, a grammar
    ASLEEP = "asleep"  # 1: weights are off the GPU, by an operator's order
    KV_CACHE_HOST_USAGE_RATIO = "kv_cache_host_usage_ratio"
    PREFIX_CACHE_QUERIES_EXTERNAL_TOTAL = "prefix_cache_queries_external_total"
    PREFIX_CACHE_HITS_EXTERNAL_TOTAL = "prefix_cache_hits_external_total"
    PREFIX_CACHE_HITS_DEVICE_TOTAL = "prefix_cache_hits_device_total"
    PREFIX_CACHE_HITS_HOST_TOTAL = "prefix_cache_hits_host_total"
    PREFIX_CACHE_HITS_DISK_TOTAL = "prefix_cache_hits_disk_total"
    KV_TRANSFERS_TOTAL = "kv_transfers_total"  # KV cache between engines, or between an engine and a store
    KV_TRANSFER_SECONDS_TOTAL = "kv_transfer_seconds_total"
    KV_TRANSFER_BYTES_TOTAL = "kv_transfer_bytes_total"
    KV_TRANSFER_FAILURES_TOTAL = "kv_transfer_failures_total"
    KV_OFFLOAD_BYTES_TOTAL = "kv_offload_bytes_total"  # out of the GPU and back
    KV_OFFLOAD_SECONDS_TOTAL = "kv_offload_seconds_total"
    SPEC_DECODE_DRAFTS_TOTAL = "spec_decode_drafts_total"
    SPEC_DECODE_DRAFT_TOKENS_TOTAL = "spec_decode_draft_tokens_total"
    SPEC_DECODE_ACCEPTED_TOKENS_TOTAL = "spec_decode_accepted_tokens_total"
    SPEC_DECODE_ACCEPTED_AT_0_TOTAL = "spec_decode_accepted_at_0_total"  # by position in the draft, from 0
    SPEC_DECODE_ACCEPTED_AT_1_TOTAL = "spec_decode_accepted_at_1_total"
    SPEC_DECODE_ACCEPTED_AT_2_TOTAL = "spec_decode_accepted_at_2_total"
    SPEC_DECODE_ACCEPTED_AT_3_TOTAL = "spec_decode_accepted_at_3_total"
    SPEC_DECODE_ACCEPTED_AT_4_TOTAL = "spec_decode_accepted_at_4_total"
    SPEC_DECODE_ACCEPTED_AT_5_TOTAL = "spec_decode_accepted_at_5_total"
    SPEC_DECODE_ACCEPTED_AT_6_TOTAL = "spec_decode_accepted_at_6_total"
    SPEC_DECODE_ACCEPTED_AT_7_TOTAL = "spec_decode_accepted_at_7_total"
    LORA_ADAPTERS_RUNNING = "lora_adapters_running"  # adapters, not requests
    LORA_ADAPTERS_WAITING = "lora_adapters_waiting"
    LORA_SLOTS = "lora_slots"  # adapters that fit at one time
    LORA_ADAPTERS_HELD_BACK = "lora_adapters_held_back"  # of those waiting, the ones of which no request runs
    SPEC_DECODE_ACCEPTANCE_LENGTH = "spec_decode_acceptance_length"  # tokens a step yields a sequence, lately
    ESTIMATED_FLOPS_TOTAL = "estimated_flops_total"  # per GPU, by the engine's own reckoning
    ESTIMATED_READ_BYTES_TOTAL = "estimated_read_bytes_total"
    ESTIMATED_WRITE_BYTES_TOTAL = "estimated_write_bytes_total"
    ENDPOINTS_HEALTHY = "endpoints_healthy"  # servers behind a router that it deems fit
    KV_BLOCKS_STORED_DEVICE_TOTAL = "kv_blocks_stored_device_total"  # by KV cache events, where they lie
    KV_BLOCKS_STORED_HOST_TOTAL = "kv_blocks_stored_host_total"
    KV_BLOCKS_STORED_OTHER_TOTAL = "kv_blocks_stored_other_total"
    KV_BLOCKS_REMOVED_DEVICE_TOTAL = "kv_blocks_removed_device_total"
    KV_BLOCKS_REMOVED_HOST_TOTAL = "kv_blocks_removed_host_total"
    KV_BLOCKS_REMOVED_OTHER_TOTAL = "kv_blocks_removed_other_total"
    KV_CACHE_CLEARS_TOTAL = "kv_cache_clears_total"  # of the whole cache
    KV_EVENT_BATCHES_LOST_TOTAL = "kv_event_batches_lost_total"  # missed, so that the counts above lack some
    FINISHED_STOP_TOTAL = "finished_stop_total"  # parts of requests_finished_total, by why generation ended
    FINISHED_LENGTH_TOTAL = "finished_length_total"
    FINISHED_ABORT_TOTAL = "finished_abort_total"
    FINISHED_ERROR_TOTAL = "finished_error_total"
    FINISHED_REPETITION_TOTAL = "finished_repetition_total"
    MULTIMODAL_CACHE_QUERIES_TOTAL = "multimodal_cache_queries_total"  # images and the like, made ready for a model
    MULTIMODAL_CACHE_HITS_TOTAL = "multimodal_cache_hits_total"
    KV_TRANSFER_POST_SECONDS_TOTAL = "kv_transfer_post_seconds_total"  # until a transfer was handed to the network
    KV_TRANSFER_DESCRIPTORS_TOTAL = "kv_transfer_descriptors_total"  # pieces of memory that transfers were made of
    KV_TRANSFER_LEASES_EXPIRED_TOTAL = "kv_transfer_leases_expired_total"  # blocks that nobody fetched in time
    KV_TRANSFER_NOTICES_LATE_TOTAL = "kv_transfer_notices_late_total"  # came when the lease had expired
    KV_OFFLOAD_STORE_BYTES_TOTAL = "kv_offload_store_bytes_total"  # directions of kv_offload_bytes_total
    KV_OFFLOAD_STORE_SECONDS_TOTAL = "kv_offload_store_seconds_total"
    KV_OFFLOAD_LOAD_BYTES_TOTAL = "kv_offload_load_bytes_total"
    KV_OFFLOAD_LOAD_SECONDS_TOTAL = "kv_offload_load_seconds_total"
    KV_OFFLOAD_STORES_TOTAL = "kv_offload_stores_total"
    KV_OFFLOAD_LOADS_TOTAL = "kv_offload_loads_total"
    KV_OFFLOAD_STORES_REFUSED_TOTAL = "kv_offload_stores_refused_total"  # no room in the store
    KV_OFFLOAD_STORES_SKIPPED_TOTAL = "kv_offload_stores_skipped_total"  # not worth it, or there already
    KV_OFFLOAD_STORES_DROPPED_TOTAL = "kv_offload_stores_dropped_total"  # a slower tier could not keep up
    KV_OFFLOAD_FAILURES_TOTAL = "kv_offload_failures_total"  # moves between tiers that failed
    KV_OFFLOAD_BLOCKS_LOADED_TOTAL = "kv_offload_blocks_loaded_total"  # prefill that was not done again
    KV_OFFLOAD_BLOCKS_PENDING = "kv_offload_blocks_pending"  # their store is not over; one that only grows is stuck
    KV_OFFLOAD_BLOCKS_PINNED = "kv_offload_blocks_pinned"  # held by what goes on
    KV_OFFLOAD_MOVES_ACTIVE = "kv_offload_moves_active"  # between tiers
    KV_FETCH_TO_START = "kv_fetch_to_start"  # waiting requests by how far the KV cache is that they wait for
    KV_FETCH_IN_PROGRESS = "kv_fetch_in_progress"
    KV_FETCH_COMPLETED = "kv_fetch_completed"
    KV_OFFLOAD_PINNED_RATIO = "kv_offload_pinned_ratio"  # of the host's space for KV cache, held by what goes on
    REQUESTS_IN_PREFILL = "requests_in_prefill"  # parts of running, as a router sees its servers
    REQUESTS_IN_DECODE = "requests_in_decode"  # their first token came


SIGNALS_WITHOUT_COLUMN: Final = frozenset(
    list(Signal)[list(Signal).index(Signal.REQUESTS_RECEIVED_TOTAL) :]  # all that came after the columns
)
"""Signals in the map ``other_signals`` of ``engine_samples``: what few engines show and no question adds up."""
FULLEST: Final = frozenset(
    {
        Signal.KV_CACHE_USAGE_RATIO,
        Signal.KV_CACHE_HOST_USAGE_RATIO,
        Signal.ASLEEP,
        Signal.SPEC_DECODE_ACCEPTANCE_LENGTH,
        Signal.KV_OFFLOAD_PINNED_RATIO,
    }
)
"""Signals of which several ranks or models together have the highest, and not the sum."""


class Distribution(StrEnum):
    """Signals that a server shows as a histogram; rows of ``engine_histograms``."""

    TTFT_SECONDS = "ttft_seconds"
    ITL_SECONDS = "itl_seconds"
    TPOT_SECONDS = "tpot_seconds"
    E2E_SECONDS = "e2e_seconds"
    QUEUE_SECONDS = "queue_seconds"
    PREFILL_SECONDS = "prefill_seconds"
    DECODE_SECONDS = "decode_seconds"
    PROMPT_TOKENS = "prompt_tokens"
    COMPLETION_TOKENS = "completion_tokens"
    BATCH_TOKENS = "batch_tokens"
    BATCH_SIZE = "batch_size"  # executions by the items in each
    BATCH_COMPUTE_MICROSECONDS = "batch_compute_microseconds"  # compute (counts are µs), by the items in an execution
    KV_BLOCK_LIFETIME_SECONDS = "kv_block_lifetime_seconds"  # from allocation to eviction
    KV_BLOCK_IDLE_SECONDS = "kv_block_idle_seconds"  # from its last use to eviction
    KV_BLOCK_REUSE_GAP_SECONDS = "kv_block_reuse_gap_seconds"  # between two uses
    KV_OFFLOAD_LOOKUP_SECONDS = "kv_offload_lookup_seconds"
    SLEEP_OPERATION_SECONDS = "sleep_operation_seconds"  # going to sleep and waking up
    WEIGHT_UPDATE_SECONDS = "weight_update_seconds"


PROMPT_BEARING: Final = frozenset(
    {
        "gen_ai.input.messages",
        "gen_ai.output.messages",
        "gen_ai.system_instructions",
        "gen_ai.prompt",
        "gen_ai.completion",
        "gen_ai.content.prompt",
        "gen_ai.content.completion",
        "gen_ai.tool.definitions",
        "gen_ai.tool.call.arguments",
        "gen_ai.tool.call.result",
        "llm.prompts",
        "llm.completions",
        "llm.input_messages",
        "llm.output_messages",
        "input.value",
        "output.value",
        "traceloop.entity.input",
        "traceloop.entity.output",
    }
)
"""Attribute keys that may hold what people wrote; scrubbed before anything touches a disk. A key that begins with
one of these and a dot (``gen_ai.prompt.0.content``) counts too."""

SPAN_ID_RANDOM_BITS: Final = 22
"""A tap's span id is 42 bits of Unix milliseconds followed by this many random bits, so that the edge record and the
engine's span (which carries it as parent) derive the same request key and time with no lookup."""
