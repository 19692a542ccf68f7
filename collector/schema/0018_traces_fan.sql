-- What becomes of a span. Every expression is total: one that throws on odd input would lose its whole batch.

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.otel_traces_mv {on_cluster} TO {database}.otel_traces AS
WITH
{part:time_readers},
{part:id_readers}
SELECT
  instant(start_ns) AS Timestamp,
  trace_text(trace_id) AS TraceId,
  span_text(span_id) AS SpanId,
  span_text(parent_span_id) AS ParentSpanId,
  trace_state AS TraceState,
  name AS SpanName,
  transform(kind, [1, 2, 3, 4, 5], ['Internal', 'Server', 'Client', 'Producer', 'Consumer'], 'Unspecified') AS SpanKind,
  ResourceAttributes['service.name'] AS ServiceName,
  ResourceAttributes,
  scope_name AS ScopeName,
  scope_version AS ScopeVersion,
  SpanAttributes,
  if(end_ns > start_ns, end_ns - start_ns, 0) AS Duration,
  transform(status_code, [1, 2], ['Ok', 'Error'], 'Unset') AS StatusCode,
  status_message AS StatusMessage,
  arrayMap(x -> instant(x), event_ns) AS `Events.Timestamp`,
  event_names AS `Events.Name`,
  event_attributes AS `Events.Attributes`,
  arrayMap(x -> trace_text(x), link_trace_ids) AS `Links.TraceId`,
  arrayMap(x -> span_text(x), link_span_ids) AS `Links.SpanId`,
  link_trace_states AS `Links.TraceState`,
  link_attributes AS `Links.Attributes`,
  tenant,
  sender_key_id,
  sender_peer,
  toDateTime(intDiv(received_ns, 1000000000), 'UTC') AS received_at
FROM {database}.land_spans;

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.otel_traces_trace_id_ts_mv {on_cluster} TO {database}.otel_traces_trace_id_ts AS
SELECT
  TraceId,
  -- the exporter's type ends in 2106
  toDateTime(least(min(Timestamp), toDateTime64('2106-02-07 06:28:15', 9, 'UTC'))) AS Start,
  toDateTime(least(max(Timestamp), toDateTime64('2106-02-07 06:28:15', 9, 'UTC'))) AS End,
  max(t.received_at) AS received_at
FROM {database}.otel_traces AS t
WHERE TraceId != ''
GROUP BY TraceId;

-- The edge half: a tap's span id is 42 bits of Unix ms and 22 random bits, the key and the time of the request. An
-- edge whose ids are not made like that keeps its span's start and a hash.
CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.requests_edge_mv {on_cluster} TO {database}.requests_t AS
WITH
{part:span_readers},
  reinterpretAsUInt64(reverse(span_id)) AS id,
  intDiv(start_ns, 1000000) AS start_ms,
  length(span_id) = 8 AND abs(toInt64(bitShiftRight(id, 22)) - toInt64(start_ms)) < 3600000 AS timed,
  if(timed, id, sipHash64(trace_id, span_id)) AS own_key
SELECT
  fromUnixTimestamp64Milli(if(timed, toInt64(bitShiftRight(id, 22)), toInt64(start_ms)), 'UTC') AS time,
  if(sender_tenant = '', own_key, sipHash64(own_key, sender_tenant)) AS key,
  trace_id,
  text_of('servescope.request.id') AS request_id,
  text_of('gen_ai.response.id') AS response_id,
  tenant,
  if(text_of('gen_ai.response.model') != '', text_of('gen_ai.response.model'), text_of('gen_ai.request.model')) AS model,
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
  text_of('http.route') AS route,
  toUInt8(flag_of('servescope.stream')) AS stream,
  toUInt16(least(number_of('http.response.status_code'), 65535)) AS status,
  text_of('servescope.outcome') AS outcome,
  -- a list of one, as a rule
  extract(text_of('gen_ai.response.finish_reasons'), '[A-Za-z_]+') AS finish_reason,
  text_of('error.type') AS error_type,
  count_of('gen_ai.usage.input_tokens') AS prompt_tokens,
  count_of('gen_ai.usage.cache_read.input_tokens') AS cached_tokens,
  if(flag_of('servescope.tokens_counted'), 0, count_of('gen_ai.usage.output_tokens')) AS completion_tokens,
  if(flag_of('servescope.tokens_counted'), count_of('gen_ai.usage.output_tokens'), 0) AS counted_tokens,
  toUInt64(number_of('http.request.body.size')) AS request_bytes,
  toUInt64(number_of('http.response.body.size')) AS response_bytes,
  toFloat32(number_of('servescope.edge_seconds')) AS edge_seconds,
  toFloat32(number_of('servescope.ttft_seconds')) AS ttft_seconds,
  toFloat32(number_of('servescope.e2e_seconds')) AS e2e_seconds,
  toFloat32(number_of('servescope.itl_mean_seconds')) AS itl_mean_seconds,
  toFloat32(number_of('servescope.itl_p50_seconds')) AS itl_p50_seconds,
  toFloat32(number_of('servescope.itl_p99_seconds')) AS itl_p99_seconds,
  toFloat32(number_of('servescope.itl_max_seconds')) AS itl_max_seconds,
  count_of('servescope.itl_gaps') AS itl_gaps,
  toUInt8(1) AS has_edge,
  recording,
  sender_tenant,
  sender_key_id,
  sender_peer,
  toDateTime(intDiv(received_ns, 1000000000), 'UTC') AS received_at
