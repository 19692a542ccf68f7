-- Landing tables: shaped like the OTLP export requests, they keep nothing themselves. The bytes of a segment are
-- parsed here and the materialized views (001x) fan them out. Metadata of a request (tenant, receipt, batch) is
-- appended to its body as the fields 15001-15003.

CREATE TABLE IF NOT EXISTS {database}.land_traces {on_cluster}
(
  tenant String,
  received_ns UInt64,
  batch String,
  resource_spans Array(Tuple(
    resource Tuple(attributes {part:attributes}),
    scope_spans Array(Tuple(
      {part:scope},
      spans Array(Tuple(
        trace_id String,
        span_id String,
        trace_state String,
        parent_span_id String,
        name String,
        kind Int32,
        start_time_unix_nano UInt64,
        end_time_unix_nano UInt64,
        attributes {part:attributes},
        events Array(Tuple(time_unix_nano UInt64, name String, attributes {part:attributes})),
        links Array(Tuple(trace_id String, span_id String, trace_state String, attributes {part:attributes})),
        status Tuple(message String, code Int32)
      ))
    ))
  ))
)
ENGINE = Null;

CREATE TABLE IF NOT EXISTS {database}.land_metrics {on_cluster}
(
  tenant String,
  received_ns UInt64,
  batch String,
{part:resource_metrics}
)
ENGINE = Null;

CREATE TABLE IF NOT EXISTS {database}.land_logs {on_cluster}
(
  tenant String,
  received_ns UInt64,
  batch String,
  resource_logs Array(Tuple(
    resource Tuple(attributes {part:attributes}),
    scope_logs Array(Tuple(
      {part:scope},
      log_records Array(Tuple(
        time_unix_nano UInt64,
        observed_time_unix_nano UInt64,
        severity_number Int32,
        severity_text String,
        body Tuple({part:scalar}, array_value Tuple(values Array(Tuple({part:scalar}))), kvlist_value Tuple(values Array(Tuple(key String, value Tuple({part:scalar}))))),
        attributes {part:attributes},
        flags UInt32,
        trace_id String,
        span_id String,
        event_name String
      )),
      schema_url String
    )),
    schema_url String
  ))
)
ENGINE = Null;

-- Rows of what landed, in plain columns: the wide nested types are taken apart once, for each insert has to analyse
-- every view, and the analysis of one that reads deep into them costs more than a small batch itself.
CREATE TABLE IF NOT EXISTS {database}.land_spans {on_cluster}
(
  tenant String,
  received_ns UInt64,
  ResourceAttributes Map(LowCardinality(String), String),
{part:identity_columns},
  scope_name String,
  scope_version String,
  trace_id String,
  span_id String,
  parent_span_id String,
  trace_state String,
  name String,
  kind Int32,
  start_ns UInt64,
  end_ns UInt64,
  status_code Int32,
  status_message String,
  doubles Array(Float64),
  integers Array(Int64),
  flags Array(Bool),
  SpanAttributes Map(LowCardinality(String), String),
  event_ns Array(UInt64),
  event_names Array(String),
  event_attributes Array(Map(LowCardinality(String), String)),
  link_trace_ids Array(String),
  link_span_ids Array(String),
  link_trace_states Array(String),
  link_attributes Array(Map(LowCardinality(String), String))
)
ENGINE = Null;

-- Metrics that are not our agents' samples. Their views are the dearest to analyse, and a view that no row reaches is
-- not analysed at all: samples, which come each second, do not pay for them.
CREATE TABLE IF NOT EXISTS {database}.land_foreign_metrics {on_cluster}
(
{part:resource_metrics}
)
ENGINE = Null;

CREATE TABLE IF NOT EXISTS {database}.land_points {on_cluster}
(
  kind Enum8('none' = 0, 'gauge' = 1, 'sum' = 2, 'histogram' = 3, 'exponential_histogram' = 4, 'summary' = 5),
  ResourceAttributes Map(LowCardinality(String), String),
  ResourceSchemaUrl String,
  ScopeName String,
  ScopeVersion String,
  ScopeAttributes Map(LowCardinality(String), String),
  ScopeDroppedAttrCount UInt32,
  ScopeSchemaUrl String,
  MetricName String,
  MetricDescription String,
  MetricUnit String,
  AggregationTemporality Int32,
  IsMonotonic Bool,
  Attributes Map(LowCardinality(String), String),
  start_ns UInt64,
  time_ns UInt64,
  flags UInt32,
  value Float64,
  count UInt64,
  sum Float64,
  min Float64,
  max Float64,
  bucket_counts Array(UInt64),
  explicit_bounds Array(Float64),
  scale Int32,
  zero_count UInt64,
  positive_offset Int32,
  positive_counts Array(UInt64),
  negative_offset Int32,
  negative_counts Array(UInt64),
  quantiles Array(Float64),
  quantile_values Array(Float64),
  exemplar_attributes Array(Map(LowCardinality(String), String)),
  exemplar_ns Array(UInt64),
  exemplar_values Array(Float64),
  exemplar_span_ids Array(String),
  exemplar_trace_ids Array(String)
)
ENGINE = Null;

CREATE TABLE IF NOT EXISTS {database}.land_samples {on_cluster}
(
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

CREATE TABLE IF NOT EXISTS {database}.land_records {on_cluster}
(
  ResourceAttributes Map(LowCardinality(String), String),
{part:identity_columns},
  ResourceSchemaUrl String,
  ScopeSchemaUrl String,
  ScopeName String,
  ScopeVersion String,
  ScopeAttributes Map(LowCardinality(String), String),
  time_ns UInt64,
  severity_number Int32,
  severity_text String,
  body String,
  attributes Map(LowCardinality(String), String),
  flags UInt32,
  trace_id String,
  span_id String,
  event_name String
)
ENGINE = Null;
