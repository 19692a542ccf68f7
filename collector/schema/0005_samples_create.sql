-- One row per instance, model and rank and scrape. NULL = the server does not say, which is never shown as 0.
-- Replacing by the natural key: a sample delivered twice is one row once merged.

CREATE TABLE IF NOT EXISTS {database}.engine_samples {on_cluster}
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
  inserted_at DateTime('UTC') MATERIALIZED now('UTC') CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = {engine:ReplacingMergeTree}
PARTITION BY toDate(time)
ORDER BY (instance, model, dp_rank, time)
{ttl:engine_samples inserted_at 30}
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS {database}.engine_histograms {on_cluster}
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
  inserted_at DateTime('UTC') MATERIALIZED now('UTC') CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = {engine:ReplacingMergeTree}
PARTITION BY toDate(time)
ORDER BY (instance, model, dp_rank, signal, time)
{ttl:engine_histograms inserted_at 30}
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

-- A row per process of a server, and one with process_name 'host' for the machine. NULL = not measured here.
CREATE TABLE IF NOT EXISTS {database}.host_samples {on_cluster}
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
  inserted_at DateTime('UTC') MATERIALIZED now('UTC') CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = {engine:ReplacingMergeTree}
PARTITION BY toDate(time)
ORDER BY (node, instance, process_name, process_pid, time)
{ttl:host_samples inserted_at 14}
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS {database}.gpu_samples {on_cluster}
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
  inserted_at DateTime('UTC') MATERIALIZED now('UTC') CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = {engine:ReplacingMergeTree}
PARTITION BY toDate(time)
ORDER BY (gpu, instance, time)
{ttl:gpu_samples inserted_at 30}
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;
