-- What a probe told of finished requests, given to the rows that they are of. A row that has the engine's id already has
-- its half: it gets what no span tells (preemptions, cached tokens, why it ended). An edge without one that has the
-- request or response id and was open at that time gets the whole half. Where a minute has brought neither, the request
-- came past every edge and has no span: it becomes a row of its own, which is marked as moved should either come later.
-- Ids are easily guessed: both must be of one tenant's key, or of none.
INSERT INTO {database}.requests_t
(
  time, key, moved, engine_response_id, engine_request_id, engine_model, engine, engine_instance, engine_deployment, engine_version,
  role, dp_rank, pod, node, region, cluster, engine_outcome, finish_reason, prompt_tokens, cached_tokens, completion_tokens,
  queue_seconds, prefill_seconds, decode_seconds, stall_seconds, engine_ttft_seconds, engine_e2e_seconds, preemptions, has_engine,
  probed, recording, engine_tenant, sender_tenant, engine_sender_key_id, engine_sender_peer, received_at
)
WITH
  told AS
  (
    SELECT
      *,
      if(startsWith(request_id, 'cmpl-') AND endsWith(request_id, '-0'), substring(request_id, 1, length(request_id) - 2), request_id) AS whole_id,
      multiIf(startsWith(whole_id, 'cmpl-'), substring(whole_id, 6), startsWith(whole_id, 'chatcmpl-'), substring(whole_id, 10), whole_id) AS client_id,
      sipHash64(whole_id, instance, sender_tenant, toUnixTimestamp64Micro(finished_at)) AS own_key,
      toInt64(toUnixTimestamp64Milli(time)) AS begun_ms,
      inserted_at < now64(3, 'UTC') - INTERVAL 1 MINUTE AS waited
    FROM {database}.finished_requests
    WHERE inserted_at > {since:DateTime64(3, 'UTC')} - toIntervalSecond({looks_back:UInt32}) AND request_id != ''
  ),
  bounds AS (SELECT min(time) - INTERVAL 10 MINUTE AS first, max(time) + INTERVAL 1 MINUTE AS last FROM told),
  there AS
  (
    SELECT time, key, request_id, response_id, engine_response_id, has_edge, has_engine, probed, moved, sender_tenant, received_at,
      toInt64(toUnixTimestamp64Milli(time)) AS begun_ms,
      begun_ms + toInt64(greatest(e2e_seconds, engine_e2e_seconds) * 1000) AS ended_ms
    FROM {database}.requests_t FINAL
    WHERE time BETWEEN (SELECT first FROM bounds) AND (SELECT last FROM bounds)
  ),
  pairs AS
  (
    SELECT o.own_key AS own_key, o.own_time AS own_time, (e.time, e.key, e.received_at, e.has_engine) AS row, abs(o.begun_ms - e.begun_ms) AS distance
    FROM
    (
      SELECT own_key, time AS own_time, begun_ms, sender_tenant,
        arrayJoin([concat('engine ', whole_id), concat('response ', whole_id), concat('request ', client_id)]) AS id
      FROM told
    ) AS o
    INNER JOIN
    (
      SELECT time, key, received_at, has_engine, begun_ms, ended_ms, sender_tenant,
        arrayJoin(if(has_engine = 1, [concat('engine ', engine_response_id)], [concat('response ', response_id), concat('request ', request_id)])) AS id
      FROM there
      WHERE has_edge = 1 OR (has_engine = 1 AND probed = 0 AND moved = 0)
    ) AS e ON o.id = e.id AND o.sender_tenant = e.sender_tenant
    WHERE o.begun_ms >= e.begun_ms - 1000 AND o.begun_ms <= e.ended_ms + 1000
  ),
  chosen AS
  (
    SELECT own_key, own_time, argMin(row, distance) AS row
    FROM pairs
    GROUP BY own_key, own_time
    ORDER BY min(distance)
    LIMIT 1 BY row
  )
SELECT
  if(place = 'given', t.row.1, t.time),
  if(place = 'given', t.row.2, t.own_key),
  place = 'moved',
  if(half, t.whole_id, ''), if(half, t.client_id, ''), if(half, t.model, ''), if(t.engine = '', 'vllm', t.engine), if(half, t.instance, ''),
  if(half, t.deployment, ''), if(half, t.version, ''), if(half, t.role, ''), if(half, t.dp_rank, ''), if(half, t.pod, ''),
  if(half, t.node, ''), if(half, t.region, ''), if(half, t.cluster, ''),
  multiIf(NOT half, '', t.reason = 'error', 'server_error', t.reason = 'abort', 'client_abort', 'ok'),
  t.reason,
  if(half, ifNull(t.prompt_tokens, 0), 0),
  ifNull(t.cached_tokens, 0),
  if(half, ifNull(t.generation_tokens, 0), 0),
  if(half, ifNull(t.queued_seconds, 0), 0),
  if(half, ifNull(t.prefill_seconds, 0), 0),
  if(half, ifNull(t.decode_seconds, 0), 0),
  if(half, greatest(t.first_token_seconds - ifNull(t.queued_seconds, 0) - ifNull(t.prefill_seconds, 0), 0), 0),
  if(half, t.first_token_seconds, 0),
  if(half, ifNull(t.e2e_seconds, 0), 0),
  ifNull(t.preemptions, 0),
  half,
  half,
  t.recording,
  if(half, t.tenant, ''), t.sender_tenant, if(half, t.sender_key_id, ''), if(half, t.sender_peer, ''),
  if(place = 'given', t.row.3, t.received_at)
FROM
(
  SELECT
    t.*,
    c.row AS row,
    c.own_key != 0 AS found,
    (t.time, t.own_key) IN (SELECT time, key FROM there WHERE has_edge = 0 AND moved = 0) AS stands,
    -- decoding began with the first token
    greatest(ifNull(t.e2e_seconds - t.decode_seconds, 0), 0) AS first_token_seconds,
    arrayJoin(arrayFilter(
      p -> multiIf(p = 'given', found, p = 'moved', found AND stands, NOT found AND t.waited),
      ['given', 'moved', 'own'])) AS place,
    toUInt8(place = 'own' OR (place = 'given' AND c.row.4 = 0)) AS half
  FROM told AS t
  LEFT JOIN chosen AS c ON c.own_key = t.own_key AND c.own_time = t.time
) AS t
SETTINGS join_use_nulls = 0
