-- What an account of causes found to keep, a period at a time. Working it out again writes the same key: it counts once
-- (read with FINAL).

CREATE TABLE IF NOT EXISTS {database}.cause_references {on_cluster}
(
  since DateTime64(3, 'UTC') CODEC(ZSTD(1)),
  until DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
  deployment LowCardinality(String),
  model LowCardinality(String),
  route LowCardinality(String),
  has_engine UInt8,
  versions Array(LowCardinality(String)) CODEC(ZSTD(1)),
  requests UInt64 CODEC(ZSTD(1)),
  base_seconds Map(LowCardinality(String), Float64) CODEC(ZSTD(1)),
  prefill_token_seconds Float64 CODEC(ZSTD(1)),
  prefill_token_error_seconds Float64 CODEC(ZSTD(1)),
  output_token_seconds Float64 CODEC(ZSTD(1)),
  output_token_error_seconds Float64 CODEC(ZSTD(1)),
  prompt_tokens Float64 CODEC(ZSTD(1)),
  uncached_tokens Float64 CODEC(ZSTD(1)),
  output_tokens Float64 CODEC(ZSTD(1)),
  e2e_seconds Float64 CODEC(ZSTD(1)),
  spread_seconds Float64 CODEC(ZSTD(1)),
  computed_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') CODEC(ZSTD(1))
)
ENGINE = {engine:ReplacingMergeTree(computed_at)}
PARTITION BY toYYYYMM(until)
ORDER BY (until, deployment, model, route, has_engine)
{ttl:causes toDateTime(until) 400}
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS {database}.cause_noise {on_cluster}
(
  since DateTime64(3, 'UTC') CODEC(ZSTD(1)),
  until DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
  deployment LowCardinality(String),
  cause LowCardinality(String),
  blocks UInt32 CODEC(ZSTD(1)),
  mean_load Float64 CODEC(ZSTD(1)),
  load_deviation Float64 CODEC(ZSTD(1)),
  computed_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') CODEC(ZSTD(1))
)
ENGINE = {engine:ReplacingMergeTree(computed_at)}
PARTITION BY toYYYYMM(until)
ORDER BY (until, deployment, cause)
{ttl:causes toDateTime(until) 400}
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS {database}.cause_seconds {on_cluster}
(
  time DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
  deployment LowCardinality(String),
  model LowCardinality(String),
  instance LowCardinality(String),
  tenant LowCardinality(String),
  cause LowCardinality(String),
  phase LowCardinality(String),
  driver LowCardinality(String),
  by_tenant LowCardinality(String),
  by_instance LowCardinality(String),
  by_version LowCardinality(String),
  by_gpu String CODEC(ZSTD(1)),
  requests Float64 CODEC(ZSTD(1)),
  seconds Float64 CODEC(ZSTD(1)),
  reference_seconds Float64 CODEC(ZSTD(1)),
  computed_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') CODEC(ZSTD(1))
)
ENGINE = {engine:ReplacingMergeTree(computed_at)}
PARTITION BY toYYYYMM(time)
ORDER BY (time, deployment, model, instance, tenant, cause, phase)
{ttl:causes toDateTime(time) 400}
SETTINGS non_replicated_deduplication_window = 10000;
