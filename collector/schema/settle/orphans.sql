-- An engine half without a tap's span id goes to the edge row that has its request or response id and was open at that
-- time: its columns are written under the edge's key, and its own row is marked as moved. An id used twice (a retry)
-- goes to the nearest edge that has no span's half yet, whether or not a probe told of it. Ids are easily guessed: both must
-- be of one tenant's key, or of none, and of one recording, or of none.
INSERT INTO {database}.requests_t
(
  time, key, moved, trace_id, engine_response_id, engine_request_id, engine_model, engine, engine_instance, engine_deployment, engine_version,
  role, dp_rank, pod, node, region, cluster, engine_outcome, prompt_tokens, cached_tokens, completion_tokens, queue_seconds,
  prefill_seconds, decode_seconds, stall_seconds, compute_input_seconds, compute_infer_seconds, compute_output_seconds,
  engine_ttft_seconds, engine_e2e_seconds, preemptions, has_engine, recording, engine_tenant, sender_tenant, engine_sender_key_id,
  engine_sender_peer, received_at
)
WITH
  seen AS
  (
    SELECT DISTINCT time, key, request_id, response_id, sender_tenant, recording
    FROM {database}.request_orphans
    WHERE inserted_at > {since:DateTime64(3, 'UTC')} - INTERVAL 10 MINUTE
  ),
  bounds AS (SELECT min(time) - INTERVAL 10 MINUTE AS first, max(time) + INTERVAL 1 MINUTE AS last FROM seen),
  -- one that has an edge would win it again from those that have none
  orphans AS
  (
    SELECT *
    FROM seen
    WHERE (time, key) NOT IN (
      SELECT time, key FROM {database}.requests_t
      WHERE time BETWEEN (SELECT first FROM bounds) AND (SELECT last FROM bounds) AND moved = 1)
  ),
  edges AS
  (
    SELECT time, key, request_id, response_id, e2e_seconds, sender_tenant, recording, received_at
    FROM {database}.requests_t FINAL
    WHERE time BETWEEN (SELECT first FROM bounds) AND (SELECT last FROM bounds) AND has_edge = 1 AND spanned = 0
  ),
  pairs AS
  (
    SELECT o.time AS time, o.key AS key, e.time AS edge_time, e.key AS edge_key, e.received_at AS edge_received_at, abs(toInt64(toUnixTimestamp64Milli(o.time)) - toInt64(toUnixTimestamp64Milli(e.time))) AS distance, o.e2e AS e2e
    FROM
    (
      SELECT time, key, sender_tenant, recording, arrayJoin(arrayFilter(x -> NOT endsWith(x, ' '), [concat('request ', request_id), concat('response ', response_id)])) AS id, 0 AS e2e
      FROM orphans
    ) AS o
    INNER JOIN
    (
      SELECT time, key, sender_tenant, recording, e2e_seconds, received_at, arrayJoin(arrayFilter(x -> NOT endsWith(x, ' '), [concat('request ', request_id), concat('response ', response_id)])) AS id
      FROM edges
    ) AS e ON o.id = e.id AND o.sender_tenant = e.sender_tenant AND o.recording = e.recording
    WHERE o.time >= e.time - INTERVAL 1 SECOND
      AND toUnixTimestamp64Milli(o.time) <= toUnixTimestamp64Milli(e.time) + toInt64(e.e2e_seconds * 1000) + 1000
  ),
  chosen AS
  (
    SELECT time, key, argMin((edge_time, edge_key, edge_received_at), distance) AS edge
    FROM pairs
    GROUP BY time, key
    ORDER BY min(distance)
    LIMIT 1 BY edge
  )
SELECT
  if(tombstone = 1, t.time, c.edge.1),
  if(tombstone = 1, t.key, c.edge.2),
  tombstone,
  t.trace_id, t.engine_response_id, t.engine_request_id, t.engine_model, t.engine, t.engine_instance, t.engine_deployment, t.engine_version,
  t.role, t.dp_rank, t.pod, t.node, t.region, t.cluster, t.engine_outcome, t.prompt_tokens, t.cached_tokens, t.completion_tokens, t.queue_seconds,
  t.prefill_seconds, t.decode_seconds, t.stall_seconds, t.compute_input_seconds, t.compute_infer_seconds, t.compute_output_seconds,
  t.engine_ttft_seconds, t.engine_e2e_seconds, t.preemptions, t.has_engine, t.recording,
  t.engine_tenant, t.sender_tenant, t.engine_sender_key_id, t.engine_sender_peer, if(tombstone = 1, t.received_at, c.edge.3)
FROM
(
  SELECT * FROM {database}.requests_t FINAL
  WHERE time BETWEEN (SELECT first FROM bounds) AND (SELECT last FROM bounds) AND (time, key) IN (SELECT time, key FROM chosen) AND moved = 0
) AS t
INNER JOIN chosen AS c ON c.time = t.time AND c.key = t.key
ARRAY JOIN [0, 1] AS tombstone
SETTINGS join_use_nulls = 0
