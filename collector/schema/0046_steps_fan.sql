-- What becomes of a probe's log records: rows of tables of their own. An attribute is a column there, an array of which
-- each element is a row's; what is no list of numbers is unknown, and no row is made of more than 10,000.

DROP VIEW IF EXISTS {database}.land_records_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.otel_logs_mv {on_cluster} SYNC;

ALTER TABLE {database}.land_records {on_cluster}
  ADD COLUMN IF NOT EXISTS sender_tenant LowCardinality(String) AFTER tenant;

-- Everything is kept as a log, but a probe's rows, of which one record has hundreds.
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
FROM {database}.land_records
WHERE ScopeName != 'servescope.step';

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.engine_steps_mv {on_cluster} TO {database}.engine_steps AS
SELECT
  fromUnixTimestamp64Micro(intDiv(completed_ns, 1000), 'UTC') AS time,
  if(scheduled_ns > 0, fromUnixTimestamp64Micro(intDiv(scheduled_ns, 1000), 'UTC'), NULL) AS scheduled_at,
{part:identity_names},
  pid,
  toUInt64(ifNull(told.3, 0)) AS counter,
  accurateCastOrNull(told.4, 'UInt32') AS in_flight,
  accurateCastOrNull(told.5, 'UInt32') AS running,
  accurateCastOrNull(told.6, 'UInt32') AS waiting,
  accurateCastOrNull(told.7, 'UInt32') AS deferred,
  toFloat32(told.8) AS kv_cache_usage_ratio,
  accurateCastOrNull(told.9, 'UInt32') AS prefill_requests,
  accurateCastOrNull(told.10, 'UInt32') AS prefill_tokens,
  accurateCastOrNull(told.11, 'UInt32') AS decode_requests,
  accurateCastOrNull(told.12, 'UInt32') AS decode_tokens,
  accurateCastOrNull(told.13, 'UInt32') AS prompt_tokens,
  accurateCastOrNull(told.14, 'UInt32') AS cached_tokens,
  accurateCastOrNull(told.15, 'UInt32') AS generation_tokens,
  accurateCastOrNull(told.16, 'UInt32') AS first_tokens,
  accurateCastOrNull(told.17, 'UInt32') AS finished,
  accurateCastOrNull(told.18, 'UInt32') AS preemptions,
  accurateCastOrNull(told.19, 'UInt32') AS prefix_queries,
  accurateCastOrNull(told.20, 'UInt32') AS prefix_hits,
  accurateCastOrNull(told.21, 'UInt32') AS external_queries,
  accurateCastOrNull(told.22, 'UInt32') AS external_hits,
  accurateCastOrNull(told.23, 'UInt32') AS evictions,
  accurateCastOrNull(told.24, 'UInt32') AS drafts,
  accurateCastOrNull(told.25, 'UInt32') AS draft_tokens,
  accurateCastOrNull(told.26, 'UInt32') AS accepted_tokens,
  accurateCastOrNull(told.27, 'UInt32') AS loras_running,
  accurateCastOrNull(told.28, 'UInt32') AS loras_waiting,
  toFloat32(told.29) AS elapsed_seconds,
  tenant, sender_key_id, sender_peer,
  toDateTime(intDiv(received_ns, 1000000000), 'UTC') AS received_at
FROM
(
  SELECT
    *,
    toInt64(if(ifNull(told.1, 0) BETWEEN 1000000000000000000 AND 9000000000000000000, assumeNotNull(told.1), least(time_ns, 9000000000000000000))) AS completed_ns,
    toInt64(if(ifNull(told.2, 0) BETWEEN 1000000000000000000 AND 9000000000000000000, assumeNotNull(told.2), 0)) AS scheduled_ns
  FROM
  (
    WITH
      k -> arrayResize(JSONExtract(attributes[k], 'Array(Nullable(UInt64))'), rows) AS instants,
      k -> arrayResize(JSONExtract(attributes[k], 'Array(Nullable(Float64))'), rows) AS column
    SELECT
      received_ns, time_ns, tenant, sender_key_id, sender_peer,
{part:identity_names},
      toUInt32OrZero(ResourceAttributes['process.pid']) AS pid,
      least(length(JSONExtract(attributes['counter'], 'Array(Nullable(UInt64))')), 10000) AS rows,
      -- zipped, not looked up by row: a lambda that holds the columns copies them for each
      arrayJoin(arrayZip(instants('completed_ns'), instants('scheduled_ns'),
      column('counter'), column('in_flight'), column('running'), column('waiting'), column('deferred'),
      column('kv_cache_usage_ratio'), column('prefill_requests'), column('prefill_tokens'), column('decode_requests'), column('decode_tokens'),
      column('prompt_tokens'), column('cached_tokens'), column('generation_tokens'), column('first_tokens'), column('finished'),
      column('preemptions'), column('prefix_queries'), column('prefix_hits'), column('external_queries'), column('external_hits'),
      column('evictions'), column('drafts'), column('draft_tokens'), column('accepted_tokens'), column('loras_running'),
      column('loras_waiting'), column('elapsed_seconds'))) AS told
    FROM {database}.land_records
    WHERE ScopeName = 'servescope.step' AND event_name = 'engine_steps'
  )
);

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.finished_requests_mv {on_cluster} TO {database}.finished_requests AS
SELECT
  now64(3, 'UTC') AS inserted_at,
  fromUnixTimestamp64Milli(intDiv(finished_ns, 1000000) - toInt64(ifNull(if(told.4 BETWEEN 0 AND 1e6, told.4, 0), 0) * 1000), 'UTC') AS time,
  fromUnixTimestamp64Micro(intDiv(finished_ns, 1000), 'UTC') AS finished_at,
  ifNull(told.2, '') AS request_id,
  ifNull(told.3, '') AS reason,
{part:identity_names},
  pid,
  toFloat32(told.4) AS e2e_seconds,
  toFloat32(told.5) AS queued_seconds,
  toFloat32(told.6) AS prefill_seconds,
  toFloat32(told.7) AS inference_seconds,
  toFloat32(told.8) AS decode_seconds,
  accurateCastOrNull(told.9, 'UInt32') AS preemptions,
  accurateCastOrNull(told.10, 'UInt32') AS prompt_tokens,
  accurateCastOrNull(told.11, 'UInt32') AS generation_tokens,
  accurateCastOrNull(told.12, 'UInt32') AS cached_tokens,
  tenant,
  sender_tenant,
  sender_key_id, sender_peer,
  toDateTime(intDiv(received_ns, 1000000000), 'UTC') AS received_at
