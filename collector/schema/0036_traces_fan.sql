-- What becomes of a span, with less to analyse: however small an insert is, each view that it reaches is analysed anew,
-- and every place where a text names a function counts. So an attribute is looked up where it is needed and worked out
-- before, one text makes the maps of a span, its events and its links, and names that stand for long expressions end
-- where a subquery does.

DROP VIEW IF EXISTS {database}.land_spans_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.requests_edge_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.requests_vllm_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.triton_spans_mv {on_cluster} SYNC;

ALTER TABLE {database}.land_spans {on_cluster}
  ADD COLUMN IF NOT EXISTS keys Array(LowCardinality(String)) AFTER status_message,
  ADD COLUMN IF NOT EXISTS texts Array(String) AFTER keys,
  ADD COLUMN IF NOT EXISTS numbers Array(Float64) AFTER flags,
  ADD COLUMN IF NOT EXISTS counts Array(UInt32) AFTER numbers,
  DROP COLUMN IF EXISTS doubles,
  DROP COLUMN IF EXISTS integers;

-- Both halves of a request are made by one view: what hangs on requests_t is analysed and written once, not for each.
-- The edge half: a tap's span id is 42 bits of its arrival and 22 random bits, the key and the time of the request; an
-- edge whose ids are not made like that keeps its span's start and a hash. The engine half, one llm_request span per
-- finished request: the tap's span id comes back as the parent; a parent whose time is not within an hour is somebody
-- else's, and the row stands by itself under a hash. A half finds no attribute of the other's: its keys are apart.
CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.requests_mv {on_cluster} TO {database}.requests_t AS
WITH
  k -> texts[indexOf(edge_keys, k)] AS edge_text,
  k -> flags[indexOf(edge_keys, k)] AS edge_flag,
  k -> numbers[indexOf(edge_keys, k)] AS edge_number,
  k -> texts[indexOf(engine_keys, k)] AS engine_text,
  k -> numbers[indexOf(engine_keys, k)] AS engine_number,
  k -> counts[indexOf(engine_keys, k)] AS engine_count,
  k -> counts[indexOf(keys, k)] AS count_of
SELECT
  fromUnixTimestamp64Milli(ms, 'UTC') AS time,
  if(sender_tenant = '', own_key, sipHash64(own_key, sender_tenant)) AS key,
  trace_id,
  edge_text('servescope.request.id') AS request_id,
  edge_text('gen_ai.response.id') AS response_id,
  whole_id AS engine_response_id,
  multiIf(startsWith(whole_id, 'cmpl-'), substring(whole_id, 6), startsWith(whole_id, 'chatcmpl-'), substring(whole_id, 10), whole_id) AS engine_request_id,
  if(edge, l.tenant, '') AS tenant,
  if(edge, named, '') AS model,
  multiIf(edge, '', named != '', named, l.model) AS engine_model,
  if(edge OR l.engine != '', l.engine, 'vllm') AS engine,
  if(edge, l.instance, '') AS instance,
  if(edge, '', l.instance) AS engine_instance,
  if(edge, l.deployment, '') AS deployment,
  if(edge, '', l.deployment) AS engine_deployment,
  role,
  dp_rank,
  pod,
  node,
  region,
  cluster,
  if(edge, l.version, '') AS version,
  if(edge, '', l.version) AS engine_version,
  route,
  -- a sender that names none is told by its route
  multiIf(operation_named != '', operation_named, NOT startsWith(name, 'POST '), '',
{part:operation_of_route}) AS operation,
  toUInt8(stream_flag) AS stream,
  toUInt16(least(edge_number('http.response.status_code'), 65535)) AS status,
  edge_text('servescope.outcome') AS outcome,
  multiIf(edge, '', status_code = 2, 'server_error', 'ok') AS engine_outcome,
  -- a list of one, as a rule
  extract(edge_text('gen_ai.response.finish_reasons'), '[A-Za-z_]+') AS finish_reason,
  edge_text('error.type') AS error_type,
  greatest(engine_count('gen_ai.usage.prompt_tokens'), count_of('gen_ai.usage.input_tokens')) AS prompt_tokens,
  count_of('gen_ai.usage.cache_read.input_tokens') AS cached_tokens,
  if(counted, 0, greatest(engine_count('gen_ai.usage.completion_tokens'), output_tokens)) AS completion_tokens,
  if(counted, output_tokens, 0) AS counted_tokens,
  toUInt64(edge_number('http.request.body.size')) AS request_bytes,
  toUInt64(edge_number('http.response.body.size')) AS response_bytes,
  toFloat32(edge_number('servescope.edge_seconds')) AS edge_seconds,
  queue AS queue_seconds,
  prefill AS prefill_seconds,
  toFloat32(engine_number('gen_ai.latency.time_in_model_decode')) AS decode_seconds,
  -- queueing counts from the engine core's receipt: the rest of the time to the first token is time nobody worked
  greatest(engine_ttft - queue - prefill, 0) AS stall_seconds,
  -- a whole answer has none: its first byte comes with its last token
  toFloat32(if(stream_flag, edge_number('servescope.ttft_seconds'), 0)) AS ttft_seconds,
  engine_ttft AS engine_ttft_seconds,
  toFloat32(edge_number('servescope.e2e_seconds')) AS e2e_seconds,
  toFloat32(engine_number('gen_ai.latency.e2e')) AS engine_e2e_seconds,
  toFloat32(edge_number('servescope.itl_mean_seconds')) AS itl_mean_seconds,
  toFloat32(edge_number('servescope.itl_p50_seconds')) AS itl_p50_seconds,
  toFloat32(edge_number('servescope.itl_p99_seconds')) AS itl_p99_seconds,
  toFloat32(edge_number('servescope.itl_max_seconds')) AS itl_max_seconds,
  counts[indexOf(edge_keys, 'servescope.itl_gaps')] AS itl_gaps,
  multiIf(NOT has(edge_keys, 'servescope.caller_sampled'), '', edge_flag('servescope.caller_sampled'), 'yes', 'no') AS caller_sampled,
  toUInt8(edge_flag('servescope.unsampled')) AS unsampled,
  toUInt8(edge) AS has_edge,
  toUInt8(NOT edge) AS has_engine,
  toUInt8(NOT edge AND NOT timed) AS orphan,
  recording,
  if(edge, '', l.tenant) AS engine_tenant,
  sender_tenant,
  if(edge, l.sender_key_id, '') AS sender_key_id,
  if(edge, l.sender_peer, '') AS sender_peer,
  if(edge, '', l.sender_key_id) AS engine_sender_key_id,
  if(edge, '', l.sender_peer) AS engine_sender_peer,
  toDateTime(intDiv(received_ns, 1000000000), 'UTC') AS received_at