FROM {database}.land_spans AS l
WHERE scope_name = 'servescope.edge';

-- The engine half from vLLM: one llm_request span per finished request. The tap's span id comes back as the parent;
-- a parent whose time is not within an hour is somebody else's, and the row stands by itself under a hash.
CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.requests_vllm_mv {on_cluster} TO {database}.requests_t AS
WITH
{part:span_readers},
  reinterpretAsUInt64(reverse(parent_span_id)) AS id,
  intDiv(start_ns, 1000000) AS start_ms,
  length(parent_span_id) = 8 AND abs(toInt64(bitShiftRight(id, 22)) - toInt64(start_ms)) < 3600000 AS timed,
  if(timed, id, sipHash64(trace_id, span_id)) AS own_key,
  text_of('gen_ai.request.id') AS raw_id,
  -- completions number their prompts, chat completions do not
  if(startsWith(raw_id, 'cmpl-') AND endsWith(raw_id, '-0'), substring(raw_id, 1, length(raw_id) - 2), raw_id) AS whole_id
SELECT
  fromUnixTimestamp64Milli(if(timed, toInt64(bitShiftRight(id, 22)), toInt64(start_ms)), 'UTC') AS time,
  if(sender_tenant = '', own_key, sipHash64(own_key, sender_tenant)) AS key,
  trace_id,
  whole_id AS response_id,
  multiIf(startsWith(whole_id, 'cmpl-'), substring(whole_id, 6), startsWith(whole_id, 'chatcmpl-'), substring(whole_id, 10), whole_id) AS engine_request_id,
  multiIf(
    text_of('gen_ai.response.model') != '', text_of('gen_ai.response.model'),
    text_of('gen_ai.request.model') != '', text_of('gen_ai.request.model'),
    model) AS engine_model,
  if(l.engine = '', 'vllm', l.engine) AS engine,
  instance AS engine_instance,
  deployment AS engine_deployment,
  version AS engine_version,
  role,
  dp_rank,
  pod,
  node,
  region,
  cluster,
  if(status_code = 2, 'server_error', 'ok') AS engine_outcome,
  greatest(count_of('gen_ai.usage.prompt_tokens'), count_of('gen_ai.usage.input_tokens')) AS prompt_tokens,
  count_of('gen_ai.usage.cache_read.input_tokens') AS cached_tokens,
  greatest(count_of('gen_ai.usage.completion_tokens'), count_of('gen_ai.usage.output_tokens')) AS completion_tokens,
  toFloat32(number_of('gen_ai.latency.time_in_queue')) AS queue_seconds,
  toFloat32(number_of('gen_ai.latency.time_in_model_prefill')) AS prefill_seconds,
  toFloat32(number_of('gen_ai.latency.time_in_model_decode')) AS decode_seconds,
  -- queueing counts from the engine core's receipt: the rest of the time to the first token is time nobody worked
  greatest(engine_ttft_seconds - queue_seconds - prefill_seconds, 0) AS stall_seconds,
  toFloat32(number_of('gen_ai.latency.time_to_first_token')) AS engine_ttft_seconds,
  toFloat32(number_of('gen_ai.latency.e2e')) AS engine_e2e_seconds,
  toUInt8(1) AS has_engine,
  toUInt8(NOT timed) AS orphan,
  recording,
  tenant AS engine_tenant,
  sender_tenant,
  sender_key_id AS engine_sender_key_id,
  sender_peer AS engine_sender_peer,
  toDateTime(intDiv(received_ns, 1000000000), 'UTC') AS received_at
