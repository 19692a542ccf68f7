-- What becomes of a log record: everything is kept as a log, our agents' events also as what they are.

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.land_records_mv {on_cluster} TO {database}.land_records AS
WITH
{part:readers}
SELECT
  ResourceAttributes,
{part:identity},
  ResourceSchemaUrl,
  ScopeSchemaUrl,
  ScopeName,
  ScopeVersion,
  ScopeAttributes,
  if(record.time_unix_nano > 0, record.time_unix_nano, record.observed_time_unix_nano) AS time_ns,
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
    ResourceAttributes,
    ResourceSchemaUrl,
    scoped.schema_url AS ScopeSchemaUrl,
    scoped.scope.name AS ScopeName,
    scoped.scope.version AS ScopeVersion,
    scalar_map(scoped.scope.attributes) AS ScopeAttributes,
    arrayJoin(scoped.log_records) AS record
  FROM
  (
    SELECT attribute_map(resource) AS ResourceAttributes, ResourceSchemaUrl, arrayJoin(scoped_1) AS scoped
    FROM {database}.land_logs
    ARRAY JOIN
      resource_logs.resource.attributes AS resource,
      resource_logs.schema_url AS ResourceSchemaUrl,
      resource_logs.scope_logs AS scoped_1
  )
);

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.otel_logs_mv {on_cluster} TO {database}.otel_logs AS
SELECT
  fromUnixTimestamp64Nano(toInt64(least(time_ns, 9000000000000000000))) AS Timestamp,
  lower(hex(trace_id)) AS TraceId,
  lower(hex(span_id)) AS SpanId,
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
  event_name AS EventName
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
  CAST(attributes, 'Map(String, String)') AS attributes
FROM {database}.land_records
WHERE ScopeName = 'servescope.event' AND event_name != 'instance_config';

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.instance_config_mv {on_cluster} TO {database}.instance_config AS
SELECT
  fromUnixTimestamp64Milli(toInt64(intDiv(time_ns, 1000000)), 'UTC') AS time,
  instance,
  engine,
  version,
  recording,
  CAST(attributes, 'Map(String, String)') AS config
FROM {database}.land_records
WHERE ScopeName = 'servescope.event' AND event_name = 'instance_config';
