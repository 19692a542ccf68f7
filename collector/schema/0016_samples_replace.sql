-- As in 0014, for samples and events. Who sent a row is part of what it is replaced by: nobody replaces another's.

CREATE TABLE IF NOT EXISTS {database}.engine_samples_next {on_cluster}
(
  time DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
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
  up UInt8,
  scrape_seconds Float32 CODEC(ZSTD(1)),
  interval_seconds Float32 CODEC(ZSTD(1)),
  running Nullable(Float32) CODEC(ZSTD(1)),
  waiting Nullable(Float32) CODEC(ZSTD(1)),
  kv_cache_usage_ratio Nullable(Float32) CODEC(ZSTD(1)),
  preemptions_total Nullable(Float64) CODEC(ZSTD(1)),
  preemptions_delta Nullable(Float64) CODEC(ZSTD(1)),
  prompt_tokens_total Nullable(Float64) CODEC(ZSTD(1)),
  prompt_tokens_delta Nullable(Float64) CODEC(ZSTD(1)),
  generation_tokens_total Nullable(Float64) CODEC(ZSTD(1)),
  generation_tokens_delta Nullable(Float64) CODEC(ZSTD(1)),
  prefix_cache_queries_total Nullable(Float64) CODEC(ZSTD(1)),
  prefix_cache_queries_delta Nullable(Float64) CODEC(ZSTD(1)),
  prefix_cache_hits_total Nullable(Float64) CODEC(ZSTD(1)),
  prefix_cache_hits_delta Nullable(Float64) CODEC(ZSTD(1)),
  requests_finished_total Nullable(Float64) CODEC(ZSTD(1)),
  requests_finished_delta Nullable(Float64) CODEC(ZSTD(1)),
  requests_failed_total Nullable(Float64) CODEC(ZSTD(1)),
  requests_failed_delta Nullable(Float64) CODEC(ZSTD(1)),
  engine_steps_total Nullable(Float64) CODEC(ZSTD(1)),
  engine_steps_delta Nullable(Float64) CODEC(ZSTD(1)),
  batch_tokens_total Nullable(Float64) CODEC(ZSTD(1)),
  batch_tokens_delta Nullable(Float64) CODEC(ZSTD(1)),
  inferences_total Nullable(Float64) CODEC(ZSTD(1)),
  inferences_delta Nullable(Float64) CODEC(ZSTD(1)),
  executions_total Nullable(Float64) CODEC(ZSTD(1)),
  executions_delta Nullable(Float64) CODEC(ZSTD(1)),
  response_cache_hits_total Nullable(Float64) CODEC(ZSTD(1)),
  response_cache_hits_delta Nullable(Float64) CODEC(ZSTD(1)),
  response_cache_misses_total Nullable(Float64) CODEC(ZSTD(1)),
  response_cache_misses_delta Nullable(Float64) CODEC(ZSTD(1)),
  request_seconds_total Nullable(Float64) CODEC(ZSTD(1)),
  request_seconds_delta Nullable(Float64) CODEC(ZSTD(1)),
  queue_seconds_total Nullable(Float64) CODEC(ZSTD(1)),
  queue_seconds_delta Nullable(Float64) CODEC(ZSTD(1)),
  prefill_seconds_total Nullable(Float64) CODEC(ZSTD(1)),
  prefill_seconds_delta Nullable(Float64) CODEC(ZSTD(1)),
  decode_seconds_total Nullable(Float64) CODEC(ZSTD(1)),
  decode_seconds_delta Nullable(Float64) CODEC(ZSTD(1)),
  compute_input_seconds_total Nullable(Float64) CODEC(ZSTD(1)),
  compute_input_seconds_delta Nullable(Float64) CODEC(ZSTD(1)),
  compute_infer_seconds_total Nullable(Float64) CODEC(ZSTD(1)),
  compute_infer_seconds_delta Nullable(Float64) CODEC(ZSTD(1)),
  compute_output_seconds_total Nullable(Float64) CODEC(ZSTD(1)),
  compute_output_seconds_delta Nullable(Float64) CODEC(ZSTD(1)),
  tenant LowCardinality(String),
  sender_key_id LowCardinality(String),
  sender_peer LowCardinality(String),
  received_at DateTime('UTC') DEFAULT now('UTC') CODEC(DoubleDelta, ZSTD(1)),
  inserted_at DateTime('UTC') MATERIALIZED now('UTC') CODEC(DoubleDelta, ZSTD(1)),
  INDEX idx_time time TYPE minmax GRANULARITY 1
)
ENGINE = {engine:ReplacingMergeTree}
PARTITION BY toDate(received_at)
ORDER BY (instance, model, dp_rank, time, tenant, sender_key_id)
{ttl:engine_samples inserted_at 30}
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;
{replace:engine_samples received_at = inserted_at};