FROM {database}.land_spans AS l
WHERE name = 'llm_request' AND scope_name != 'servescope.edge';

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.triton_spans_mv {on_cluster} TO {database}.triton_spans AS
WITH
{part:span_readers},
  k -> event_ns[indexOf(event_names, k)] AS event_at
SELECT
  now64(3, 'UTC') AS inserted_at,
  multiIf(text_of('triton.model_name') != '', 'model', name = 'InferRequest', 'request', 'compute') AS kind,
  trace_id,
  span_id,
  parent_span_id,
  start_ns,
  end_ns,
  text_of('triton.model_name') AS model,
  text_of('triton.model_version') AS model_version,
  text_of('triton.request_id') AS request_id,
  toUInt8(raw_of('triton.trace_parent_id') = 0) AS outermost,
  event_at('QUEUE_START') AS queue_start_ns,
  event_at('REQUEST_END') AS request_end_ns,
  event_at('INFER_RESPONSE_COMPLETE') AS response_complete_ns,
  event_at('COMPUTE_START') AS compute_start_ns,
  event_at('COMPUTE_INPUT_END') AS compute_input_end_ns,
  event_at('COMPUTE_OUTPUT_START') AS compute_output_start_ns,
  event_at('COMPUTE_END') AS compute_end_ns,
  instance,
  deployment,
  engine,
  role,
  region,
  cluster,
  version,
  pod,
  node,
  recording,
  tenant,
  sender_tenant,
  sender_key_id,
  sender_peer
FROM {database}.land_spans
WHERE scope_name = 'triton-server';

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.request_keys_mv {on_cluster} TO {database}.request_keys AS
SELECT trace_id, time, key, received_at FROM {database}.requests_t WHERE trace_id != '' AND moved = 0;

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.request_orphans_mv {on_cluster} TO {database}.request_orphans AS
SELECT now64(3, 'UTC') AS inserted_at, time, key, engine_request_id AS request_id, response_id, sender_tenant
FROM {database}.requests_t
WHERE orphan = 1 AND moved = 0 AND has_edge = 0 AND (engine_request_id != '' OR response_id != '');

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.request_claims_mv {on_cluster} TO {database}.request_claims AS
SELECT now64(3, 'UTC') AS inserted_at, time, key, sender_tenant
FROM {database}.requests_t
WHERE has_edge = 1 AND sender_tenant != '';

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
  quantilesDDStateIf(0.01, 0.5, 0.9, 0.95, 0.99)(toFloat32(t.ttft_seconds * 1e6), t.ttft_seconds > 0) AS ttft_us_state,
  quantilesDDStateIf(0.01, 0.5, 0.9, 0.95, 0.99)(toFloat32(t.e2e_seconds * 1e6), t.e2e_seconds > 0) AS e2e_us_state,
  quantilesDDStateIf(0.01, 0.5, 0.9, 0.95, 0.99)(toFloat32(t.itl_mean_seconds * 1e6), t.itl_mean_seconds > 0) AS itl_mean_us_state,
  max(t.received_at) AS received_at
FROM {database}.requests_t AS t
WHERE has_edge = 1
GROUP BY time, model, deployment, instance, engine, tenant, region, version, outcome, recording;

