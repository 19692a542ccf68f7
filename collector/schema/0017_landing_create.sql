-- The landing tables again, with who sent a row and when it came: tenant is whom the sender's key speaks for until the
-- views have looked at what the sender says of itself.

-- Rows of what landed, in plain columns: the wide nested types are taken apart once, for each insert has to analyse
-- every view, and the analysis of one that reads deep into them costs more than a small batch itself.
CREATE TABLE IF NOT EXISTS {database}.land_spans {on_cluster}
(
  received_ns UInt64,
  tenant LowCardinality(String),
{part:sender_columns},
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
  tenant LowCardinality(String),
  received_ns UInt64,
  sender_key_id LowCardinality(String),
  sender_peer LowCardinality(String),
{part:resource_metrics}
)
ENGINE = Null;

CREATE TABLE IF NOT EXISTS {database}.land_points {on_cluster}
(
  received_ns UInt64,
  tenant LowCardinality(String),
  sender_key_id LowCardinality(String),
  sender_peer LowCardinality(String),
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

CREATE TABLE IF NOT EXISTS {database}.land_records {on_cluster}
(
  received_ns UInt64,
  tenant LowCardinality(String),
  sender_key_id LowCardinality(String),
  sender_peer LowCardinality(String),
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

-- Everything is kept as a log, our agents' events also as what they are.
CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.otel_logs_mv {on_cluster} TO {database}.otel_logs AS
WITH
{part:time_readers},
{part:id_readers}
SELECT
  instant(time_ns) AS Timestamp,
  trace_text(trace_id) AS TraceId,
  span_text(span_id) AS SpanId,
  toUInt8(bitAnd(flags, 255)) AS TraceFlags,
  severity_text AS SeverityText,
  toUInt8(if(severity_number BETWEEN 0 AND 255, severity_number, 0)) AS SeverityNumber,
  ResourceAttributes['service.name'] AS ServiceName,
  body AS Body,
  ResourceSchemaUrl,
  ResourceAttributes,
  ScopeSchemaUrl,
  ScopeName,
  ScopeVersion,
  ScopeAttributes,
  attributes AS LogAttributes,
  event_name AS EventName,
  tenant,
  sender_key_id,
  sender_peer,
  toDateTime(intDiv(received_ns, 1000000000), 'UTC') AS received_at
FROM {database}.land_records;

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.events_mv {on_cluster} TO {database}.events AS
SELECT
  fromUnixTimestamp64Milli(toInt64(intDiv(time_ns, 1000000)), 'UTC') AS time,
  event_name AS event,
  body AS message,
  instance,
  deployment,
  engine,
  model,
  region,
  version,
  recording,
  CAST(attributes, 'Map(String, String)') AS attributes,
  tenant,
  sender_key_id,
  sender_peer,
  toDateTime(intDiv(received_ns, 1000000000), 'UTC') AS received_at
FROM {database}.land_records
WHERE ScopeName = 'servescope.event' AND event_name != 'instance_config';

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.instance_config_mv {on_cluster} TO {database}.instance_config AS
SELECT
  fromUnixTimestamp64Milli(toInt64(intDiv(time_ns, 1000000)), 'UTC') AS time,
  instance,
  engine,
  version,
  recording,
  CAST(attributes, 'Map(String, String)') AS config,
  tenant,
  sender_key_id,
  sender_peer,
  toDateTime(intDiv(received_ns, 1000000000), 'UTC') AS received_at
FROM {database}.land_records
WHERE ScopeName = 'servescope.event' AND event_name = 'instance_config';

CREATE TABLE IF NOT EXISTS {database}.land_logs {on_cluster}
(
{part:landing_columns},
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

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.land_records_mv {on_cluster} TO {database}.land_records AS
WITH
{part:value_readers},
{part:time_readers}
SELECT
  arrival_ns(r.received_ns) AS received_ns,
  multiIf(
    r.tenant != '', r.tenant,
    attributes['servescope.tenant'] != '', attributes['servescope.tenant'],
    ResourceAttributes['servescope.tenant']) AS tenant,
  sender_key_id,
  sender_peer,
  ResourceAttributes,
{part:identity},
  ResourceSchemaUrl,
  ScopeSchemaUrl,
  ScopeName,
  ScopeVersion,
  ScopeAttributes,
  multiIf(
    record.time_unix_nano > 0, record.time_unix_nano,
    record.observed_time_unix_nano > 0, record.observed_time_unix_nano,
    received_ns) AS time_ns,
  record.severity_number AS severity_number,
  record.severity_text AS severity_text,
  value_text(
    record.body.value, record.body.string_value, record.body.double_value, record.body.int_value, record.body.bool_value,
    record.body.bytes_value, record.body.array_value.values, record.body.kvlist_value.values) AS body,
  attribute_map(record.attributes) AS attributes,
  record.flags AS flags,
  record.trace_id AS trace_id,
  record.span_id AS span_id,
  record.event_name AS event_name
FROM
(
  SELECT
    received_ns, tenant, sender_key_id, sender_peer,
    ResourceAttributes,
    ResourceSchemaUrl,
    scoped.schema_url AS ScopeSchemaUrl,
    scoped.scope.name AS ScopeName,
    scoped.scope.version AS ScopeVersion,
    scalar_map(scoped.scope.attributes) AS ScopeAttributes,
    arrayJoin(scoped.log_records) AS record
  FROM
  (
    SELECT
      received_ns, tenant, sender_key_id, sender_peer,
      attribute_map(resource) AS ResourceAttributes, ResourceSchemaUrl, arrayJoin(scoped_1) AS scoped
    FROM {database}.land_logs
    ARRAY JOIN
      resource_logs.resource.attributes AS resource,
      resource_logs.schema_url AS ResourceSchemaUrl,
      resource_logs.scope_logs AS scoped_1
  )
) AS r;
