-- Every row says who sent it and when it came in. All views must hand that on and are made anew (0017 and on). Landing
-- tables keep nothing; those that collectors write to go first, so that an insert meanwhile fails and is repeated
-- instead of passing through half a chain of views.

DROP TABLE IF EXISTS {database}.land_traces {on_cluster} SYNC;
DROP TABLE IF EXISTS {database}.land_metrics {on_cluster} SYNC;
DROP TABLE IF EXISTS {database}.land_logs {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.land_spans_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.otel_traces_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.otel_traces_trace_id_ts_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.requests_edge_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.requests_vllm_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.triton_spans_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.request_keys_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.request_orphans_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.requests_1m_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.land_foreign_metrics_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.land_points_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.otel_metrics_gauge_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.otel_metrics_sum_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.otel_metrics_histogram_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.otel_metrics_exponential_histogram_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.otel_metrics_summary_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.land_samples_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.engine_samples_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.engine_histograms_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.host_samples_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.gpu_samples_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.land_records_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.otel_logs_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.events_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.instance_config_mv {on_cluster} SYNC;
DROP TABLE IF EXISTS {database}.land_spans {on_cluster} SYNC;
DROP TABLE IF EXISTS {database}.land_foreign_metrics {on_cluster} SYNC;
DROP TABLE IF EXISTS {database}.land_points {on_cluster} SYNC;
DROP TABLE IF EXISTS {database}.land_samples {on_cluster} SYNC;
DROP TABLE IF EXISTS {database}.land_records {on_cluster} SYNC;

-- Days of arrival are the partitions, not days of a sender's clock: one request whose spans lie on 300 days is one part.
-- Rows of an older store move over; when they were inserted is when they came. What is asked for by time is found by
-- the sorting key and by an index of each granule's times.

CREATE TABLE IF NOT EXISTS {database}.otel_traces_next {on_cluster}
(
  Timestamp DateTime64(9) CODEC(Delta(8), ZSTD(1)),
  TraceId String CODEC(ZSTD(1)),
  SpanId String CODEC(ZSTD(1)),
  ParentSpanId String CODEC(ZSTD(1)),
  TraceState String CODEC(ZSTD(1)),
  SpanName LowCardinality(String) CODEC(ZSTD(1)),
  SpanKind LowCardinality(String) CODEC(ZSTD(1)),
  ServiceName LowCardinality(String) CODEC(ZSTD(1)),
  ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  ScopeName String CODEC(ZSTD(1)),
  ScopeVersion String CODEC(ZSTD(1)),
  SpanAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  Duration UInt64 CODEC(ZSTD(1)),
  StatusCode LowCardinality(String) CODEC(ZSTD(1)),
  StatusMessage String CODEC(ZSTD(1)),
  Events Nested (
    Timestamp DateTime64(9),
    Name LowCardinality(String),
    Attributes Map(LowCardinality(String), String)
  ) CODEC(ZSTD(1)),
  Links Nested (
    TraceId String,
    SpanId String,
    TraceState String,
    Attributes Map(LowCardinality(String), String)
  ) CODEC(ZSTD(1)),
  tenant LowCardinality(String),
  sender_key_id LowCardinality(String),
  sender_peer LowCardinality(String),
  received_at DateTime('UTC') DEFAULT now('UTC') CODEC(DoubleDelta, ZSTD(1)),
  recording String ALIAS ResourceAttributes['servescope.recording'],
  inserted_at DateTime('UTC') MATERIALIZED now('UTC') CODEC(DoubleDelta, ZSTD(1)),
  INDEX idx_trace_id TraceId TYPE bloom_filter(0.001) GRANULARITY 1,
  INDEX idx_duration Duration TYPE minmax GRANULARITY 1,
  INDEX idx_time Timestamp TYPE minmax GRANULARITY 1
)
ENGINE = {engine:MergeTree}
PARTITION BY toDate(received_at)
ORDER BY (ServiceName, SpanName, Timestamp)
{ttl:otel_traces inserted_at 7}
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;
{replace:otel_traces received_at = inserted_at};

CREATE TABLE IF NOT EXISTS {database}.otel_traces_trace_id_ts_next {on_cluster}
(
  TraceId String CODEC(ZSTD(1)),
  Start DateTime CODEC(Delta, ZSTD(1)),
  End DateTime CODEC(Delta, ZSTD(1)),
  received_at DateTime('UTC') DEFAULT now('UTC') CODEC(DoubleDelta, ZSTD(1)),
  inserted_at DateTime('UTC') MATERIALIZED now('UTC') CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = {engine:MergeTree}
PARTITION BY toDate(received_at)
ORDER BY (TraceId, Start)
{ttl:otel_traces inserted_at 7}
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;
{replace:otel_traces_trace_id_ts received_at = inserted_at};

CREATE TABLE IF NOT EXISTS {database}.otel_logs_next {on_cluster}
(
  Timestamp DateTime64(9) CODEC(Delta(8), ZSTD(1)),
  TraceId String CODEC(ZSTD(1)),
  SpanId String CODEC(ZSTD(1)),
  TraceFlags UInt8,
  SeverityText LowCardinality(String) CODEC(ZSTD(1)),
  SeverityNumber UInt8,
  ServiceName LowCardinality(String) CODEC(ZSTD(1)),
  Body String CODEC(ZSTD(1)),
  ResourceSchemaUrl LowCardinality(String) CODEC(ZSTD(1)),
  ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  ScopeSchemaUrl LowCardinality(String) CODEC(ZSTD(1)),
  ScopeName String CODEC(ZSTD(1)),
  ScopeVersion LowCardinality(String) CODEC(ZSTD(1)),
  ScopeAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  LogAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  EventName String CODEC(ZSTD(1)),
  tenant LowCardinality(String),
  sender_key_id LowCardinality(String),
  sender_peer LowCardinality(String),
  received_at DateTime('UTC') DEFAULT now('UTC') CODEC(DoubleDelta, ZSTD(1)),
  recording String ALIAS ResourceAttributes['servescope.recording'],
  inserted_at DateTime('UTC') MATERIALIZED now('UTC') CODEC(DoubleDelta, ZSTD(1)),
  INDEX idx_trace_id TraceId TYPE bloom_filter(0.001) GRANULARITY 1,
  INDEX idx_body Body TYPE tokenbf_v1(32768, 3, 0) GRANULARITY 8,
  INDEX idx_time Timestamp TYPE minmax GRANULARITY 1
)
ENGINE = {engine:MergeTree}
PARTITION BY toDate(received_at)
ORDER BY (ServiceName, Timestamp)
{ttl:otel_logs inserted_at 14}
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;
{replace:otel_logs received_at = inserted_at};

CREATE TABLE IF NOT EXISTS {database}.otel_metrics_gauge_next {on_cluster}
(
  ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  ResourceSchemaUrl String CODEC(ZSTD(1)),
  ScopeName String CODEC(ZSTD(1)),
  ScopeVersion String CODEC(ZSTD(1)),
  ScopeAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  ScopeDroppedAttrCount UInt32 CODEC(ZSTD(1)),
  ScopeSchemaUrl String CODEC(ZSTD(1)),
  ServiceName LowCardinality(String) CODEC(ZSTD(1)),
  MetricName String CODEC(ZSTD(1)),
  MetricDescription String CODEC(ZSTD(1)),
  MetricUnit String CODEC(ZSTD(1)),
  Attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  StartTimeUnix DateTime64(9) CODEC(Delta, ZSTD(1)),
  TimeUnix DateTime64(9) CODEC(Delta, ZSTD(1)),
  Value Float64 CODEC(ZSTD(1)),
  Flags UInt32 CODEC(ZSTD(1)),
  Exemplars Nested (
    FilteredAttributes Map(LowCardinality(String), String),
    TimeUnix DateTime64(9),
    Value Float64,
    SpanId String,
    TraceId String
  ) CODEC(ZSTD(1)),
  tenant LowCardinality(String),
  sender_key_id LowCardinality(String),
  sender_peer LowCardinality(String),
  received_at DateTime('UTC') DEFAULT now('UTC') CODEC(DoubleDelta, ZSTD(1)),
  recording String ALIAS ResourceAttributes['servescope.recording'],
  inserted_at DateTime('UTC') MATERIALIZED now('UTC') CODEC(DoubleDelta, ZSTD(1)),
  INDEX idx_time TimeUnix TYPE minmax GRANULARITY 1
)
ENGINE = {engine:MergeTree}
PARTITION BY toDate(received_at)
ORDER BY (ServiceName, MetricName, Attributes, toUnixTimestamp64Nano(TimeUnix))
{ttl:otel_metrics inserted_at 14}
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;
{replace:otel_metrics_gauge received_at = inserted_at};

CREATE TABLE IF NOT EXISTS {database}.otel_metrics_sum_next {on_cluster}
(
  ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  ResourceSchemaUrl String CODEC(ZSTD(1)),
  ScopeName String CODEC(ZSTD(1)),
  ScopeVersion String CODEC(ZSTD(1)),
  ScopeAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  ScopeDroppedAttrCount UInt32 CODEC(ZSTD(1)),
  ScopeSchemaUrl String CODEC(ZSTD(1)),
  ServiceName LowCardinality(String) CODEC(ZSTD(1)),
  MetricName String CODEC(ZSTD(1)),
  MetricDescription String CODEC(ZSTD(1)),
  MetricUnit String CODEC(ZSTD(1)),
  Attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  StartTimeUnix DateTime64(9) CODEC(Delta, ZSTD(1)),
  TimeUnix DateTime64(9) CODEC(Delta, ZSTD(1)),
  Value Float64 CODEC(ZSTD(1)),
  Flags UInt32 CODEC(ZSTD(1)),
  Exemplars Nested (
    FilteredAttributes Map(LowCardinality(String), String),
    TimeUnix DateTime64(9),
    Value Float64,
    SpanId String,
    TraceId String
  ) CODEC(ZSTD(1)),
  AggregationTemporality Int32 CODEC(ZSTD(1)),
  IsMonotonic Boolean CODEC(Delta, ZSTD(1)),
  tenant LowCardinality(String),
  sender_key_id LowCardinality(String),
  sender_peer LowCardinality(String),
  received_at DateTime('UTC') DEFAULT now('UTC') CODEC(DoubleDelta, ZSTD(1)),
  recording String ALIAS ResourceAttributes['servescope.recording'],
  inserted_at DateTime('UTC') MATERIALIZED now('UTC') CODEC(DoubleDelta, ZSTD(1)),
  INDEX idx_time TimeUnix TYPE minmax GRANULARITY 1
)
ENGINE = {engine:MergeTree}
PARTITION BY toDate(received_at)
ORDER BY (ServiceName, MetricName, Attributes, toUnixTimestamp64Nano(TimeUnix))
{ttl:otel_metrics inserted_at 14}
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;
{replace:otel_metrics_sum received_at = inserted_at};

CREATE TABLE IF NOT EXISTS {database}.otel_metrics_histogram_next {on_cluster}
(
  ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  ResourceSchemaUrl String CODEC(ZSTD(1)),
  ScopeName String CODEC(ZSTD(1)),
  ScopeVersion String CODEC(ZSTD(1)),
  ScopeAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  ScopeDroppedAttrCount UInt32 CODEC(ZSTD(1)),
  ScopeSchemaUrl String CODEC(ZSTD(1)),
  ServiceName LowCardinality(String) CODEC(ZSTD(1)),
  MetricName String CODEC(ZSTD(1)),
  MetricDescription String CODEC(ZSTD(1)),
  MetricUnit String CODEC(ZSTD(1)),
  Attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  StartTimeUnix DateTime64(9) CODEC(Delta, ZSTD(1)),
  TimeUnix DateTime64(9) CODEC(Delta, ZSTD(1)),
  Count UInt64 CODEC(Delta, ZSTD(1)),
  Sum Float64 CODEC(ZSTD(1)),
  BucketCounts Array(UInt64) CODEC(ZSTD(1)),
  ExplicitBounds Array(Float64) CODEC(ZSTD(1)),
  Exemplars Nested (
    FilteredAttributes Map(LowCardinality(String), String),
    TimeUnix DateTime64(9),
    Value Float64,
    SpanId String,
    TraceId String
  ) CODEC(ZSTD(1)),
  Flags UInt32 CODEC(ZSTD(1)),
  Min Float64 CODEC(ZSTD(1)),
  Max Float64 CODEC(ZSTD(1)),
  AggregationTemporality Int32 CODEC(ZSTD(1)),
  tenant LowCardinality(String),
  sender_key_id LowCardinality(String),
  sender_peer LowCardinality(String),
  received_at DateTime('UTC') DEFAULT now('UTC') CODEC(DoubleDelta, ZSTD(1)),
  recording String ALIAS ResourceAttributes['servescope.recording'],
  inserted_at DateTime('UTC') MATERIALIZED now('UTC') CODEC(DoubleDelta, ZSTD(1)),
  INDEX idx_time TimeUnix TYPE minmax GRANULARITY 1
)
ENGINE = {engine:MergeTree}
PARTITION BY toDate(received_at)
ORDER BY (ServiceName, MetricName, Attributes, toUnixTimestamp64Nano(TimeUnix))
{ttl:otel_metrics inserted_at 14}
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;
{replace:otel_metrics_histogram received_at = inserted_at};

CREATE TABLE IF NOT EXISTS {database}.otel_metrics_exponential_histogram_next {on_cluster}
(
  ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  ResourceSchemaUrl String CODEC(ZSTD(1)),
  ScopeName String CODEC(ZSTD(1)),
  ScopeVersion String CODEC(ZSTD(1)),
  ScopeAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  ScopeDroppedAttrCount UInt32 CODEC(ZSTD(1)),
  ScopeSchemaUrl String CODEC(ZSTD(1)),
  ServiceName LowCardinality(String) CODEC(ZSTD(1)),
  MetricName String CODEC(ZSTD(1)),
  MetricDescription String CODEC(ZSTD(1)),
  MetricUnit String CODEC(ZSTD(1)),
  Attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  StartTimeUnix DateTime64(9) CODEC(Delta, ZSTD(1)),
  TimeUnix DateTime64(9) CODEC(Delta, ZSTD(1)),
  Count UInt64 CODEC(Delta, ZSTD(1)),
  Sum Float64 CODEC(ZSTD(1)),
  Scale Int32 CODEC(ZSTD(1)),
  ZeroCount UInt64 CODEC(ZSTD(1)),
  PositiveOffset Int32 CODEC(ZSTD(1)),
  PositiveBucketCounts Array(UInt64) CODEC(ZSTD(1)),
  NegativeOffset Int32 CODEC(ZSTD(1)),
  NegativeBucketCounts Array(UInt64) CODEC(ZSTD(1)),
  Exemplars Nested (
    FilteredAttributes Map(LowCardinality(String), String),
    TimeUnix DateTime64(9),
    Value Float64,
    SpanId String,
    TraceId String
  ) CODEC(ZSTD(1)),
  Flags UInt32 CODEC(ZSTD(1)),
  Min Float64 CODEC(ZSTD(1)),
  Max Float64 CODEC(ZSTD(1)),
  AggregationTemporality Int32 CODEC(ZSTD(1)),
  tenant LowCardinality(String),
  sender_key_id LowCardinality(String),
  sender_peer LowCardinality(String),
  received_at DateTime('UTC') DEFAULT now('UTC') CODEC(DoubleDelta, ZSTD(1)),
  recording String ALIAS ResourceAttributes['servescope.recording'],
  inserted_at DateTime('UTC') MATERIALIZED now('UTC') CODEC(DoubleDelta, ZSTD(1)),
  INDEX idx_time TimeUnix TYPE minmax GRANULARITY 1
)
ENGINE = {engine:MergeTree}
PARTITION BY toDate(received_at)
ORDER BY (ServiceName, MetricName, Attributes, toUnixTimestamp64Nano(TimeUnix))
{ttl:otel_metrics inserted_at 14}
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;
{replace:otel_metrics_exponential_histogram received_at = inserted_at};

CREATE TABLE IF NOT EXISTS {database}.otel_metrics_summary_next {on_cluster}
(
  ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  ResourceSchemaUrl String CODEC(ZSTD(1)),
  ScopeName String CODEC(ZSTD(1)),
  ScopeVersion String CODEC(ZSTD(1)),
  ScopeAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  ScopeDroppedAttrCount UInt32 CODEC(ZSTD(1)),
  ScopeSchemaUrl String CODEC(ZSTD(1)),
  ServiceName LowCardinality(String) CODEC(ZSTD(1)),
  MetricName String CODEC(ZSTD(1)),
  MetricDescription String CODEC(ZSTD(1)),
  MetricUnit String CODEC(ZSTD(1)),
  Attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  StartTimeUnix DateTime64(9) CODEC(Delta, ZSTD(1)),
  TimeUnix DateTime64(9) CODEC(Delta, ZSTD(1)),
  Count UInt64 CODEC(Delta, ZSTD(1)),
  Sum Float64 CODEC(ZSTD(1)),
  ValueAtQuantiles Nested (
    Quantile Float64,
    Value Float64
  ) CODEC(ZSTD(1)),
  Flags UInt32 CODEC(ZSTD(1)),
  tenant LowCardinality(String),
  sender_key_id LowCardinality(String),
  sender_peer LowCardinality(String),
  received_at DateTime('UTC') DEFAULT now('UTC') CODEC(DoubleDelta, ZSTD(1)),
  recording String ALIAS ResourceAttributes['servescope.recording'],
  inserted_at DateTime('UTC') MATERIALIZED now('UTC') CODEC(DoubleDelta, ZSTD(1)),
  INDEX idx_time TimeUnix TYPE minmax GRANULARITY 1
)
ENGINE = {engine:MergeTree}
PARTITION BY toDate(received_at)
ORDER BY (ServiceName, MetricName, Attributes, toUnixTimestamp64Nano(TimeUnix))
{ttl:otel_metrics inserted_at 14}
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;
{replace:otel_metrics_summary received_at = inserted_at};