FROM
(
  WITH
    k -> texts[indexOf(edge_keys, k)] AS edge_text,
    k -> texts[indexOf(keys, k)] AS text_of
  SELECT
    trace_id, name, status_code, received_ns, keys, texts, flags, numbers, counts, edge, edge_keys, engine_keys, timed,
    tenant, model, engine, instance, deployment, role, dp_rank, pod, node, region, cluster, version, recording,
    sender_tenant, sender_key_id, sender_peer,
    if(timed, toInt64(bitShiftRight(id, 22)), start_ms) AS ms,
    if(timed, id, sipHash64(trace_id, span_id)) AS own_key,
    if(text_of('gen_ai.response.model') != '', text_of('gen_ai.response.model'), text_of('gen_ai.request.model')) AS named,
    -- completions number their prompts, chat completions do not
    if(startsWith(raw_id, 'cmpl-') AND endsWith(raw_id, '-0'), substring(raw_id, 1, length(raw_id) - 2), raw_id) AS whole_id,
    edge_text('http.route') AS route,
    edge_text('gen_ai.operation.name') AS operation_named,
    flags[indexOf(edge_keys, 'servescope.stream')] AS stream_flag,
    flags[indexOf(edge_keys, 'servescope.tokens_counted')] AS counted,
    counts[indexOf(keys, 'gen_ai.usage.output_tokens')] AS output_tokens,
    toFloat32(numbers[indexOf(engine_keys, 'gen_ai.latency.time_in_queue')]) AS queue,
    toFloat32(numbers[indexOf(engine_keys, 'gen_ai.latency.time_in_model_prefill')]) AS prefill,
    toFloat32(numbers[indexOf(engine_keys, 'gen_ai.latency.time_to_first_token')]) AS engine_ttft
  FROM
  (
    SELECT
      *,
      texts[indexOf(engine_keys, 'gen_ai.request.id')] AS raw_id,
      length(half_id) = 8 AND abs(toInt64(bitShiftRight(id, 22)) - start_ms) < 3600000 AS timed
    FROM
    (
      SELECT
        trace_id, span_id, name, status_code, received_ns, keys, texts, flags, numbers, counts,
        tenant, model, engine, instance, deployment, role, dp_rank, pod, node, region, cluster, version, recording,
        sender_tenant, sender_key_id, sender_peer,
        scope_name = 'servescope.edge' AS edge,
        if(edge, span_id, parent_span_id) AS half_id,
        reinterpretAsUInt64(reverse(half_id)) AS id,
        toInt64(intDiv(start_ns, 1000000)) AS start_ms,
        if(edge, keys, []) AS edge_keys,
        if(edge, [], keys) AS engine_keys
      FROM {database}.land_spans
      WHERE edge OR name = 'llm_request'
    )
  )
) AS l;

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.triton_spans_mv {on_cluster} TO {database}.triton_spans AS
WITH
  k -> texts[indexOf(keys, k)] AS text_of,
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
  toUInt8(toFloat64OrZero(text_of('triton.trace_parent_id')) = 0) AS outermost,
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

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.land_spans_mv {on_cluster} TO {database}.land_spans AS
WITH
{part:time_readers}
SELECT
  arrival_ns(r.received_ns) AS received_ns,
  multiIf(
    sender_tenant != '', sender_tenant,
    SpanAttributes['servescope.tenant'] != '', SpanAttributes['servescope.tenant'],
    ResourceAttributes['servescope.tenant']) AS tenant,
  sender_tenant,
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
  mapKeys(SpanAttributes) AS keys,
  mapValues(SpanAttributes) AS texts,
  flags,
  numbers,
  arrayMap(n -> toUInt32(if(n < 4294967295, n, 0)), numbers) AS counts,
  maps[1] AS SpanAttributes,
  arrayMap(ns -> if(ns > 0, ns, start_ns), raw_event_ns) AS event_ns,
  event_names,
  arraySlice(maps, 2, length(event_names)) AS event_attributes,
  link_trace_ids,
  link_span_ids,
  link_trace_states,
  arraySlice(maps, 2 + length(event_names)) AS link_attributes
