-- A session has neither a time to first token nor a latency, whoever tells of it: its engine spans are of its turns.

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
  multiIf(operation = 'realtime', 0, has_edge = 1 AND stream = 1, t.ttft_seconds, t.engine_ttft_seconds) AS ttft_seconds,
  multiIf(operation = 'realtime', 0, has_edge = 1, t.e2e_seconds, t.engine_e2e_seconds) AS e2e_seconds,
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
