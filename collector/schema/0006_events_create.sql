-- Anything that happened at a time, and what a server was configured with at that time.

CREATE TABLE IF NOT EXISTS {database}.events {on_cluster}
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
  inserted_at DateTime('UTC') MATERIALIZED now('UTC') CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = {engine:ReplacingMergeTree}
PARTITION BY toYYYYMM(time)
ORDER BY (time, event, instance, model, message)
{ttl:events inserted_at 400}
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS {database}.instance_config {on_cluster}
(
  time DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
  instance LowCardinality(String),
  engine LowCardinality(String),
  version LowCardinality(String),
  recording LowCardinality(String),
  config Map(String, String) CODEC(ZSTD(1)),
  inserted_at DateTime('UTC') MATERIALIZED now('UTC') CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = {engine:ReplacingMergeTree}
PARTITION BY toYYYYMM(time)
ORDER BY (instance, time, recording)
{ttl:events inserted_at 400}
SETTINGS non_replicated_deduplication_window = 10000;
