-- What becomes of a span. Every expression is total: one that throws on odd input would lose its whole batch.

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.otel_traces_mv {on_cluster} TO {database}.otel_traces AS
WITH
{part:readers}
SELECT
  instant(span.start_time_unix_nano) AS Timestamp,
  lower(hex(span.trace_id)) AS TraceId,
  lower(hex(span.span_id)) AS SpanId,
  lower(hex(span.parent_span_id)) AS ParentSpanId,
  span.trace_state AS TraceState,
  span.name AS SpanName,
  transform(span.kind, [1, 2, 3, 4, 5], ['Internal', 'Server', 'Client', 'Producer', 'Consumer'], 'Unspecified') AS SpanKind,
  ResourceAttributes['service.name'] AS ServiceName,
  ResourceAttributes,
  scope_name AS ScopeName,
  scope_version AS ScopeVersion,
  attribute_map(span.attributes) AS SpanAttributes,
  if(span.end_time_unix_nano > span.start_time_unix_nano, span.end_time_unix_nano - span.start_time_unix_nano, 0) AS Duration,
  transform(span.status.code, [1, 2], ['Ok', 'Error'], 'Unset') AS StatusCode,
  span.status.message AS StatusMessage,
  arrayMap(x -> instant(x), span.events.time_unix_nano) AS `Events.Timestamp`,
  span.events.name AS `Events.Name`,
  arrayMap(x -> attribute_map(x), span.events.attributes) AS `Events.Attributes`,
  arrayMap(x -> lower(hex(x)), span.links.trace_id) AS `Links.TraceId`,
  arrayMap(x -> lower(hex(x)), span.links.span_id) AS `Links.SpanId`,
  span.links.trace_state AS `Links.TraceState`,
  arrayMap(x -> attribute_map(x), span.links.attributes) AS `Links.Attributes`
FROM
(
  SELECT ResourceAttributes, scoped.scope.name AS scope_name, scoped.scope.version AS scope_version, arrayJoin(scoped.spans) AS span
  FROM
  (
    SELECT attribute_map(resourced.resource.attributes) AS ResourceAttributes, arrayJoin(resourced.scope_spans) AS scoped
    FROM (SELECT arrayJoin(resource_spans) AS resourced FROM {database}.land_traces)
  )
);

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.otel_traces_trace_id_ts_mv {on_cluster} TO {database}.otel_traces_trace_id_ts AS
SELECT TraceId, min(Timestamp) AS Start, max(Timestamp) AS End
FROM {database}.otel_traces
WHERE TraceId != ''
GROUP BY TraceId;

-- The edge half: a tap's span id is 42 bits of Unix ms and 22 random bits, the key and the time of the request. An
-- edge whose ids are not made like that keeps its span's start and a hash.
CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.requests_edge_mv {on_cluster} TO {database}.requests_t AS
WITH
{part:readers},
  reinterpretAsUInt64(reverse(span.span_id)) AS id,
  intDiv(span.start_time_unix_nano, 1000000) AS start_ms,
  length(span.span_id) = 8 AND abs(toInt64(bitShiftRight(id, 22)) - toInt64(start_ms)) < 3600000 AS timed
SELECT
  fromUnixTimestamp64Milli(if(timed, toInt64(bitShiftRight(id, 22)), toInt64(start_ms)), 'UTC') AS time,
  if(timed, id, sipHash64(span.trace_id, span.span_id)) AS key,
  span.trace_id AS trace_id,
  attribute_text(span.attributes, 'servescope.request.id') AS request_id,
  attribute_text(span.attributes, 'gen_ai.response.id') AS response_id,
  if(attribute_text(span.attributes, 'servescope.tenant') != '', attribute_text(span.attributes, 'servescope.tenant'), land_tenant) AS tenant,
  if(attribute_text(span.attributes, 'gen_ai.response.model') != '', attribute_text(span.attributes, 'gen_ai.response.model'), attribute_text(span.attributes, 'gen_ai.request.model')) AS model,
  engine,
  instance,
  deployment,
  role,
  dp_rank,
  pod,
  node,
  region,
  cluster,
  version,
  attribute_text(span.attributes, 'http.route') AS route,
  toUInt8(attribute_flag(span.attributes, 'servescope.stream')) AS stream,
  toUInt16(least(attribute_count(span.attributes, 'http.response.status_code'), 65535)) AS status,
  attribute_text(span.attributes, 'servescope.outcome') AS outcome,
  if(attribute_text(span.attributes, 'gen_ai.response.finish_reasons') != '', attribute_text(span.attributes, 'gen_ai.response.finish_reasons'),
    span.attributes.value.array_value.values[indexOf(span.attributes.key, 'gen_ai.response.finish_reasons')].string_value[1]) AS finish_reason,
  attribute_text(span.attributes, 'error.type') AS error_type,
  attribute_count(span.attributes, 'gen_ai.usage.input_tokens') AS prompt_tokens,
  attribute_count(span.attributes, 'gen_ai.usage.cache_read.input_tokens') AS cached_tokens,
  if(attribute_flag(span.attributes, 'servescope.tokens_counted'), 0, attribute_count(span.attributes, 'gen_ai.usage.output_tokens')) AS completion_tokens,
  if(attribute_flag(span.attributes, 'servescope.tokens_counted'), attribute_count(span.attributes, 'gen_ai.usage.output_tokens'), 0) AS counted_tokens,
  toUInt64(greatest(attribute_raw(span.attributes, 'http.request.body.size') AS request_size, 0)) AS request_bytes,
  toUInt64(greatest(attribute_raw(span.attributes, 'http.response.body.size') AS response_size, 0)) AS response_bytes,
  attribute_number(span.attributes, 'servescope.edge_seconds') AS edge_seconds,
  attribute_number(span.attributes, 'servescope.ttft_seconds') AS ttft_seconds,
  attribute_number(span.attributes, 'servescope.e2e_seconds') AS e2e_seconds,
  attribute_number(span.attributes, 'servescope.itl_mean_seconds') AS itl_mean_seconds,
  attribute_number(span.attributes, 'servescope.itl_p50_seconds') AS itl_p50_seconds,
  attribute_number(span.attributes, 'servescope.itl_p99_seconds') AS itl_p99_seconds,
  attribute_number(span.attributes, 'servescope.itl_max_seconds') AS itl_max_seconds,
  attribute_count(span.attributes, 'servescope.itl_gaps') AS itl_gaps,
  toUInt8(1) AS has_edge,
  recording