FROM
(
  SELECT
    *,
    toInt64(if(ifNull(told.1, 0) BETWEEN 1000000000000000000 AND 9000000000000000000, assumeNotNull(told.1), least(time_ns, 9000000000000000000))) AS finished_ns
  FROM
  (
    WITH
      k -> arrayResize(JSONExtract(attributes[k], 'Array(Nullable(String))'), rows) AS words,
      k -> arrayResize(JSONExtract(attributes[k], 'Array(Nullable(Float64))'), rows) AS column
    SELECT
      received_ns, time_ns, tenant, sender_tenant, sender_key_id, sender_peer,
{part:identity_names},
      toUInt32OrZero(ResourceAttributes['process.pid']) AS pid,
      JSONExtract(attributes['finished_ns'], 'Array(Nullable(UInt64))') AS instants,
      least(length(instants), 10000) AS rows,
      arrayJoin(arrayZip(arrayResize(instants, rows), words('request_id'), words('reason'),
      column('e2e_seconds'), column('queued_seconds'), column('prefill_seconds'), column('inference_seconds'),
      column('decode_seconds'), column('preemptions'), column('prompt_tokens'), column('generation_tokens'),
      column('cached_tokens'))) AS told
    FROM {database}.land_records
    WHERE ScopeName = 'servescope.step' AND event_name = 'finished_requests'
  )
);

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.engine_steps_1s_mv {on_cluster} TO {database}.engine_steps_1s AS
SELECT
  toDateTime(s.time, 'UTC') AS time,
{part:identity_names},
  tenant,
  sender_key_id,
  count() AS rows,
  count(s.running) AS steps,
  sum(toUInt64(ifNull(s.running, 0))) AS running_sum,
  max(s.running) AS running_max,
  sum(toUInt64(ifNull(s.waiting, 0))) AS waiting_sum,
  max(s.waiting) AS waiting_max,
  max(s.deferred) AS deferred_max,
  max(s.in_flight) AS in_flight_max,
  sum(toFloat64(ifNull(s.kv_cache_usage_ratio, 0))) AS kv_cache_usage_ratio_sum,
  max(s.kv_cache_usage_ratio) AS kv_cache_usage_ratio_max,
  sum(toUInt64(s.prefill_requests)) AS prefill_requests,
  sum(toUInt64(s.prefill_tokens)) AS prefill_tokens,
  sum(toUInt64(s.decode_requests)) AS decode_requests,
  sum(toUInt64(s.decode_tokens)) AS decode_tokens,
  sum(toUInt64(s.prompt_tokens)) AS prompt_tokens,
  sum(toUInt64(s.cached_tokens)) AS cached_tokens,
  sum(toUInt64(s.generation_tokens)) AS generation_tokens,
  sum(toUInt64(s.first_tokens)) AS first_tokens,
  sum(toUInt64(s.finished)) AS finished,
  sum(toUInt64(s.preemptions)) AS preemptions,
  sum(toUInt64(s.prefix_queries)) AS prefix_queries,
  sum(toUInt64(s.prefix_hits)) AS prefix_hits,
  sum(toUInt64(s.external_queries)) AS external_queries,
  sum(toUInt64(s.external_hits)) AS external_hits,
  sum(toUInt64(s.evictions)) AS evictions,
  sum(toUInt64(s.drafts)) AS drafts,
  sum(toUInt64(s.draft_tokens)) AS draft_tokens,
  sum(toUInt64(s.accepted_tokens)) AS accepted_tokens,
  sum(toFloat64(s.elapsed_seconds)) AS elapsed_seconds_sum,
  max(s.elapsed_seconds) AS elapsed_seconds_max,
  max(s.received_at) AS received_at
FROM {database}.engine_steps AS s
GROUP BY time, instance, deployment, engine, model, dp_rank, role, region, cluster, version, pod, node, recording, tenant, sender_key_id;

-- Last: what lands meanwhile waits until all that hangs on it is there.
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
  r.tenant AS sender_tenant,
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