CREATE TABLE IF NOT EXISTS {database}.engine_histograms_next {on_cluster}
(
  time DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
  instance LowCardinality(String),
  deployment LowCardinality(String),
  engine LowCardinality(String),
  model LowCardinality(String),
  dp_rank LowCardinality(String),
  region LowCardinality(String),
  version LowCardinality(String),
  recording LowCardinality(String),
  signal LowCardinality(String),
  count UInt64 CODEC(ZSTD(1)),
  sum Float64 CODEC(ZSTD(1)),
  bounds Array(Float64) CODEC(ZSTD(1)),
  counts Array(UInt64) CODEC(ZSTD(1)),
  tenant LowCardinality(String),
  sender_key_id LowCardinality(String),
  sender_peer LowCardinality(String),
  received_at DateTime('UTC') DEFAULT now('UTC') CODEC(DoubleDelta, ZSTD(1)),
  inserted_at DateTime('UTC') MATERIALIZED now('UTC') CODEC(DoubleDelta, ZSTD(1)),
  INDEX idx_time time TYPE minmax GRANULARITY 1
)
ENGINE = {engine:ReplacingMergeTree}
PARTITION BY toDate(received_at)
ORDER BY (instance, model, dp_rank, signal, time, tenant, sender_key_id)
{ttl:engine_histograms inserted_at 30}
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;
{replace:engine_histograms received_at = inserted_at};

CREATE TABLE IF NOT EXISTS {database}.host_samples_next {on_cluster}
(
  time DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
  instance LowCardinality(String),
  process_name LowCardinality(String),
  process_pid LowCardinality(String),
  deployment LowCardinality(String),
  region LowCardinality(String),
  cluster LowCardinality(String),
  pod LowCardinality(String),
  node LowCardinality(String),
  recording LowCardinality(String),
  cpu_seconds_total Nullable(Float64) CODEC(ZSTD(1)),
  cpu_delay_seconds_total Nullable(Float64) CODEC(ZSTD(1)),
  rss_bytes Nullable(Float64) CODEC(ZSTD(1)),
  threads Nullable(Float64) CODEC(ZSTD(1)),
  stopped Nullable(Float64) CODEC(ZSTD(1)),
  involuntary_switches_total Nullable(Float64) CODEC(ZSTD(1)),
  cpu_usage_ratio Nullable(Float64) CODEC(ZSTD(1)),
  load1 Nullable(Float64) CODEC(ZSTD(1)),
  memory_available_bytes Nullable(Float64) CODEC(ZSTD(1)),
  cpu_pressure_some_ratio Nullable(Float64) CODEC(ZSTD(1)),
  memory_pressure_some_ratio Nullable(Float64) CODEC(ZSTD(1)),
  io_pressure_some_ratio Nullable(Float64) CODEC(ZSTD(1)),
  tenant LowCardinality(String),
  sender_key_id LowCardinality(String),
  sender_peer LowCardinality(String),
  received_at DateTime('UTC') DEFAULT now('UTC') CODEC(DoubleDelta, ZSTD(1)),
  inserted_at DateTime('UTC') MATERIALIZED now('UTC') CODEC(DoubleDelta, ZSTD(1)),
  INDEX idx_time time TYPE minmax GRANULARITY 1
)
ENGINE = {engine:ReplacingMergeTree}
PARTITION BY toDate(received_at)
ORDER BY (node, instance, process_name, process_pid, time, tenant, sender_key_id)
{ttl:host_samples inserted_at 14}
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;
{replace:host_samples received_at = inserted_at};

