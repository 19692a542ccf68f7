-- One sample of an agent becomes one wide row: a resource and scope of a request hold one point a metric.

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.land_samples_mv {on_cluster} TO {database}.land_samples AS
WITH
  arrayFilter(n -> n > 0, arrayConcat(arrayFlatten(gauge_ns), arrayFlatten(sum_ns), arrayFlatten(histogram_ns))) AS times,
  arrayFilter((i, ns) -> notEmpty(ns), arrayEnumerate(names), histogram_ns) AS drawn
SELECT
  scope_name,
{part:identity_names},
  ResourceAttributes,
  fromUnixTimestamp64Milli(toInt64(intDiv(times[1], 1000000)), 'UTC') AS time,
  names,
  arrayMap((v, w, x, y) -> if(isFinite(v[1] + w[1] + x[1] + y[1]), v[1] + w[1] + x[1] + y[1], NULL), gauge_double, gauge_int, sum_double, sum_int) AS signals,
  arrayMap(i -> names[i], drawn) AS histogram_names,
  arrayMap(i -> histogram_count[i][1], drawn) AS histogram_counts,
  arrayMap(i -> histogram_sum[i][1], drawn) AS histogram_sums,
  arrayMap(i -> histogram_bounds[i][1], drawn) AS histogram_bounds,
  arrayMap(i -> histogram_buckets[i][1], drawn) AS histogram_buckets
FROM
(
  SELECT
    ResourceAttributes,
{part:identity_names},
    scope_name,
    names,
    gauge_double,
    gauge_int,
    gauge_ns,
    sum_double,
    sum_int,
    sum_ns,
    histogram_ns,
    histogram_count,
    histogram_sum,
    histogram_bounds,
    histogram_buckets
  FROM
  (
    WITH
{part:readers}
    SELECT
      attribute_map(resource) AS ResourceAttributes,
{part:identity},
      scope_name_1,
      names_1,
      gauge_double_1,
      gauge_int_1,
      gauge_ns_1,
      sum_double_1,
      sum_int_1,
      sum_ns_1,
      histogram_ns_1,
      histogram_count_1,
      histogram_sum_1,
      histogram_bounds_1,
      histogram_buckets_1
    FROM {database}.land_metrics
    ARRAY JOIN
      resource_metrics.resource.attributes AS resource,
      resource_metrics.scope_metrics.scope.name AS scope_name_1,
      resource_metrics.scope_metrics.metrics.name AS names_1,
      resource_metrics.scope_metrics.metrics.gauge.data_points.as_double AS gauge_double_1,
      resource_metrics.scope_metrics.metrics.gauge.data_points.as_int AS gauge_int_1,
      resource_metrics.scope_metrics.metrics.gauge.data_points.time_unix_nano AS gauge_ns_1,
      resource_metrics.scope_metrics.metrics.sum.data_points.as_double AS sum_double_1,
      resource_metrics.scope_metrics.metrics.sum.data_points.as_int AS sum_int_1,
      resource_metrics.scope_metrics.metrics.sum.data_points.time_unix_nano AS sum_ns_1,
      resource_metrics.scope_metrics.metrics.histogram.data_points.time_unix_nano AS histogram_ns_1,
      resource_metrics.scope_metrics.metrics.histogram.data_points.count AS histogram_count_1,
      resource_metrics.scope_metrics.metrics.histogram.data_points.sum AS histogram_sum_1,
      resource_metrics.scope_metrics.metrics.histogram.data_points.explicit_bounds AS histogram_bounds_1,
      resource_metrics.scope_metrics.metrics.histogram.data_points.bucket_counts AS histogram_buckets_1
    WHERE hasAny(scope_name_1, ['servescope.sample', 'servescope.host', 'servescope.gpu'])
  )
  ARRAY JOIN
    scope_name_1 AS scope_name,
    names_1 AS names,
    gauge_double_1 AS gauge_double,
    gauge_int_1 AS gauge_int,
    gauge_ns_1 AS gauge_ns,
    sum_double_1 AS sum_double,
    sum_int_1 AS sum_int,
    sum_ns_1 AS sum_ns,
    histogram_ns_1 AS histogram_ns,
    histogram_count_1 AS histogram_count,
    histogram_sum_1 AS histogram_sum,
    histogram_bounds_1 AS histogram_bounds,
    histogram_buckets_1 AS histogram_buckets
)
WHERE scope_name IN ('servescope.sample', 'servescope.host', 'servescope.gpu') AND notEmpty(times);

