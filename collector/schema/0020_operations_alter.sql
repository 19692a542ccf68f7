-- What was asked of a model is a column, and what runs no model has none; a whole answer has no time to first token; the
-- client's id of an answer and the engine's are two; whether a caller sampled its trace is kept.

DROP VIEW IF EXISTS {database}.requests_edge_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.requests_vllm_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.request_orphans_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.requests_1m_mv {on_cluster} SYNC;

-- The default is what a row without the column did: its route tells.
ALTER TABLE {database}.requests_t {on_cluster}
  ADD COLUMN IF NOT EXISTS operation SimpleAggregateFunction(max, LowCardinality(String)) DEFAULT
{part:operation_of_route} CODEC(ZSTD(1)) AFTER route,
  ADD COLUMN IF NOT EXISTS engine_response_id SimpleAggregateFunction(max, String) CODEC(ZSTD(1)) AFTER response_id,
  ADD COLUMN IF NOT EXISTS caller_sampled SimpleAggregateFunction(max, LowCardinality(String)) CODEC(ZSTD(1)) AFTER recording,
  ADD COLUMN IF NOT EXISTS unsampled SimpleAggregateFunction(max, UInt8) CODEC(ZSTD(1)) AFTER caller_sampled;

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
  -- a sender that names none is told by its route
  multiIf(text_of('gen_ai.operation.name') != '', text_of('gen_ai.operation.name'), NOT startsWith(name, 'POST '), '',
{part:operation_of_route}) AS operation,
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
  -- a whole answer has none: its first byte comes with its last token
  toFloat32(if(flag_of('servescope.stream'), number_of('servescope.ttft_seconds'), 0)) AS ttft_seconds,
  toFloat32(number_of('servescope.e2e_seconds')) AS e2e_seconds,
  toFloat32(number_of('servescope.itl_mean_seconds')) AS itl_mean_seconds,
  toFloat32(number_of('servescope.itl_p50_seconds')) AS itl_p50_seconds,
  toFloat32(number_of('servescope.itl_p99_seconds')) AS itl_p99_seconds,
  toFloat32(number_of('servescope.itl_max_seconds')) AS itl_max_seconds,
  count_of('servescope.itl_gaps') AS itl_gaps,
  multiIf(NOT has(keys, 'servescope.caller_sampled'), '', flag_of('servescope.caller_sampled'), 'yes', 'no') AS caller_sampled,
  toUInt8(flag_of('servescope.unsampled')) AS unsampled,
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
  whole_id AS engine_response_id,
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

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.request_orphans_mv {on_cluster} TO {database}.request_orphans AS
SELECT now64(3, 'UTC') AS inserted_at, time, key, engine_request_id AS request_id, engine_response_id AS response_id, sender_tenant
FROM {database}.requests_t
WHERE orphan = 1 AND moved = 0 AND has_edge = 0 AND (engine_request_id != '' OR engine_response_id != '');

-- Of what runs a model: lists and preflights would pull every percentile down.
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
WHERE has_edge = 1 AND operation != ''
GROUP BY time, model, deployment, instance, engine, tenant, region, version, outcome, recording;

CREATE OR REPLACE VIEW {database}.requests {on_cluster} AS
WITH
  queue_seconds + prefill_seconds + decode_seconds + stall_seconds + compute_input_seconds + compute_infer_seconds
    + compute_output_seconds AS phase_seconds,
  if(t.engine_response_id != '', t.engine_response_id, t.response_id) AS engine_id
