-- What a probe told of finished requests, given to the rows that they are of. A row that has the engine's id already has
-- its half: it gets what no span tells (preemptions, cached tokens, why it ended). An edge without one that has the
-- request or response id and was open at that time gets the whole half. Where a minute has brought neither, the request
-- came past every edge and has no span: it becomes a row of its own, which is marked as moved should either come later.
-- Ids are easily guessed: both must be of one tenant's key, or of none, and of one recording, or of none. Only what speaks
-- for nobody, the fleet's, may complete a tenant's edge: once a minute has brought no edge of the fleet with that id, and
-- where no other tenant has it.
-- A completion is finished once for each of its prompts, numbered: the first that is there gives its times, all together
-- their counts, and none is a row beside an edge. What happened over a day before or after it was received is left alone.
INSERT INTO {database}.requests_t
(
  time, key, moved, engine_response_id, engine_request_id, engine_model, engine, engine_instance, engine_deployment, engine_version,
  role, dp_rank, pod, node, region, cluster, engine_outcome, finish_reason, prompt_tokens, cached_tokens, completion_tokens,
  queue_seconds, prefill_seconds, decode_seconds, stall_seconds, engine_ttft_seconds, engine_e2e_seconds, preemptions, has_engine,
  spanned, told_key, recording, engine_tenant, sender_tenant, engine_sender_key_id, engine_sender_peer, received_at
)
WITH
  told AS
  (
    SELECT
      *,
      startsWith(request_id, 'cmpl-') AND match(request_id, '-[0-9]+$') AS numbered,
      if(numbered, replaceRegexpOne(request_id, '-[0-9]+$', ''), request_id) AS whole_id,
      if(numbered, toUInt32OrZero(substring(request_id, length(whole_id) + 2)), 0) AS part,
      if(part = 0, whole_id, request_id) AS said_id,
      sipHash64(request_id, instance, sender_tenant, toUnixTimestamp64Micro(finished_at)) AS live_key,
      if(recording = '', live_key, sipHash64(live_key, recording)) AS own_key,
      toInt64(toUnixTimestamp64Milli(time)) AS begun_ms,
      inserted_at < now64(3, 'UTC') - INTERVAL 1 MINUTE AS waited
    FROM {database}.finished_requests
    WHERE inserted_at > {since:DateTime64(3, 'UTC')} - toIntervalSecond({looks_back:UInt32}) AND request_id != ''
      AND time BETWEEN received_at - INTERVAL 1 DAY AND received_at + INTERVAL 1 DAY
    LIMIT 1 BY own_key
  ),
  bounds AS (SELECT min(time) - INTERVAL 10 MINUTE AS first, max(time) + INTERVAL 1 MINUTE AS last FROM told),
  there AS
  (
    SELECT time, key, request_id, response_id, engine_response_id, has_edge, has_engine, spanned, told_key, moved, sender_tenant, recording, received_at,
      toInt64(toUnixTimestamp64Milli(time)) AS begun_ms,
      begun_ms + toInt64(greatest(e2e_seconds, engine_e2e_seconds) * 1000) AS ended_ms
    FROM {database}.requests_t FINAL
    WHERE time BETWEEN (SELECT first FROM bounds) AND (SELECT last FROM bounds)
  ),
  pairs AS
  (
    SELECT
      o.own_key AS own_key, o.part AS part, o.waited AS waited, e.sender_tenant AS edge_tenant,
      o.sender_tenant != e.sender_tenant AS strange,
      o.part > 0 OR e.told_key IN (0, o.own_key) AS free,
      (strange, e.told_key != o.own_key, o.loose, abs(o.begun_ms - e.begun_ms)) AS distance,
      (e.time, e.key, e.received_at, e.has_engine, strange) AS row
    FROM
    (
      SELECT
        own_key, part, waited, begun_ms, sender_tenant, recording,
        arrayJoin(arrayFilter(x -> NOT endsWith(x.1, ' '), [
          (concat('engine ', said_id), 0),
          (concat('response ', whole_id), 0), (concat('request ', replaceRegexpOne(whole_id, '^(chat)?cmpl-', '')), 0),
          -- an id that ends in a number by itself
          (concat('response ', request_id), 1), (concat('request ', replaceRegexpOne(request_id, '^(chat)?cmpl-', '')), 1)])) AS asked,
        asked.1 AS id,
        asked.2 AS loose
      FROM told
    ) AS o
    INNER JOIN
    (
      SELECT time, key, received_at, has_edge, has_engine, told_key, begun_ms, ended_ms, sender_tenant, recording,
        arrayJoin(arrayConcat(
          if(has_engine = 1, [concat('engine ', engine_response_id)], []),
          if(has_edge = 1, [concat('response ', response_id), concat('request ', request_id)], []))) AS id
      FROM there
      WHERE has_edge = 1 OR (spanned = 1 AND moved = 0)
    ) AS e ON o.id = e.id AND o.recording = e.recording
    WHERE (o.sender_tenant = e.sender_tenant OR (o.sender_tenant = '' AND e.has_edge = 1))
      AND o.begun_ms >= e.begun_ms - 1000 AND o.begun_ms <= e.ended_ms + 1000
  ),
  nearest AS
  (
    SELECT
      own_key, part, argMinIf(row, distance, free) AS row, minIf(distance, free) AS how_far,
      countIf(free) > 0 AND row.5 = min(strange) AND (row.5 = 0 OR (any(waited) AND uniqExact(edge_tenant) = 1)) AS fits
    FROM pairs
    GROUP BY own_key, part
  ),
  chosen AS
  (
    SELECT own_key, row, fits AND row_number() OVER (PARTITION BY row, part, fits ORDER BY how_far, own_key) = 1 AS found
    FROM nearest
  ),
  together AS
  (
    SELECT
      t.*,
      c.row AS row,
      c.own_key != 0 AS known,
      c.found AS found,
      if(found, tuple(row.1, row.2), tuple(t.time, t.own_key)) AS target,
      row_number() OVER (PARTITION BY target ORDER BY t.part) = 1 AS leads,
      sum(toUInt64(ifNull(t.prompt_tokens, 0))) OVER (PARTITION BY target) AS all_prompt_tokens,
      sum(toUInt64(ifNull(t.cached_tokens, 0))) OVER (PARTITION BY target) AS all_cached_tokens,
      sum(toUInt64(ifNull(t.generation_tokens, 0))) OVER (PARTITION BY target) AS all_generation_tokens,
      sum(toUInt64(ifNull(t.preemptions, 0))) OVER (PARTITION BY target) AS all_preemptions
    FROM told AS t
    LEFT JOIN chosen AS c ON c.own_key = t.own_key
  )