FROM
(
  WITH
{part:attribute_readers}
  SELECT
    received_ns, sender_tenant, sender_key_id, sender_peer, ResourceAttributes,
{part:identity_names},
    scope_name, scope_version,
    trace_id, span_id, parent_span_id, trace_state, name, kind, raw_start_ns, raw_end_ns, status_code, status_message,
    attributes.value.bool_value AS flags,
    arrayMap((d, i) -> if(d + i > 0 AND d + i < 1e15, d + i, 0), attributes.value.double_value, attributes.value.int_value) AS numbers,
    arrayMap(a -> attribute_map(a), arrayConcat([attributes], event_raw, link_raw)) AS maps,
    raw_event_ns, event_names, link_trace_ids, link_span_ids, link_trace_states
  FROM
  (
    SELECT
      received_ns, sender_tenant, sender_key_id, sender_peer, ResourceAttributes,
{part:identity},
      scope_name, scope_version,
      trace_id_2, span_id_2, parent_span_id_2, trace_state_2, name_2, kind_2, start_ns_2, end_ns_2, status_code_2,
      status_message_2, attributes_2, event_ns_2, event_names_2, event_raw_2, link_trace_ids_2, link_span_ids_2,
      link_trace_states_2, link_raw_2
    FROM
    (
      WITH
{part:attribute_readers}
      SELECT
        received_ns, tenant AS sender_tenant, sender_key_id, sender_peer,
        attribute_map(resource) AS ResourceAttributes,
        scope_name_1, scope_version_1,
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
      scope_name_1 AS scope_name, scope_version_1 AS scope_version, trace_id_1 AS trace_id_2,
      span_id_1 AS span_id_2, parent_span_id_1 AS parent_span_id_2, trace_state_1 AS trace_state_2,
      name_1 AS name_2, kind_1 AS kind_2, start_ns_1 AS start_ns_2, end_ns_1 AS end_ns_2,
      status_code_1 AS status_code_2, status_message_1 AS status_message_2, attributes_1 AS attributes_2,
      event_ns_1 AS event_ns_2, event_names_1 AS event_names_2, event_raw_1 AS event_raw_2,
      link_trace_ids_1 AS link_trace_ids_2, link_span_ids_1 AS link_span_ids_2,
      link_trace_states_1 AS link_trace_states_2, link_raw_1 AS link_raw_2
  )
  ARRAY JOIN
    trace_id_2 AS trace_id, span_id_2 AS span_id, parent_span_id_2 AS parent_span_id, trace_state_2 AS trace_state,
    name_2 AS name, kind_2 AS kind, start_ns_2 AS raw_start_ns, end_ns_2 AS raw_end_ns,
    status_code_2 AS status_code, status_message_2 AS status_message, attributes_2 AS attributes,
    event_ns_2 AS raw_event_ns, event_names_2 AS event_names, event_raw_2 AS event_raw,
    link_trace_ids_2 AS link_trace_ids, link_span_ids_2 AS link_span_ids, link_trace_states_2 AS link_trace_states,
    link_raw_2 AS link_raw
) AS r;