CREATE TABLE IF NOT EXISTS {database}.gpu_samples_next {on_cluster}
(
  time DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
  gpu LowCardinality(String),
  gpu_name LowCardinality(String),
  gpu_index LowCardinality(String),
  instance LowCardinality(String),
  deployment LowCardinality(String),
  region LowCardinality(String),
  cluster LowCardinality(String),
  pod LowCardinality(String),
  node LowCardinality(String),
  recording LowCardinality(String),
  gpu_utilization_ratio Nullable(Float64) CODEC(ZSTD(1)),
  memory_utilization_ratio Nullable(Float64) CODEC(ZSTD(1)),
  memory_used_bytes Nullable(Float64) CODEC(ZSTD(1)),
  memory_total_bytes Nullable(Float64) CODEC(ZSTD(1)),
  power_watts Nullable(Float64) CODEC(ZSTD(1)),
  power_limit_watts Nullable(Float64) CODEC(ZSTD(1)),
  energy_joules_total Nullable(Float64) CODEC(ZSTD(1)),
  temperature_celsius Nullable(Float64) CODEC(ZSTD(1)),
  sm_clock_hertz Nullable(Float64) CODEC(ZSTD(1)),
  memory_clock_hertz Nullable(Float64) CODEC(ZSTD(1)),
  throttle_reasons Nullable(Float64) CODEC(ZSTD(1)),
  ecc_uncorrected_total Nullable(Float64) CODEC(ZSTD(1)),
  pcie_replay_total Nullable(Float64) CODEC(ZSTD(1)),
  tenant LowCardinality(String),
  sender_key_id LowCardinality(String),
  sender_peer LowCardinality(String),
  received_at DateTime('UTC') DEFAULT now('UTC') CODEC(DoubleDelta, ZSTD(1)),
  inserted_at DateTime('UTC') MATERIALIZED now('UTC') CODEC(DoubleDelta, ZSTD(1)),
  INDEX idx_time time TYPE minmax GRANULARITY 1
)
ENGINE = {engine:ReplacingMergeTree}
PARTITION BY toDate(received_at)
ORDER BY (gpu, instance, time, tenant, sender_key_id)
{ttl:gpu_samples inserted_at 30}
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;
{replace:gpu_samples received_at = inserted_at};

