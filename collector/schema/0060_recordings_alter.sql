-- A recording may be played into the store that its rows are in already, under its server's own name: what is played must
-- replace nothing that happened, nor be taken for it.

-- A sorting key takes new columns alone, and none that is worked out; from then on it may be.
ALTER TABLE {database}.engine_samples {on_cluster}
  ADD COLUMN IF NOT EXISTS recorded UInt8 CODEC(ZSTD(1)) AFTER recording,
  MODIFY ORDER BY (instance, model, dp_rank, time, tenant, sender_key_id, recorded);
ALTER TABLE {database}.engine_samples {on_cluster} MODIFY COLUMN recorded UInt8 DEFAULT recording != '' CODEC(ZSTD(1));

ALTER TABLE {database}.engine_histograms {on_cluster}
  ADD COLUMN IF NOT EXISTS recorded UInt8 CODEC(ZSTD(1)) AFTER recording,
  MODIFY ORDER BY (instance, model, dp_rank, signal, time, tenant, sender_key_id, recorded);
ALTER TABLE {database}.engine_histograms {on_cluster} MODIFY COLUMN recorded UInt8 DEFAULT recording != '' CODEC(ZSTD(1));

ALTER TABLE {database}.host_samples {on_cluster}
  ADD COLUMN IF NOT EXISTS recorded UInt8 CODEC(ZSTD(1)) AFTER recording,
  MODIFY ORDER BY (node, instance, process_name, process_pid, time, tenant, sender_key_id, recorded);
ALTER TABLE {database}.host_samples {on_cluster} MODIFY COLUMN recorded UInt8 DEFAULT recording != '' CODEC(ZSTD(1));

ALTER TABLE {database}.gpu_samples {on_cluster}
  ADD COLUMN IF NOT EXISTS recorded UInt8 CODEC(ZSTD(1)) AFTER recording,
  MODIFY ORDER BY (gpu, instance, time, tenant, sender_key_id, recorded);
ALTER TABLE {database}.gpu_samples {on_cluster} MODIFY COLUMN recorded UInt8 DEFAULT recording != '' CODEC(ZSTD(1));

ALTER TABLE {database}.gpu_processes {on_cluster}
  ADD COLUMN IF NOT EXISTS recorded UInt8 CODEC(ZSTD(1)) AFTER recording,
  MODIFY ORDER BY (gpu, instance, process_pid, time, tenant, sender_key_id, recorded);
ALTER TABLE {database}.gpu_processes {on_cluster} MODIFY COLUMN recorded UInt8 DEFAULT recording != '' CODEC(ZSTD(1));

ALTER TABLE {database}.events {on_cluster}
  ADD COLUMN IF NOT EXISTS recorded UInt8 CODEC(ZSTD(1)) AFTER recording,
  MODIFY ORDER BY (time, event, instance, model, message, tenant, sender_key_id, recorded);
ALTER TABLE {database}.events {on_cluster} MODIFY COLUMN recorded UInt8 DEFAULT recording != '' CODEC(ZSTD(1));

ALTER TABLE {database}.engine_steps {on_cluster}
  ADD COLUMN IF NOT EXISTS recorded UInt8 CODEC(ZSTD(1)) AFTER recording,
  MODIFY ORDER BY (instance, model, dp_rank, time, pid, counter, tenant, sender_key_id, recorded);
ALTER TABLE {database}.engine_steps {on_cluster} MODIFY COLUMN recorded UInt8 DEFAULT recording != '' CODEC(ZSTD(1));

-- Halves meet within one recording, or where none is.
ALTER TABLE {database}.request_orphans {on_cluster}
  ADD COLUMN IF NOT EXISTS recording LowCardinality(String) CODEC(ZSTD(1)) AFTER sender_tenant;

DROP VIEW IF EXISTS {database}.request_orphans_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.requests_mv {on_cluster} SYNC;

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.request_orphans_mv {on_cluster} TO {database}.request_orphans AS
SELECT now64(3, 'UTC') AS inserted_at, time, key, engine_request_id AS request_id, engine_response_id AS response_id, sender_tenant, recording
FROM {database}.requests_t
WHERE orphan = 1 AND moved = 0 AND has_edge = 0 AND (engine_request_id != '' OR engine_response_id != '');

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
  multiIf(recording != '', sipHash64(own_key, sender_tenant, recording), sender_tenant != '', sipHash64(own_key, sender_tenant), own_key) AS key,
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