-- A name that a sample lacks has index 0, whose element is NULL.
CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.engine_samples_mv {on_cluster} TO {database}.engine_samples AS
SELECT
  time,
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
  signals[indexOf(names, 'compute_output_seconds_delta')] AS compute_output_seconds_delta
FROM {database}.land_samples
WHERE scope_name = 'servescope.sample';

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.engine_histograms_mv {on_cluster} TO {database}.engine_histograms AS
SELECT
  time,
  instance, deployment, engine, model, dp_rank, region, version, recording,
  signal,
  count,
  sum,
  bounds,
  counts
FROM {database}.land_samples
ARRAY JOIN
  histogram_names AS signal,
  histogram_counts AS count,
  histogram_sums AS sum,
  histogram_bounds AS bounds,
  histogram_buckets AS counts
WHERE scope_name = 'servescope.sample';

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.host_samples_mv {on_cluster} TO {database}.host_samples AS
SELECT
  time,
  instance,
  ResourceAttributes['process.name'] AS process_name,
  ResourceAttributes['process.pid'] AS process_pid,
  deployment, region, cluster, pod, node, recording,
  signals[indexOf(names, 'cpu_seconds_total')] AS cpu_seconds_total,
  signals[indexOf(names, 'cpu_delay_seconds_total')] AS cpu_delay_seconds_total,
  signals[indexOf(names, 'rss_bytes')] AS rss_bytes,
  signals[indexOf(names, 'threads')] AS threads,
  signals[indexOf(names, 'stopped')] AS stopped,
  signals[indexOf(names, 'involuntary_switches_total')] AS involuntary_switches_total,
  signals[indexOf(names, 'cpu_usage_ratio')] AS cpu_usage_ratio,
  signals[indexOf(names, 'load1')] AS load1,
  signals[indexOf(names, 'memory_available_bytes')] AS memory_available_bytes,
  signals[indexOf(names, 'cpu_pressure_some_ratio')] AS cpu_pressure_some_ratio,
  signals[indexOf(names, 'memory_pressure_some_ratio')] AS memory_pressure_some_ratio,
  signals[indexOf(names, 'io_pressure_some_ratio')] AS io_pressure_some_ratio
FROM {database}.land_samples
WHERE scope_name = 'servescope.host';

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.gpu_samples_mv {on_cluster} TO {database}.gpu_samples AS
SELECT
  time,
  ResourceAttributes['hw.id'] AS gpu,
  ResourceAttributes['hw.name'] AS gpu_name,
  ResourceAttributes['hw.index'] AS gpu_index,
  instance,
  deployment, region, cluster, pod, node, recording,
  signals[indexOf(names, 'gpu_utilization_ratio')] AS gpu_utilization_ratio,
  signals[indexOf(names, 'memory_utilization_ratio')] AS memory_utilization_ratio,
  signals[indexOf(names, 'memory_used_bytes')] AS memory_used_bytes,
  signals[indexOf(names, 'memory_total_bytes')] AS memory_total_bytes,
  signals[indexOf(names, 'power_watts')] AS power_watts,
  signals[indexOf(names, 'power_limit_watts')] AS power_limit_watts,
  signals[indexOf(names, 'energy_joules_total')] AS energy_joules_total,
  signals[indexOf(names, 'temperature_celsius')] AS temperature_celsius,
  signals[indexOf(names, 'sm_clock_hertz')] AS sm_clock_hertz,
  signals[indexOf(names, 'memory_clock_hertz')] AS memory_clock_hertz,
  signals[indexOf(names, 'throttle_reasons')] AS throttle_reasons,
  signals[indexOf(names, 'ecc_uncorrected_total')] AS ecc_uncorrected_total,
  signals[indexOf(names, 'pcie_replay_total')] AS pcie_replay_total
FROM {database}.land_samples
WHERE scope_name = 'servescope.gpu';
