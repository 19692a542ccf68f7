-- As in 0014, for requests. Halves of one request may come in on two days, so they merge across partitions; `time` leads
-- the sorting key, and ranges that nothing overlaps are read without merging.
--
-- sender_tenant is whom the sender's key speaks for. Halves meet only within one of these (their keys differ
-- otherwise): nobody's half can write into another's row.

CREATE TABLE IF NOT EXISTS {database}.requests_t_next {on_cluster}
(
  time DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
  key UInt64 CODEC(ZSTD(1)),
  trace_id SimpleAggregateFunction(max, String) CODEC(ZSTD(1)),
  request_id SimpleAggregateFunction(max, String) CODEC(ZSTD(1)),
  response_id SimpleAggregateFunction(max, String) CODEC(ZSTD(1)),
  engine_request_id SimpleAggregateFunction(max, String) CODEC(ZSTD(1)),
  tenant SimpleAggregateFunction(max, LowCardinality(String)) CODEC(ZSTD(1)),
  model SimpleAggregateFunction(max, LowCardinality(String)) CODEC(ZSTD(1)),
  engine_model SimpleAggregateFunction(max, LowCardinality(String)) CODEC(ZSTD(1)),
  engine SimpleAggregateFunction(max, LowCardinality(String)) CODEC(ZSTD(1)),
  instance SimpleAggregateFunction(max, LowCardinality(String)) CODEC(ZSTD(1)),
  engine_instance SimpleAggregateFunction(max, LowCardinality(String)) CODEC(ZSTD(1)),
  deployment SimpleAggregateFunction(max, LowCardinality(String)) CODEC(ZSTD(1)),
  engine_deployment SimpleAggregateFunction(max, LowCardinality(String)) CODEC(ZSTD(1)),
  role SimpleAggregateFunction(max, LowCardinality(String)) CODEC(ZSTD(1)),
  dp_rank SimpleAggregateFunction(max, LowCardinality(String)) CODEC(ZSTD(1)),
  pod SimpleAggregateFunction(max, LowCardinality(String)) CODEC(ZSTD(1)),
  node SimpleAggregateFunction(max, LowCardinality(String)) CODEC(ZSTD(1)),
  region SimpleAggregateFunction(max, LowCardinality(String)) CODEC(ZSTD(1)),
  cluster SimpleAggregateFunction(max, LowCardinality(String)) CODEC(ZSTD(1)),
  version SimpleAggregateFunction(max, LowCardinality(String)) CODEC(ZSTD(1)),
  engine_version SimpleAggregateFunction(max, LowCardinality(String)) CODEC(ZSTD(1)),
  route SimpleAggregateFunction(max, LowCardinality(String)) CODEC(ZSTD(1)),
  stream SimpleAggregateFunction(max, UInt8) CODEC(ZSTD(1)),
  status SimpleAggregateFunction(max, UInt16) CODEC(ZSTD(1)),
  outcome SimpleAggregateFunction(max, LowCardinality(String)) CODEC(ZSTD(1)),
  engine_outcome SimpleAggregateFunction(max, LowCardinality(String)) CODEC(ZSTD(1)),
  finish_reason SimpleAggregateFunction(max, LowCardinality(String)) CODEC(ZSTD(1)),
  error_type SimpleAggregateFunction(max, LowCardinality(String)) CODEC(ZSTD(1)),
  prompt_tokens SimpleAggregateFunction(max, UInt32) CODEC(ZSTD(1)),
  cached_tokens SimpleAggregateFunction(max, UInt32) CODEC(ZSTD(1)),
  completion_tokens SimpleAggregateFunction(max, UInt32) CODEC(ZSTD(1)),
  counted_tokens SimpleAggregateFunction(max, UInt32) CODEC(ZSTD(1)),
  request_bytes SimpleAggregateFunction(max, UInt64) CODEC(ZSTD(1)),
  response_bytes SimpleAggregateFunction(max, UInt64) CODEC(ZSTD(1)),
  edge_seconds SimpleAggregateFunction(max, Float32) CODEC(ZSTD(1)),
  queue_seconds SimpleAggregateFunction(max, Float32) CODEC(ZSTD(1)),
  prefill_seconds SimpleAggregateFunction(max, Float32) CODEC(ZSTD(1)),
  decode_seconds SimpleAggregateFunction(max, Float32) CODEC(ZSTD(1)),
  stall_seconds SimpleAggregateFunction(max, Float32) CODEC(ZSTD(1)),
  compute_input_seconds SimpleAggregateFunction(max, Float32) CODEC(ZSTD(1)),
  compute_infer_seconds SimpleAggregateFunction(max, Float32) CODEC(ZSTD(1)),
  compute_output_seconds SimpleAggregateFunction(max, Float32) CODEC(ZSTD(1)),
  ttft_seconds SimpleAggregateFunction(max, Float32) CODEC(ZSTD(1)),
  e2e_seconds SimpleAggregateFunction(max, Float32) CODEC(ZSTD(1)),
  engine_ttft_seconds SimpleAggregateFunction(max, Float32) CODEC(ZSTD(1)),
  engine_e2e_seconds SimpleAggregateFunction(max, Float32) CODEC(ZSTD(1)),
  itl_mean_seconds SimpleAggregateFunction(max, Float32) CODEC(ZSTD(1)),
  itl_p50_seconds SimpleAggregateFunction(max, Float32) CODEC(ZSTD(1)),
  itl_p99_seconds SimpleAggregateFunction(max, Float32) CODEC(ZSTD(1)),
  itl_max_seconds SimpleAggregateFunction(max, Float32) CODEC(ZSTD(1)),
  itl_gaps SimpleAggregateFunction(max, UInt32) CODEC(ZSTD(1)),
  preemptions SimpleAggregateFunction(max, UInt32) CODEC(ZSTD(1)),
  has_edge SimpleAggregateFunction(max, UInt8) CODEC(ZSTD(1)),
  has_engine SimpleAggregateFunction(max, UInt8) CODEC(ZSTD(1)),
  orphan SimpleAggregateFunction(max, UInt8) CODEC(ZSTD(1)),
  moved SimpleAggregateFunction(max, UInt8) CODEC(ZSTD(1)),
  recording SimpleAggregateFunction(max, LowCardinality(String)) CODEC(ZSTD(1)),
  engine_tenant SimpleAggregateFunction(max, LowCardinality(String)) CODEC(ZSTD(1)),
  sender_tenant SimpleAggregateFunction(max, LowCardinality(String)) CODEC(ZSTD(1)),
  sender_key_id SimpleAggregateFunction(max, LowCardinality(String)) CODEC(ZSTD(1)),
  engine_sender_key_id SimpleAggregateFunction(max, LowCardinality(String)) CODEC(ZSTD(1)),
  sender_peer SimpleAggregateFunction(max, LowCardinality(String)) CODEC(ZSTD(1)),
  engine_sender_peer SimpleAggregateFunction(max, LowCardinality(String)) CODEC(ZSTD(1)),
  received_at SimpleAggregateFunction(max, DateTime('UTC')) DEFAULT now('UTC') CODEC(DoubleDelta, ZSTD(1)),
  inserted_at SimpleAggregateFunction(max, DateTime('UTC')) MATERIALIZED now('UTC') CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = {engine:AggregatingMergeTree}
PARTITION BY toDate(received_at)
ORDER BY (time, key)
{ttl:requests inserted_at 30}
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;
{replace:requests_t received_at = inserted_at};

CREATE TABLE IF NOT EXISTS {database}.request_keys_next {on_cluster}
(
  trace_id String CODEC(ZSTD(1)),
  time DateTime64(3, 'UTC') CODEC(ZSTD(1)),
  key UInt64 CODEC(ZSTD(1)),
  received_at DateTime('UTC') DEFAULT now('UTC') CODEC(DoubleDelta, ZSTD(1)),
  inserted_at DateTime('UTC') MATERIALIZED now('UTC') CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = {engine:ReplacingMergeTree}
PARTITION BY toDate(received_at)
ORDER BY (trace_id, time, key)
{ttl:requests inserted_at 30}
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;
{replace:request_keys received_at = inserted_at};

CREATE TABLE IF NOT EXISTS {database}.requests_1m_next {on_cluster}
(
  time DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
  model LowCardinality(String),
  deployment LowCardinality(String),
  instance LowCardinality(String),
  engine LowCardinality(String),
  tenant LowCardinality(String),
  region LowCardinality(String),
  version LowCardinality(String),
  outcome LowCardinality(String),
  recording LowCardinality(String),
  count SimpleAggregateFunction(sum, UInt64),
  prompt_tokens SimpleAggregateFunction(sum, UInt64),
  completion_tokens SimpleAggregateFunction(sum, UInt64),
  edge_seconds_sum SimpleAggregateFunction(sum, Float64),
  e2e_seconds_sum SimpleAggregateFunction(sum, Float64),
  ttft_us_state AggregateFunction(quantilesDD(0.01, 0.5, 0.9, 0.95, 0.99), Float32),
  e2e_us_state AggregateFunction(quantilesDD(0.01, 0.5, 0.9, 0.95, 0.99), Float32),
  itl_mean_us_state AggregateFunction(quantilesDD(0.01, 0.5, 0.9, 0.95, 0.99), Float32),
  received_at SimpleAggregateFunction(max, DateTime('UTC')) DEFAULT now('UTC') CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = {engine:AggregatingMergeTree}
PARTITION BY toYYYYMM(received_at)
ORDER BY (model, deployment, instance, engine, tenant, region, version, outcome, recording, time)
{ttl:requests_1m received_at 400}
SETTINGS non_replicated_deduplication_window = 10000;
{replace:requests_1m received_at = least(time, now('UTC'))};

ALTER TABLE {database}.triton_spans {on_cluster}
  ADD COLUMN IF NOT EXISTS tenant LowCardinality(String),
  ADD COLUMN IF NOT EXISTS sender_tenant LowCardinality(String),
  ADD COLUMN IF NOT EXISTS sender_key_id LowCardinality(String),
  ADD COLUMN IF NOT EXISTS sender_peer LowCardinality(String);

ALTER TABLE {database}.request_orphans {on_cluster}
  ADD COLUMN IF NOT EXISTS sender_tenant LowCardinality(String);

-- Edge halves that a tenant's own key signed: the engine's half may have come under the fleet's.
CREATE TABLE IF NOT EXISTS {database}.request_claims {on_cluster}
(
  inserted_at DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
  time DateTime64(3, 'UTC') CODEC(ZSTD(1)),
  key UInt64 CODEC(ZSTD(1)),
  sender_tenant LowCardinality(String)
)
ENGINE = {engine:MergeTree}
PARTITION BY toDate(inserted_at)
ORDER BY inserted_at
{ttl:triton_spans toDateTime(inserted_at) 2}
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

CREATE OR REPLACE VIEW {database}.requests {on_cluster} AS
WITH
  queue_seconds + prefill_seconds + decode_seconds + stall_seconds + compute_input_seconds + compute_infer_seconds
    + compute_output_seconds AS phase_seconds
SELECT
  time,
  key,
  lower(hex(t.trace_id)) AS trace_id,
  if(t.request_id != '', t.request_id, t.engine_request_id) AS request_id,
  response_id,
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
  if(has_edge = 1, t.ttft_seconds, t.engine_ttft_seconds) AS ttft_seconds,
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
  if(has_edge = 1, t.sender_peer, t.engine_sender_peer) AS sender_peer
FROM {database}.requests_t AS t FINAL
WHERE moved = 0 OR has_edge = 1
SETTINGS do_not_merge_across_partitions_select_final = 0, optimize_move_to_prewhere_if_final = 1;