CREATE TABLE IF NOT EXISTS {database}.events_next {on_cluster}
(
  time DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
  event LowCardinality(String),
  message String CODEC(ZSTD(1)),
  instance LowCardinality(String),
  deployment LowCardinality(String),
  engine LowCardinality(String),
  model LowCardinality(String),
  region LowCardinality(String),
  version LowCardinality(String),
  recording LowCardinality(String),
  attributes Map(String, String) CODEC(ZSTD(1)),
  tenant LowCardinality(String),
  sender_key_id LowCardinality(String),
  sender_peer LowCardinality(String),
  received_at DateTime('UTC') DEFAULT now('UTC') CODEC(DoubleDelta, ZSTD(1)),
  inserted_at DateTime('UTC') MATERIALIZED now('UTC') CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = {engine:ReplacingMergeTree}
PARTITION BY toYYYYMM(received_at)
ORDER BY (time, event, instance, model, message, tenant, sender_key_id)
{ttl:events inserted_at 400}
SETTINGS non_replicated_deduplication_window = 10000;
{replace:events received_at = inserted_at};

CREATE TABLE IF NOT EXISTS {database}.instance_config_next {on_cluster}
(
  time DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
  instance LowCardinality(String),
  engine LowCardinality(String),
  version LowCardinality(String),
  recording LowCardinality(String),
  config Map(String, String) CODEC(ZSTD(1)),
  tenant LowCardinality(String),
  sender_key_id LowCardinality(String),
  sender_peer LowCardinality(String),
  received_at DateTime('UTC') DEFAULT now('UTC') CODEC(DoubleDelta, ZSTD(1)),
  inserted_at DateTime('UTC') MATERIALIZED now('UTC') CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = {engine:ReplacingMergeTree}
PARTITION BY toYYYYMM(received_at)
ORDER BY (instance, time, recording, tenant, sender_key_id)
{ttl:events inserted_at 400}
SETTINGS non_replicated_deduplication_window = 10000;
{replace:instance_config received_at = inserted_at};

CREATE TABLE IF NOT EXISTS {database}.land_samples {on_cluster}
(
  received_ns UInt64,
  tenant LowCardinality(String),
  sender_key_id LowCardinality(String),
  sender_peer LowCardinality(String),
  scope_name String,
{part:identity_columns},
  ResourceAttributes Map(LowCardinality(String), String),
  time DateTime64(3, 'UTC'),
  names Array(String),
  signals Array(Nullable(Float64)),
  histogram_names Array(String),
  histogram_counts Array(UInt64),
  histogram_sums Array(Float64),
  histogram_bounds Array(Array(Float64)),
  histogram_buckets Array(Array(UInt64))
)
ENGINE = Null;

-- A name that a sample lacks has index 0, whose element is NULL.
CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.engine_samples_mv {on_cluster} TO {database}.engine_samples AS
SELECT
  time,
  tenant, sender_key_id, sender_peer,
  toDateTime(intDiv(received_ns, 1000000000), 'UTC') AS received_at,
{part:identity_names},
  toUInt8(ifNull(signals[indexOf(names, 'up')], 0) > 0) AS up,
  toFloat32(ifNull(signals[indexOf(names, 'scrape_seconds')], 0)) AS scrape_seconds,
  toFloat32(ifNull(signals[indexOf(names, 'interval_seconds')], 0)) AS interval_seconds,
  signals[indexOf(names, 'running')] AS running,
  signals[indexOf(names, 'waiting')] AS waiting,
  signals[indexOf(names, 'kv_cache_usage_ratio')] AS kv_cache_usage_ratio,
  signals[indexOf(names, 'preemptions_total')] AS preemptions_total,
  signals[indexOf(names, 'preemptions_delta')] AS preemptions_delta,
  signals[indexOf(names, 'prompt_tokens_total')] AS prompt_tokens_total,
  signals[indexOf(names, 'prompt_tokens_delta')] AS prompt_tokens_delta,
  signals[indexOf(names, 'generation_tokens_total')] AS generation_tokens_total,
  signals[indexOf(names, 'generation_tokens_delta')] AS generation_tokens_delta,
  signals[indexOf(names, 'prefix_cache_queries_total')] AS prefix_cache_queries_total,
  signals[indexOf(names, 'prefix_cache_queries_delta')] AS prefix_cache_queries_delta,
  signals[indexOf(names, 'prefix_cache_hits_total')] AS prefix_cache_hits_total,
  signals[indexOf(names, 'prefix_cache_hits_delta')] AS prefix_cache_hits_delta,
  signals[indexOf(names, 'requests_finished_total')] AS requests_finished_total,
  signals[indexOf(names, 'requests_finished_delta')] AS requests_finished_delta,
  signals[indexOf(names, 'requests_failed_total')] AS requests_failed_total,
  signals[indexOf(names, 'requests_failed_delta')] AS requests_failed_delta,
  signals[indexOf(names, 'engine_steps_total')] AS engine_steps_total,
  signals[indexOf(names, 'engine_steps_delta')] AS engine_steps_delta,
  signals[indexOf(names, 'batch_tokens_total')] AS batch_tokens_total,
  signals[indexOf(names, 'batch_tokens_delta')] AS batch_tokens_delta,
  signals[indexOf(names, 'inferences_total')] AS inferences_total,
  signals[indexOf(names, 'inferences_delta')] AS inferences_delta,
  signals[indexOf(names, 'executions_total')] AS executions_total,
  signals[indexOf(names, 'executions_delta')] AS executions_delta,
  signals[indexOf(names, 'response_cache_hits_total')] AS response_cache_hits_total,
  signals[indexOf(names, 'response_cache_hits_delta')] AS response_cache_hits_delta,
  signals[indexOf(names, 'response_cache_misses_total')] AS response_cache_misses_total,
  signals[indexOf(names, 'response_cache_misses_delta')] AS response_cache_misses_delta,
  signals[indexOf(names, 'request_seconds_total')] AS request_seconds_total,
  signals[indexOf(names, 'request_seconds_delta')] AS request_seconds_delta,
  signals[indexOf(names, 'queue_seconds_total')] AS queue_seconds_total,
  signals[indexOf(names, 'queue_seconds_delta')] AS queue_seconds_delta,
  signals[indexOf(names, 'prefill_seconds_total')] AS prefill_seconds_total,
  signals[indexOf(names, 'prefill_seconds_delta')] AS prefill_seconds_delta,
  signals[indexOf(names, 'decode_seconds_total')] AS decode_seconds_total,
  signals[indexOf(names, 'decode_seconds_delta')] AS decode_seconds_delta,
  signals[indexOf(names, 'compute_input_seconds_total')] AS compute_input_seconds_total,
  signals[indexOf(names, 'compute_input_seconds_delta')] AS compute_input_seconds_delta,
  signals[indexOf(names, 'compute_infer_seconds_total')] AS compute_infer_seconds_total,
  signals[indexOf(names, 'compute_infer_seconds_delta')] AS compute_infer_seconds_delta,
  signals[indexOf(names, 'compute_output_seconds_total')] AS compute_output_seconds_total,
  signals[indexOf(names, 'compute_output_seconds_delta')] AS compute_output_seconds_delta
FROM {database}.land_samples
WHERE scope_name = 'servescope.sample';

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.engine_histograms_mv {on_cluster} TO {database}.engine_histograms AS
SELECT
  time,
  tenant, sender_key_id, sender_peer,
  toDateTime(intDiv(received_ns, 1000000000), 'UTC') AS received_at,
  instance, deployment, engine, model, dp_rank, region, version, recording,
  signal,
  count,
  sum,
  bounds,
  counts
FROM {database}.land_samples
ARRAY JOIN
  histogram_names AS signal,
  histogram_counts AS count,
  histogram_sums AS sum,
  histogram_bounds AS bounds,
  histogram_buckets AS counts
WHERE scope_name = 'servescope.sample';

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.host_samples_mv {on_cluster} TO {database}.host_samples AS
SELECT
  time,
  tenant, sender_key_id, sender_peer,
  toDateTime(intDiv(received_ns, 1000000000), 'UTC') AS received_at,
  instance,
  ResourceAttributes['process.name'] AS process_name,
  ResourceAttributes['process.pid'] AS process_pid,
  deployment, region, cluster, pod, node, recording,
  signals[indexOf(names, 'cpu_seconds_total')] AS cpu_seconds_total,
  signals[indexOf(names, 'cpu_delay_seconds_total')] AS cpu_delay_seconds_total,
  signals[indexOf(names, 'rss_bytes')] AS rss_bytes,
  signals[indexOf(names, 'threads')] AS threads,
  signals[indexOf(names, 'stopped')] AS stopped,
  signals[indexOf(names, 'involuntary_switches_total')] AS involuntary_switches_total,
  signals[indexOf(names, 'cpu_usage_ratio')] AS cpu_usage_ratio,
  signals[indexOf(names, 'load1')] AS load1,
  signals[indexOf(names, 'memory_available_bytes')] AS memory_available_bytes,
  signals[indexOf(names, 'cpu_pressure_some_ratio')] AS cpu_pressure_some_ratio,
  signals[indexOf(names, 'memory_pressure_some_ratio')] AS memory_pressure_some_ratio,
  signals[indexOf(names, 'io_pressure_some_ratio')] AS io_pressure_some_ratio
FROM {database}.land_samples
WHERE scope_name = 'servescope.host';

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.gpu_samples_mv {on_cluster} TO {database}.gpu_samples AS
SELECT
  time,
  tenant, sender_key_id, sender_peer,
  toDateTime(intDiv(received_ns, 1000000000), 'UTC') AS received_at,
  ResourceAttributes['hw.id'] AS gpu,
  ResourceAttributes['hw.name'] AS gpu_name,
  ResourceAttributes['hw.index'] AS gpu_index,
  instance,
  deployment, region, cluster, pod, node, recording,
  signals[indexOf(names, 'gpu_utilization_ratio')] AS gpu_utilization_ratio,
  signals[indexOf(names, 'memory_utilization_ratio')] AS memory_utilization_ratio,
  signals[indexOf(names, 'memory_used_bytes')] AS memory_used_bytes,
  signals[indexOf(names, 'memory_total_bytes')] AS memory_total_bytes,
  signals[indexOf(names, 'power_watts')] AS power_watts,
  signals[indexOf(names, 'power_limit_watts')] AS power_limit_watts,
  signals[indexOf(names, 'energy_joules_total')] AS energy_joules_total,
  signals[indexOf(names, 'temperature_celsius')] AS temperature_celsius,
  signals[indexOf(names, 'sm_clock_hertz')] AS sm_clock_hertz,
  signals[indexOf(names, 'memory_clock_hertz')] AS memory_clock_hertz,
  signals[indexOf(names, 'throttle_reasons')] AS throttle_reasons,
  signals[indexOf(names, 'ecc_uncorrected_total')] AS ecc_uncorrected_total,
  signals[indexOf(names, 'pcie_replay_total')] AS pcie_replay_total
FROM {database}.land_samples
WHERE scope_name = 'servescope.gpu';
