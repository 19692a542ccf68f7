-- What becomes of a log record: everything is kept as a log, our agents' events also as what they are.

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.otel_logs_mv {on_cluster} TO {database}.otel_logs AS
WITH
{part:readers}
SELECT
  instant(if(record.time_unix_nano > 0, record.time_unix_nano, record.observed_time_unix_nano)) AS Timestamp,
  lower(hex(record.trace_id)) AS TraceId,
  lower(hex(record.span_id)) AS SpanId,
  toUInt8(bitAnd(record.flags, 255)) AS TraceFlags,
  record.severity_text AS SeverityText,
  toUInt8(if(record.severity_number BETWEEN 0 AND 255, record.severity_number, 0)) AS SeverityNumber,
  ResourceAttributes['service.name'] AS ServiceName,
  value_text(record.body) AS Body,
  ResourceSchemaUrl,
  ResourceAttributes,
  ScopeSchemaUrl,
  ScopeName,
  ScopeVersion,
  ScopeAttributes,
  attribute_map(record.attributes) AS LogAttributes,
  record.event_name AS EventName
FROM
(
  SELECT
    ResourceAttributes,
    ResourceSchemaUrl,
    scoped.schema_url AS ScopeSchemaUrl,
    scoped.scope.name AS ScopeName,
    scoped.scope.version AS ScopeVersion,
    attribute_map(scoped.scope.attributes) AS ScopeAttributes,
    arrayJoin(scoped.log_records) AS record
  FROM
  (
    SELECT
      attribute_map(resourced.resource.attributes) AS ResourceAttributes,
      resourced.schema_url AS ResourceSchemaUrl,
      arrayJoin(resourced.scope_logs) AS scoped
    FROM (SELECT arrayJoin(resource_logs) AS resourced FROM {database}.land_logs)
  )
);

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.events_mv {on_cluster} TO {database}.events AS
WITH
{part:readers}
SELECT
  fromUnixTimestamp64Milli(toInt64(intDiv(if(record.time_unix_nano > 0, record.time_unix_nano, record.observed_time_unix_nano), 1000000)), 'UTC') AS time,
  record.event_name AS event,
  value_text(record.body) AS message,
  instance,
  deployment,
  engine,
  model,
  region,
  version,
  recording,
  attribute_map(record.attributes) AS attributes
FROM
(
{part:events}
)
WHERE record.event_name != 'instance_config';

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.instance_config_mv {on_cluster} TO {database}.instance_config AS
WITH
{part:readers}
SELECT
  fromUnixTimestamp64Milli(toInt64(intDiv(if(record.time_unix_nano > 0, record.time_unix_nano, record.observed_time_unix_nano), 1000000)), 'UTC') AS time,
  instance,
  engine,
  version,
  recording,
  attribute_map(record.attributes) AS config
FROM
(
{part:events}
)
WHERE record.event_name = 'instance_config';