FROM
(
  SELECT land_tenant, instance, deployment, engine, dp_rank, role, region, cluster, version, pod, node, recording, arrayJoin(scoped.spans) AS span
  FROM
  (
    WITH
{part:readers}
    SELECT
      land_tenant,
      arrayJoin(resourced.scope_spans) AS scoped,
{part:identity}
    FROM (SELECT tenant AS land_tenant, arrayJoin(resource_spans) AS resourced, resourced.resource.attributes AS resource FROM {database}.land_traces)
    WHERE scoped.scope.name = 'servescope.edge'
  )
);

-- The engine half from vLLM: one llm_request span per finished request. The tap's span id comes back as the parent;
-- a parent whose time is not within an hour is somebody else's, and the row stands by itself under a hash.
CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.requests_vllm_mv {on_cluster} TO {database}.requests_t AS
WITH
{part:readers},
  reinterpretAsUInt64(reverse(span.parent_span_id)) AS id,
  intDiv(span.start_time_unix_nano, 1000000) AS start_ms,
  length(span.parent_span_id) = 8 AND abs(toInt64(bitShiftRight(id, 22)) - toInt64(start_ms)) < 3600000 AS timed,
  attribute_text(span.attributes, 'gen_ai.request.id') AS raw_id,
  if(startsWith(raw_id, 'cmpl-') AND endsWith(raw_id, '-0'), substring(raw_id, 1, length(raw_id) - 2), raw_id) AS whole_id
SELECT
  fromUnixTimestamp64Milli(if(timed, toInt64(bitShiftRight(id, 22)), toInt64(start_ms)), 'UTC') AS time,
  if(timed, id, sipHash64(span.trace_id, span.span_id)) AS key,
  span.trace_id AS trace_id,
  whole_id AS response_id,
  multiIf(startsWith(whole_id, 'cmpl-'), substring(whole_id, 6), startsWith(whole_id, 'chatcmpl-'), substring(whole_id, 10), whole_id) AS engine_request_id,
  multiIf(
    attribute_text(span.attributes, 'gen_ai.response.model') != '', attribute_text(span.attributes, 'gen_ai.response.model'),
    attribute_text(span.attributes, 'gen_ai.request.model') != '', attribute_text(span.attributes, 'gen_ai.request.model'),
    model) AS engine_model,
  if(engine = '', 'vllm', engine) AS engine,
  instance AS engine_instance,
  deployment AS engine_deployment,
  version AS engine_version,
  role,
  dp_rank,
  pod,
  node,
  region,
  cluster,
  if(span.status.code = 2, 'server_error', 'ok') AS engine_outcome,
  greatest(attribute_count(span.attributes, 'gen_ai.usage.prompt_tokens'), attribute_count(span.attributes, 'gen_ai.usage.input_tokens')) AS prompt_tokens,
  attribute_count(span.attributes, 'gen_ai.usage.cache_read.input_tokens') AS cached_tokens,
  greatest(attribute_count(span.attributes, 'gen_ai.usage.completion_tokens'), attribute_count(span.attributes, 'gen_ai.usage.output_tokens')) AS completion_tokens,
  attribute_number(span.attributes, 'gen_ai.latency.time_in_queue') AS queue_seconds,
  attribute_number(span.attributes, 'gen_ai.latency.time_in_model_prefill') AS prefill_seconds,
  attribute_number(span.attributes, 'gen_ai.latency.time_in_model_decode') AS decode_seconds,
  -- queueing counts from the engine core's receipt: the rest of the time to the first token is time nobody worked
  greatest(engine_ttft_seconds - queue_seconds - prefill_seconds, 0) AS stall_seconds,
  attribute_number(span.attributes, 'gen_ai.latency.time_to_first_token') AS engine_ttft_seconds,
  attribute_number(span.attributes, 'gen_ai.latency.e2e') AS engine_e2e_seconds,
  toUInt8(1) AS has_engine,
  recording
