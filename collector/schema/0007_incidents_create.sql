-- What the alerting keeps: transitions and timelines are append-only, an incident's or a notification's current state
-- is its row of the highest version (read with FINAL).

CREATE TABLE IF NOT EXISTS {database}.alert_transitions {on_cluster}
(
  time DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
  rule LowCardinality(String),
  labels Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  state LowCardinality(String),
  value Float64 CODEC(ZSTD(1)),
  threshold Float64 CODEC(ZSTD(1)),
  reason String CODEC(ZSTD(1)),
  incident_id String CODEC(ZSTD(1))
)
ENGINE = {engine:MergeTree}
PARTITION BY toYYYYMM(time)
ORDER BY (rule, time)
{ttl:incidents toDateTime(time) 400}
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS {database}.incidents {on_cluster}
(
  id String CODEC(ZSTD(1)),
  opened_at DateTime64(3, 'UTC') CODEC(ZSTD(1)),
  updated_at DateTime64(3, 'UTC') CODEC(ZSTD(1)),
  resolved_at Nullable(DateTime64(3, 'UTC')) CODEC(ZSTD(1)),
  state LowCardinality(String),
  severity LowCardinality(String),
  title String CODEC(ZSTD(1)),
  summary String CODEC(ZSTD(1)),
  labels Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  owner String CODEC(ZSTD(1)),
  version UInt64
)
ENGINE = {engine:ReplacingMergeTree(version)}
ORDER BY id
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS {database}.incident_events {on_cluster}
(
  time DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
  incident_id String CODEC(ZSTD(1)),
  kind LowCardinality(String),
  message String CODEC(ZSTD(1)),
  attributes Map(String, String) CODEC(ZSTD(1))
)
ENGINE = {engine:MergeTree}
PARTITION BY toYYYYMM(time)
ORDER BY (incident_id, time)
{ttl:incidents toDateTime(time) 400}
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS {database}.notifications {on_cluster}
(
  id String CODEC(ZSTD(1)),
  time DateTime64(3, 'UTC') CODEC(ZSTD(1)),
  incident_id String CODEC(ZSTD(1)),
  notifier LowCardinality(String),
  action LowCardinality(String),
  dedup_key String CODEC(ZSTD(1)),
  status LowCardinality(String),
  attempts UInt32,
  last_error String CODEC(ZSTD(1)),
  destination String CODEC(ZSTD(1)),
  payload String CODEC(ZSTD(1)),
  sent_at Nullable(DateTime64(3, 'UTC')) CODEC(ZSTD(1)),
  version UInt64
)
ENGINE = {engine:ReplacingMergeTree(version)}
ORDER BY id
SETTINGS non_replicated_deduplication_window = 10000;