CREATE TABLE IF NOT EXISTS {database}.land_traces {on_cluster}
(
{part:landing_columns},
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

-- Three levels of arrays (resources, scopes, spans) are joined leaf by leaf: _1 is a leaf below its resource, _2 below
-- its scope, without a number it is one span's.
CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.land_spans_mv {on_cluster} TO {database}.land_spans AS
WITH
{part:value_readers},
{part:time_readers}
SELECT
  arrival_ns(l.received_ns) AS received_ns,
  multiIf(
    l.tenant != '', l.tenant,
    SpanAttributes['servescope.tenant'] != '', SpanAttributes['servescope.tenant'],
    ResourceAttributes['servescope.tenant']) AS tenant,
  l.tenant AS sender_tenant,
  sender_key_id,
  sender_peer,
  ResourceAttributes,
{part:identity_names},
  scope_name,
  scope_version,
  trace_id,
  span_id,
  parent_span_id,
  trace_state,
  name,
  kind,
  multiIf(raw_start_ns > 0, raw_start_ns, raw_end_ns > 0, raw_end_ns, received_ns) AS start_ns,
  raw_end_ns AS end_ns,
  status_code,
  status_message,
  attributes.value.double_value AS doubles,
  attributes.value.int_value AS integers,
  attributes.value.bool_value AS flags,
  attribute_map(attributes) AS SpanAttributes,
  arrayMap(ns -> if(ns > 0, ns, start_ns), raw_event_ns) AS event_ns,
  event_names,
  arrayMap(a -> attribute_map(a), event_raw) AS event_attributes,
  link_trace_ids,
  link_span_ids,
  link_trace_states,
  arrayMap(a -> attribute_map(a), link_raw) AS link_attributes
FROM
(
  SELECT
    tenant, received_ns, sender_key_id, sender_peer, ResourceAttributes,
{part:identity_names},
    scope_name, scope_version,
    trace_id_2, span_id_2, parent_span_id_2, trace_state_2, name_2, kind_2, start_ns_2, end_ns_2,
    status_code_2, status_message_2, attributes_2, event_ns_2, event_names_2, event_raw_2, link_trace_ids_2,
    link_span_ids_2, link_trace_states_2, link_raw_2
  FROM
  (
    WITH
{part:value_readers}
    SELECT
      tenant,
      received_ns,
      sender_key_id,
      sender_peer,
      attribute_map(resource) AS ResourceAttributes,
{part:identity},
      scope_name_1,
      scope_version_1,
      trace_id_1, span_id_1, parent_span_id_1, trace_state_1, name_1, kind_1, start_ns_1, end_ns_1,
      status_code_1, status_message_1, attributes_1, event_ns_1, event_names_1, event_raw_1, link_trace_ids_1,
      link_span_ids_1, link_trace_states_1, link_raw_1
    FROM {database}.land_traces
    ARRAY JOIN
      resource_spans.resource.attributes AS resource,
      resource_spans.scope_spans.scope.name AS scope_name_1,
      resource_spans.scope_spans.scope.version AS scope_version_1,
      resource_spans.scope_spans.spans.trace_id AS trace_id_1,
      resource_spans.scope_spans.spans.span_id AS span_id_1,
      resource_spans.scope_spans.spans.parent_span_id AS parent_span_id_1,
      resource_spans.scope_spans.spans.trace_state AS trace_state_1,
      resource_spans.scope_spans.spans.name AS name_1,
      resource_spans.scope_spans.spans.kind AS kind_1,
      resource_spans.scope_spans.spans.start_time_unix_nano AS start_ns_1,
      resource_spans.scope_spans.spans.end_time_unix_nano AS end_ns_1,
      resource_spans.scope_spans.spans.status.code AS status_code_1,
      resource_spans.scope_spans.spans.status.message AS status_message_1,
      resource_spans.scope_spans.spans.attributes AS attributes_1,
      resource_spans.scope_spans.spans.events.time_unix_nano AS event_ns_1,
      resource_spans.scope_spans.spans.events.name AS event_names_1,
      resource_spans.scope_spans.spans.events.attributes AS event_raw_1,
      resource_spans.scope_spans.spans.links.trace_id AS link_trace_ids_1,
      resource_spans.scope_spans.spans.links.span_id AS link_span_ids_1,
      resource_spans.scope_spans.spans.links.trace_state AS link_trace_states_1,
      resource_spans.scope_spans.spans.links.attributes AS link_raw_1
  )
  ARRAY JOIN
    scope_name_1 AS scope_name,
    scope_version_1 AS scope_version,
    trace_id_1 AS trace_id_2, span_id_1 AS span_id_2, parent_span_id_1 AS parent_span_id_2, trace_state_1 AS
    trace_state_2, name_1 AS name_2, kind_1 AS kind_2, start_ns_1 AS start_ns_2, end_ns_1 AS end_ns_2,
    status_code_1 AS status_code_2, status_message_1 AS status_message_2, attributes_1 AS attributes_2,
    event_ns_1 AS event_ns_2, event_names_1 AS event_names_2, event_raw_1 AS event_raw_2, link_trace_ids_1 AS
    link_trace_ids_2, link_span_ids_1 AS link_span_ids_2, link_trace_states_1 AS link_trace_states_2,
    link_raw_1 AS link_raw_2
) AS l
ARRAY JOIN
  trace_id_2 AS trace_id, span_id_2 AS span_id, parent_span_id_2 AS parent_span_id, trace_state_2 AS
  trace_state, name_2 AS name, kind_2 AS kind, start_ns_2 AS raw_start_ns, end_ns_2 AS raw_end_ns, status_code_2 AS
  status_code, status_message_2 AS status_message, attributes_2 AS attributes, event_ns_2 AS raw_event_ns,
  event_names_2 AS event_names, event_raw_2 AS event_raw, link_trace_ids_2 AS link_trace_ids, link_span_ids_2
  AS link_span_ids, link_trace_states_2 AS link_trace_states, link_raw_2 AS link_raw;