FROM
(
  SELECT instance, deployment, engine, model, dp_rank, role, region, cluster, version, pod, node, recording, arrayJoin(scoped.spans) AS span
  FROM
  (
    WITH
{part:readers}
    SELECT
      arrayJoin(resourced.scope_spans) AS scoped,
{part:identity}
    FROM (SELECT arrayJoin(resource_spans) AS resourced, resourced.resource.attributes AS resource FROM {database}.land_traces)
    WHERE scoped.scope.name != 'servescope.edge'
  )
)
WHERE span.name = 'llm_request';

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.triton_spans_mv {on_cluster} TO {database}.triton_spans AS
WITH
{part:readers},
{part:event_ns}
SELECT
  if(received_ns > 0, fromUnixTimestamp64Milli(toInt64(intDiv(received_ns, 1000000)), 'UTC'), now64(3, 'UTC')) AS received_at,
  multiIf(attribute_text(span.attributes, 'triton.model_name') != '', 'model', span.name = 'InferRequest', 'request', 'compute') AS kind,
  span.trace_id AS trace_id,
  span.span_id AS span_id,
  span.parent_span_id AS parent_span_id,
  span.start_time_unix_nano AS start_ns,
  span.end_time_unix_nano AS end_ns,
  attribute_text(span.attributes, 'triton.model_name') AS model,
  value_text(span.attributes.value[indexOf(span.attributes.key, 'triton.model_version')]) AS model_version,
  attribute_text(span.attributes, 'triton.request_id') AS request_id,
  toUInt8(attribute_raw(span.attributes, 'triton.trace_parent_id') = 0) AS outermost,
  event_ns(span.events, 'QUEUE_START') AS queue_start_ns,
  event_ns(span.events, 'REQUEST_END') AS request_end_ns,
  event_ns(span.events, 'INFER_RESPONSE_COMPLETE') AS response_complete_ns,
  event_ns(span.events, 'COMPUTE_START') AS compute_start_ns,
  event_ns(span.events, 'COMPUTE_INPUT_END') AS compute_input_end_ns,
  event_ns(span.events, 'COMPUTE_OUTPUT_START') AS compute_output_start_ns,
  event_ns(span.events, 'COMPUTE_END') AS compute_end_ns,
  instance,
  deployment,
  engine,
  role,
  region,
  cluster,
  version,
  pod,
  node,
  recording
FROM
(
  SELECT received_ns, instance, deployment, engine, role, region, cluster, version, pod, node, recording, arrayJoin(scoped.spans) AS span
  FROM
  (
    WITH
{part:readers}
    SELECT
      received_ns,
      arrayJoin(resourced.scope_spans) AS scoped,
{part:identity}
    FROM (SELECT received_ns, arrayJoin(resource_spans) AS resourced, resourced.resource.attributes AS resource FROM {database}.land_traces)
    WHERE scoped.scope.name = 'triton-server'
  )
);

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.request_keys_mv {on_cluster} TO {database}.request_keys AS
SELECT trace_id, time, key FROM {database}.requests_t WHERE trace_id != '';

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.requests_1m_mv {on_cluster} TO {database}.requests_1m AS
SELECT
  toStartOfMinute(t.time) AS time,
  model,
  deployment,
  instance,
  engine,
  tenant,
  region,
  version,
  outcome,
  recording,
  count() AS count,
  sum(toUInt64(t.prompt_tokens)) AS prompt_tokens,
  sum(toUInt64(greatest(t.completion_tokens, t.counted_tokens))) AS completion_tokens,
  sum(toFloat64(t.edge_seconds)) AS edge_seconds_sum,
  sum(toFloat64(t.e2e_seconds)) AS e2e_seconds_sum,
  quantilesDDStateIf(0.01, 0.5, 0.9, 0.95, 0.99)(t.ttft_seconds, t.ttft_seconds > 0) AS ttft_seconds_state,
  quantilesDDStateIf(0.01, 0.5, 0.9, 0.95, 0.99)(t.e2e_seconds, t.e2e_seconds > 0) AS e2e_seconds_state,
  quantilesDDStateIf(0.01, 0.5, 0.9, 0.95, 0.99)(t.itl_mean_seconds, t.itl_mean_seconds > 0) AS itl_mean_seconds_state
FROM {database}.requests_t AS t
WHERE has_edge = 1
GROUP BY time, model, deployment, instance, engine, tenant, region, version, outcome, recording;
