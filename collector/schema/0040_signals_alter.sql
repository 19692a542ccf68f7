-- Signals that few engines show have no column of their own: a sample's names without one lie in a map.

DROP VIEW IF EXISTS {database}.engine_samples_mv {on_cluster} SYNC;

ALTER TABLE {database}.engine_samples {on_cluster}
  ADD COLUMN IF NOT EXISTS other_signals Map(LowCardinality(String), Float64) CODEC(ZSTD(1)) AFTER compute_output_seconds_delta;

-- A name that a sample lacks has index 0, whose element is NULL.
CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.engine_samples_mv {on_cluster} TO {database}.engine_samples AS
SELECT
  time,
  tenant, sender_key_id, sender_peer,
  toDateTime(intDiv(received_ns, 1000000000), 'UTC') AS received_at,
{part:identity_names},
  toUInt8(ifNull(signals[indexOf(names, 'up')], 0) > 0) AS up,
  toFloat32(ifNull(signals[indexOf(names, 'scrape_seconds')], 0)) AS scrape_seconds,
  toFloat32(ifNull(signals[indexOf(names, 'interval_seconds')], 0)) AS interval_seconds,
  signals[indexOf(names, 'running')] AS running,
  signals[indexOf(names, 'waiting')] AS waiting,
  signals[indexOf(names, 'kv_cache_usage_ratio')] AS kv_cache_usage_ratio,
  signals[indexOf(names, 'preemptions_total')] AS preemptions_total,
  signals[indexOf(names, 'preemptions_delta')] AS preemptions_delta,
  signals[indexOf(names, 'prompt_tokens_total')] AS prompt_tokens_total,
  signals[indexOf(names, 'prompt_tokens_delta')] AS prompt_tokens_delta,
  signals[indexOf(names, 'generation_tokens_total')] AS generation_tokens_total,
  signals[indexOf(names, 'generation_tokens_delta')] AS generation_tokens_delta,
  signals[indexOf(names, 'prefix_cache_queries_total')] AS prefix_cache_queries_total,
  signals[indexOf(names, 'prefix_cache_queries_delta')] AS prefix_cache_queries_delta,
  signals[indexOf(names, 'prefix_cache_hits_total')] AS prefix_cache_hits_total,
  signals[indexOf(names, 'prefix_cache_hits_delta')] AS prefix_cache_hits_delta,
  signals[indexOf(names, 'requests_finished_total')] AS requests_finished_total,
  signals[indexOf(names, 'requests_finished_delta')] AS requests_finished_delta,
  signals[indexOf(names, 'requests_failed_total')] AS requests_failed_total,
  signals[indexOf(names, 'requests_failed_delta')] AS requests_failed_delta,
  signals[indexOf(names, 'engine_steps_total')] AS engine_steps_total,
  signals[indexOf(names, 'engine_steps_delta')] AS engine_steps_delta,
  signals[indexOf(names, 'batch_tokens_total')] AS batch_tokens_total,
  signals[indexOf(names, 'batch_tokens_delta')] AS batch_tokens_delta,
  signals[indexOf(names, 'inferences_total')] AS inferences_total,
  signals[indexOf(names, 'inferences_delta')] AS inferences_delta,
  signals[indexOf(names, 'executions_total')] AS executions_total,
  signals[indexOf(names, 'executions_delta')] AS executions_delta,
  signals[indexOf(names, 'response_cache_hits_total')] AS response_cache_hits_total,
  signals[indexOf(names, 'response_cache_hits_delta')] AS response_cache_hits_delta,
  signals[indexOf(names, 'response_cache_misses_total')] AS response_cache_misses_total,
  signals[indexOf(names, 'response_cache_misses_delta')] AS response_cache_misses_delta,
  signals[indexOf(names, 'request_seconds_total')] AS request_seconds_total,
  signals[indexOf(names, 'request_seconds_delta')] AS request_seconds_delta,
  signals[indexOf(names, 'queue_seconds_total')] AS queue_seconds_total,
  signals[indexOf(names, 'queue_seconds_delta')] AS queue_seconds_delta,
  signals[indexOf(names, 'prefill_seconds_total')] AS prefill_seconds_total,
  signals[indexOf(names, 'prefill_seconds_delta')] AS prefill_seconds_delta,
  signals[indexOf(names, 'decode_seconds_total')] AS decode_seconds_total,
  signals[indexOf(names, 'decode_seconds_delta')] AS decode_seconds_delta,
  signals[indexOf(names, 'compute_input_seconds_total')] AS compute_input_seconds_total,
  signals[indexOf(names, 'compute_input_seconds_delta')] AS compute_input_seconds_delta,
  signals[indexOf(names, 'compute_infer_seconds_total')] AS compute_infer_seconds_total,
  signals[indexOf(names, 'compute_infer_seconds_delta')] AS compute_infer_seconds_delta,
  signals[indexOf(names, 'compute_output_seconds_total')] AS compute_output_seconds_total,
  signals[indexOf(names, 'compute_output_seconds_delta')] AS compute_output_seconds_delta,
  -- A histogram's name has no number of its own here, and an agent may send whatever it likes: 256 at most.
  CAST(arraySlice(arrayMap(one -> (one.1, assumeNotNull(one.2)), arrayFilter(
    one -> one.2 IS NOT NULL AND NOT has(histogram_names, one.1) AND one.1 NOT IN (
      'up', 'scrape_seconds', 'interval_seconds', 'running', 'waiting', 'kv_cache_usage_ratio', 'preemptions_total',
      'preemptions_delta', 'prompt_tokens_total', 'prompt_tokens_delta', 'generation_tokens_total',
      'generation_tokens_delta', 'prefix_cache_queries_total', 'prefix_cache_queries_delta',
      'prefix_cache_hits_total', 'prefix_cache_hits_delta', 'requests_finished_total', 'requests_finished_delta',
      'requests_failed_total', 'requests_failed_delta', 'engine_steps_total', 'engine_steps_delta',
      'batch_tokens_total', 'batch_tokens_delta', 'inferences_total', 'inferences_delta', 'executions_total',
      'executions_delta', 'response_cache_hits_total', 'response_cache_hits_delta', 'response_cache_misses_total',
      'response_cache_misses_delta', 'request_seconds_total', 'request_seconds_delta', 'queue_seconds_total',
      'queue_seconds_delta', 'prefill_seconds_total', 'prefill_seconds_delta', 'decode_seconds_total',
      'decode_seconds_delta', 'compute_input_seconds_total', 'compute_input_seconds_delta',
      'compute_infer_seconds_total', 'compute_infer_seconds_delta', 'compute_output_seconds_total',
      'compute_output_seconds_delta'
    ), arrayZip(names, signals))), 1, 256), 'Map(LowCardinality(String), Float64)') AS other_signals
FROM {database}.land_samples
WHERE scope_name = 'servescope.sample';
