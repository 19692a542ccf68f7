-- An edge half that a tenant's own key signed has a key of its own, which only that tenant's halves share. The engine's
-- half may have come under a key that speaks for nobody, the fleet's: it is given to the edge whose span id its own
-- parent is, 22 random bits and a millisecond, unless an edge of the fleet has that id.
INSERT INTO {database}.requests_t
(
  time, key, moved, trace_id, engine_response_id, engine_request_id, engine_model, engine, engine_instance, engine_deployment, engine_version,
  role, dp_rank, pod, node, region, cluster, engine_outcome, prompt_tokens, cached_tokens, completion_tokens, queue_seconds,
  prefill_seconds, decode_seconds, stall_seconds, compute_input_seconds, compute_infer_seconds, compute_output_seconds,
  engine_ttft_seconds, engine_e2e_seconds, preemptions, has_engine, recording, engine_tenant, sender_tenant, engine_sender_key_id,
  engine_sender_peer, received_at
)
WITH
  claims AS
  (
    SELECT DISTINCT time, key, sender_tenant
    FROM {database}.request_claims
    WHERE inserted_at > {since:DateTime64(3, 'UTC')} - INTERVAL 10 MINUTE
  ),
  chosen AS
  (
    SELECT h.time AS time, h.key AS key, (any(c.time), any(c.key), any(h.received_at)) AS edge
    FROM
    (
      SELECT time, key, received_at
      FROM {database}.requests_t FINAL
      WHERE time IN (SELECT time FROM claims) AND sender_tenant = '' AND has_engine = 1 AND has_edge = 0 AND moved = 0
    ) AS h
    INNER JOIN claims AS c ON c.time = h.time
    WHERE c.key = sipHash64(h.key, c.sender_tenant)
    GROUP BY time, key
    HAVING count() = 1
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
  WHERE (time, key) IN (SELECT time, key FROM chosen) AND moved = 0
) AS t
INNER JOIN chosen AS c ON c.time = t.time AND c.key = t.key
ARRAY JOIN [0, 1] AS tombstone
SETTINGS join_use_nulls = 0