SELECT
  if(place = 'given', t.row.1, t.time),
  if(place = 'given', t.row.2, t.own_key),
  place = 'moved',
  if(half, t.said_id, ''), if(half, replaceRegexpOne(t.said_id, '^(chat)?cmpl-', ''), ''), if(half, t.model, ''), if(t.engine = '', 'vllm', t.engine), if(half, t.instance, ''),
  if(half, t.deployment, ''), if(half, t.version, ''), if(half, t.role, ''), if(half, t.dp_rank, ''), if(half, t.pod, ''),
  if(half, t.node, ''), if(half, t.region, ''), if(half, t.cluster, ''),
  multiIf(NOT half, '', t.reason = 'error', 'server_error', t.reason = 'abort', 'client_abort', 'ok'),
  t.reason,
  if(place = 'moved', 0, t.all_prompt_tokens),
  t.all_cached_tokens,
  if(place = 'moved', 0, t.all_generation_tokens),
  if(half, ifNull(t.queued_seconds, 0), 0),
  if(half, ifNull(t.prefill_seconds, 0), 0),
  if(half, ifNull(t.decode_seconds, 0), 0),
  if(half, greatest(t.first_token_seconds - ifNull(t.queued_seconds, 0) - ifNull(t.prefill_seconds, 0), 0), 0),
  if(half, t.first_token_seconds, 0),
  if(half, ifNull(t.e2e_seconds, 0), 0),
  t.all_preemptions,
  half,
  0,
  if(place = 'given' AND t.part = 0, t.own_key, 0),
  t.recording,
  if(half, t.tenant, ''), t.sender_tenant, if(half, t.sender_key_id, ''), if(half, t.sender_peer, ''),
  if(place = 'given', t.row.3, t.received_at)
FROM
(
  SELECT
    t.*,
    (t.time, t.own_key) IN (SELECT time, key FROM there WHERE has_edge = 0 AND moved = 0) AS stands,
    -- decoding began with the first token
    greatest(ifNull(t.e2e_seconds - t.decode_seconds, 0), 0) AS first_token_seconds,
    arrayJoin(arrayFilter(
      p -> multiIf(p = 'given', t.found, p = 'moved', t.found AND stands, NOT t.known AND t.waited),
      ['given', 'moved', 'own'])) AS place,
    toUInt8(place = 'own' OR (place = 'given' AND t.row.4 = 0 AND t.leads)) AS half
  FROM together AS t
) AS t
SETTINGS join_use_nulls = 0