SELECT
  time,
  key,
  lower(hex(t.trace_id)) AS trace_id,
  if(t.request_id != '', t.request_id, t.engine_request_id) AS request_id,
  -- what the client saw; the engine's own name for it where there is no client's
  if(has_edge = 1 OR t.engine_response_id = '', t.response_id, t.engine_response_id) AS response_id,
  if(t.tenant != '', t.tenant, t.engine_tenant) AS tenant,
  if(t.model != '', t.model, t.engine_model) AS model,
  engine,
  if(t.instance != '', t.instance, t.engine_instance) AS instance,
  if(t.deployment != '', t.deployment, t.engine_deployment) AS deployment,
  role,
  dp_rank,
  pod,
  node,
  region,
  cluster,
  if(t.version != '', t.version, t.engine_version) AS version,
  route,
  -- an engine works for nothing else
  multiIf(
    t.operation != '', t.operation,
    has_engine = 0, '',
    engine = 'triton', 'inference',
    startsWith(engine_id, 'chatcmpl-') OR startsWith(engine_id, 'resp_'), 'chat',
    startsWith(engine_id, 'cmpl-'), 'text_completion',
    startsWith(engine_id, 'embd-'), 'embeddings',
    'inference') AS operation,
  stream,
  status,
  if(has_edge = 1, t.outcome, t.engine_outcome) AS outcome,
  finish_reason,
  error_type,
  prompt_tokens,
  cached_tokens,
  if(t.completion_tokens > 0, t.completion_tokens, t.counted_tokens) AS completion_tokens,
  toUInt8(t.completion_tokens = 0 AND t.counted_tokens > 0) AS tokens_counted,
  request_bytes,
  response_bytes,
  -- the edge hands a stream on while the engine is at its next token: that moment is the engine's
  toFloat32(if(has_edge = 1 AND has_engine = 1, greatest(0, least(t.edge_seconds, t.e2e_seconds - phase_seconds)),
    t.edge_seconds)) AS edge_seconds,
  -- a request that Triton refused or that was given up in its queue never computed: all its time there was queueing
  if(t.queue_seconds = 0 AND compute_infer_seconds = 0 AND engine = 'triton'
     AND t.outcome IN ('rejected', 'timeout', 'client_abort'), engine_e2e_seconds, t.queue_seconds) AS queue_seconds,
  prefill_seconds,
  decode_seconds,
  stall_seconds,
  compute_input_seconds,
  compute_infer_seconds,
  compute_output_seconds,
  -- what the client of a stream felt; of a whole answer only the engine knows when its first token was there
  if(has_edge = 1 AND stream = 1, t.ttft_seconds, t.engine_ttft_seconds) AS ttft_seconds,
  if(has_edge = 1, t.e2e_seconds, t.engine_e2e_seconds) AS e2e_seconds,
  engine_ttft_seconds,
  engine_e2e_seconds,
  itl_mean_seconds,
  itl_p50_seconds,
  itl_p99_seconds,
  itl_max_seconds,
  itl_gaps,
  preemptions,
  -- inside the server and in none of its phases: reading, parsing, scheduling, answering. While a server still ends its
  -- answer the edge already hands it on: that moment is the edge's
  toFloat32(if(has_engine = 1 AND engine_e2e_seconds > 0, greatest(0, least(engine_e2e_seconds,
    if(has_edge = 1, t.e2e_seconds - edge_seconds, engine_e2e_seconds)) - phase_seconds), 0)) AS frontend_seconds,
  -- between edge and server: network, accept queue, event loops; what the edge waited less what the server says it took
  toFloat32(if(has_edge = 1 AND has_engine = 1 AND engine_e2e_seconds > 0,
    greatest(0, t.e2e_seconds - edge_seconds - greatest(engine_e2e_seconds, phase_seconds)), 0)) AS transit_seconds,
  toUInt32(1) AS weight,
  has_edge,
  has_engine,
  recording,
  if(has_edge = 1, t.sender_key_id, t.engine_sender_key_id) AS sender_key_id,
  if(has_edge = 1, t.sender_peer, t.engine_sender_peer) AS sender_peer,
  caller_sampled,
  unsampled,
  orphan
FROM {database}.requests_t AS t FINAL
WHERE moved = 0 OR has_edge = 1
SETTINGS do_not_merge_across_partitions_select_final = 0, optimize_move_to_prewhere_if_final = 1;
