-- What an engine's probe tells: every step raw for a day, by second for long, and every finished request. A step that
-- several API servers saw is a row of each: what one was not told is NULL in its row, and sums are over all of them.

CREATE TABLE IF NOT EXISTS {database}.engine_steps {on_cluster}
(
  time DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
  scheduled_at Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD(1)),
  instance LowCardinality(String),
  deployment LowCardinality(String),
  engine LowCardinality(String),
  model LowCardinality(String),
  dp_rank LowCardinality(String),
  role LowCardinality(String),
  region LowCardinality(String),
  cluster LowCardinality(String),
  version LowCardinality(String),
  pod LowCardinality(String),
  node LowCardinality(String),
  recording LowCardinality(String),
  pid UInt32 CODEC(ZSTD(1)),
  counter UInt64 CODEC(DoubleDelta, ZSTD(1)),
  in_flight Nullable(UInt32) CODEC(ZSTD(1)),
  running Nullable(UInt32) CODEC(ZSTD(1)),
  waiting Nullable(UInt32) CODEC(ZSTD(1)),
  deferred Nullable(UInt32) CODEC(ZSTD(1)),
  kv_cache_usage_ratio Nullable(Float32) CODEC(ZSTD(1)),
  prefill_requests Nullable(UInt32) CODEC(ZSTD(1)),
  prefill_tokens Nullable(UInt32) CODEC(ZSTD(1)),
  decode_requests Nullable(UInt32) CODEC(ZSTD(1)),
  decode_tokens Nullable(UInt32) CODEC(ZSTD(1)),
  prompt_tokens Nullable(UInt32) CODEC(ZSTD(1)),
  cached_tokens Nullable(UInt32) CODEC(ZSTD(1)),
  generation_tokens Nullable(UInt32) CODEC(ZSTD(1)),
  first_tokens Nullable(UInt32) CODEC(ZSTD(1)),
  finished Nullable(UInt32) CODEC(ZSTD(1)),
  preemptions Nullable(UInt32) CODEC(ZSTD(1)),
  prefix_queries Nullable(UInt32) CODEC(ZSTD(1)),
  prefix_hits Nullable(UInt32) CODEC(ZSTD(1)),
  external_queries Nullable(UInt32) CODEC(ZSTD(1)),
  external_hits Nullable(UInt32) CODEC(ZSTD(1)),
  evictions Nullable(UInt32) CODEC(ZSTD(1)),
  drafts Nullable(UInt32) CODEC(ZSTD(1)),
  draft_tokens Nullable(UInt32) CODEC(ZSTD(1)),
  accepted_tokens Nullable(UInt32) CODEC(ZSTD(1)),
  loras_running Nullable(UInt32) CODEC(ZSTD(1)),
  loras_waiting Nullable(UInt32) CODEC(ZSTD(1)),
  elapsed_seconds Nullable(Float32) CODEC(ZSTD(1)),
  tenant LowCardinality(String),
  sender_key_id LowCardinality(String),
  sender_peer LowCardinality(String),
  received_at DateTime('UTC') DEFAULT now('UTC') CODEC(DoubleDelta, ZSTD(1)),
  inserted_at DateTime('UTC') MATERIALIZED now('UTC') CODEC(DoubleDelta, ZSTD(1)),
  INDEX idx_time time TYPE minmax GRANULARITY 1
)
ENGINE = {engine:ReplacingMergeTree}
PARTITION BY toDate(received_at)
ORDER BY (instance, model, dp_rank, time, pid, counter, tenant, sender_key_id)
{ttl:engine_steps inserted_at 1}
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS {database}.engine_steps_1s {on_cluster}
(
  time DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
  instance LowCardinality(String),
  deployment LowCardinality(String),
  engine LowCardinality(String),
  model LowCardinality(String),
  dp_rank LowCardinality(String),
  role LowCardinality(String),
  region LowCardinality(String),
  cluster LowCardinality(String),
  version LowCardinality(String),
  pod LowCardinality(String),
  node LowCardinality(String),
  recording LowCardinality(String),
  tenant LowCardinality(String),
  sender_key_id LowCardinality(String),
  rows SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD(1)),
  steps SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD(1)),
  running_sum SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD(1)),
  running_max SimpleAggregateFunction(max, Nullable(UInt32)) CODEC(ZSTD(1)),
  waiting_sum SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD(1)),
  waiting_max SimpleAggregateFunction(max, Nullable(UInt32)) CODEC(ZSTD(1)),
  deferred_max SimpleAggregateFunction(max, Nullable(UInt32)) CODEC(ZSTD(1)),
  in_flight_max SimpleAggregateFunction(max, Nullable(UInt32)) CODEC(ZSTD(1)),
  kv_cache_usage_ratio_sum SimpleAggregateFunction(sum, Float64) CODEC(ZSTD(1)),
  kv_cache_usage_ratio_max SimpleAggregateFunction(max, Nullable(Float32)) CODEC(ZSTD(1)),
  prefill_requests SimpleAggregateFunction(sum, Nullable(UInt64)) CODEC(ZSTD(1)),
  prefill_tokens SimpleAggregateFunction(sum, Nullable(UInt64)) CODEC(ZSTD(1)),
  decode_requests SimpleAggregateFunction(sum, Nullable(UInt64)) CODEC(ZSTD(1)),
  decode_tokens SimpleAggregateFunction(sum, Nullable(UInt64)) CODEC(ZSTD(1)),
  prompt_tokens SimpleAggregateFunction(sum, Nullable(UInt64)) CODEC(ZSTD(1)),
  cached_tokens SimpleAggregateFunction(sum, Nullable(UInt64)) CODEC(ZSTD(1)),
  generation_tokens SimpleAggregateFunction(sum, Nullable(UInt64)) CODEC(ZSTD(1)),
  first_tokens SimpleAggregateFunction(sum, Nullable(UInt64)) CODEC(ZSTD(1)),
  finished SimpleAggregateFunction(sum, Nullable(UInt64)) CODEC(ZSTD(1)),
  preemptions SimpleAggregateFunction(sum, Nullable(UInt64)) CODEC(ZSTD(1)),
  prefix_queries SimpleAggregateFunction(sum, Nullable(UInt64)) CODEC(ZSTD(1)),
  prefix_hits SimpleAggregateFunction(sum, Nullable(UInt64)) CODEC(ZSTD(1)),
  external_queries SimpleAggregateFunction(sum, Nullable(UInt64)) CODEC(ZSTD(1)),
  external_hits SimpleAggregateFunction(sum, Nullable(UInt64)) CODEC(ZSTD(1)),
  evictions SimpleAggregateFunction(sum, Nullable(UInt64)) CODEC(ZSTD(1)),
  drafts SimpleAggregateFunction(sum, Nullable(UInt64)) CODEC(ZSTD(1)),
  draft_tokens SimpleAggregateFunction(sum, Nullable(UInt64)) CODEC(ZSTD(1)),
  accepted_tokens SimpleAggregateFunction(sum, Nullable(UInt64)) CODEC(ZSTD(1)),
  elapsed_seconds_sum SimpleAggregateFunction(sum, Nullable(Float64)) CODEC(ZSTD(1)),
  elapsed_seconds_max SimpleAggregateFunction(max, Nullable(Float32)) CODEC(ZSTD(1)),
  received_at SimpleAggregateFunction(max, DateTime('UTC')) DEFAULT now('UTC') CODEC(DoubleDelta, ZSTD(1)),
  INDEX idx_time time TYPE minmax GRANULARITY 1
)
ENGINE = {engine:AggregatingMergeTree}
PARTITION BY toDate(received_at)
ORDER BY (instance, model, dp_rank, time, deployment, engine, role, region, cluster, version, pod, node, recording, tenant, sender_key_id)
{ttl:engine_steps_1s received_at 30}
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS {database}.finished_requests {on_cluster}
(
  inserted_at DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
  time DateTime64(3, 'UTC') CODEC(ZSTD(1)),
  finished_at DateTime64(6, 'UTC') CODEC(ZSTD(1)),
  request_id String CODEC(ZSTD(1)),
  reason LowCardinality(String),
  instance LowCardinality(String),
  deployment LowCardinality(String),
  engine LowCardinality(String),
  model LowCardinality(String),
  dp_rank LowCardinality(String),
  role LowCardinality(String),
  region LowCardinality(String),
  cluster LowCardinality(String),
  version LowCardinality(String),
  pod LowCardinality(String),
  node LowCardinality(String),
  recording LowCardinality(String),
  pid UInt32 CODEC(ZSTD(1)),
  e2e_seconds Nullable(Float32) CODEC(ZSTD(1)),
  queued_seconds Nullable(Float32) CODEC(ZSTD(1)),
  prefill_seconds Nullable(Float32) CODEC(ZSTD(1)),
  inference_seconds Nullable(Float32) CODEC(ZSTD(1)),
  decode_seconds Nullable(Float32) CODEC(ZSTD(1)),
  preemptions Nullable(UInt32) CODEC(ZSTD(1)),
  prompt_tokens Nullable(UInt32) CODEC(ZSTD(1)),
  generation_tokens Nullable(UInt32) CODEC(ZSTD(1)),
  cached_tokens Nullable(UInt32) CODEC(ZSTD(1)),
  tenant LowCardinality(String),
  sender_tenant LowCardinality(String),
  sender_key_id LowCardinality(String),
  sender_peer LowCardinality(String),
  received_at DateTime('UTC') DEFAULT now('UTC') CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = {engine:MergeTree}
PARTITION BY toDate(inserted_at)
ORDER BY (inserted_at, request_id)
{ttl:engine_steps toDateTime(inserted_at) 1}
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

-- A half that a span told: a probe may tell of the same request, before or after. Of which finished request a row has what
-- a probe told: another one's is another row's.
ALTER TABLE {database}.requests_t {on_cluster}
  ADD COLUMN IF NOT EXISTS spanned SimpleAggregateFunction(max, UInt8) DEFAULT has_engine CODEC(ZSTD(1)) AFTER has_engine,
  ADD COLUMN IF NOT EXISTS told_key SimpleAggregateFunction(max, UInt64) CODEC(ZSTD(1)) AFTER spanned;
