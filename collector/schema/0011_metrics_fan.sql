-- What becomes of a metric. Samples of our own agents become wide rows, everybody else's go to otel_metrics_*.

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.otel_metrics_gauge_mv {on_cluster} TO {database}.otel_metrics_gauge AS
WITH
{part:readers}
SELECT
  ResourceAttributes,
  ResourceSchemaUrl,
  ScopeName,
  ScopeVersion,
  ScopeAttributes,
  ScopeDroppedAttrCount,
  ScopeSchemaUrl,
  ResourceAttributes['service.name'] AS ServiceName,
  MetricName,
  MetricDescription,
  MetricUnit,
  attribute_map(point.attributes) AS Attributes,
  instant(point.start_time_unix_nano) AS StartTimeUnix,
  instant(point.time_unix_nano) AS TimeUnix,
  point.flags AS Flags,
  point.as_double + point.as_int AS Value,
  arrayMap(x -> attribute_map(x), point.exemplars.filtered_attributes) AS `Exemplars.FilteredAttributes`,
  arrayMap(x -> instant(x), point.exemplars.time_unix_nano) AS `Exemplars.TimeUnix`,
  arrayMap((x, y) -> x + y, point.exemplars.as_double, point.exemplars.as_int) AS `Exemplars.Value`,
  arrayMap(x -> lower(hex(x)), point.exemplars.span_id) AS `Exemplars.SpanId`,
  arrayMap(x -> lower(hex(x)), point.exemplars.trace_id) AS `Exemplars.TraceId`
FROM
(
  SELECT
    ResourceAttributes, ResourceSchemaUrl, ScopeName, ScopeVersion, ScopeAttributes, ScopeDroppedAttrCount, ScopeSchemaUrl,
    metric.name AS MetricName,
    metric.description AS MetricDescription,
    metric.unit AS MetricUnit,
    arrayJoin(metric.gauge.data_points) AS point
  FROM
  (
{part:metrics}
  )
);

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.otel_metrics_sum_mv {on_cluster} TO {database}.otel_metrics_sum AS
WITH
{part:readers}
SELECT
  ResourceAttributes,
  ResourceSchemaUrl,
  ScopeName,
  ScopeVersion,
  ScopeAttributes,
  ScopeDroppedAttrCount,
  ScopeSchemaUrl,
  ResourceAttributes['service.name'] AS ServiceName,
  MetricName,
  MetricDescription,
  MetricUnit,
  attribute_map(point.attributes) AS Attributes,
  instant(point.start_time_unix_nano) AS StartTimeUnix,
  instant(point.time_unix_nano) AS TimeUnix,
  point.flags AS Flags,
  point.as_double + point.as_int AS Value,
  AggregationTemporality,
  IsMonotonic,
  arrayMap(x -> attribute_map(x), point.exemplars.filtered_attributes) AS `Exemplars.FilteredAttributes`,
  arrayMap(x -> instant(x), point.exemplars.time_unix_nano) AS `Exemplars.TimeUnix`,
  arrayMap((x, y) -> x + y, point.exemplars.as_double, point.exemplars.as_int) AS `Exemplars.Value`,
  arrayMap(x -> lower(hex(x)), point.exemplars.span_id) AS `Exemplars.SpanId`,
  arrayMap(x -> lower(hex(x)), point.exemplars.trace_id) AS `Exemplars.TraceId`
FROM
(
  SELECT
    ResourceAttributes, ResourceSchemaUrl, ScopeName, ScopeVersion, ScopeAttributes, ScopeDroppedAttrCount, ScopeSchemaUrl,
    metric.name AS MetricName,
    metric.description AS MetricDescription,
    metric.unit AS MetricUnit,
    metric.sum.aggregation_temporality AS AggregationTemporality,
    metric.sum.is_monotonic AS IsMonotonic,
    arrayJoin(metric.sum.data_points) AS point
  FROM
  (
{part:metrics}
  )
);

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.otel_metrics_histogram_mv {on_cluster} TO {database}.otel_metrics_histogram AS
WITH
{part:readers}
SELECT
  ResourceAttributes,
  ResourceSchemaUrl,
  ScopeName,
  ScopeVersion,
  ScopeAttributes,
  ScopeDroppedAttrCount,
  ScopeSchemaUrl,
  ResourceAttributes['service.name'] AS ServiceName,
  MetricName,
  MetricDescription,
  MetricUnit,
  attribute_map(point.attributes) AS Attributes,
  instant(point.start_time_unix_nano) AS StartTimeUnix,
  instant(point.time_unix_nano) AS TimeUnix,
  point.flags AS Flags,
  point.count AS Count,
  point.sum AS Sum,
  point.min AS Min,
  point.max AS Max,
  AggregationTemporality,
  point.bucket_counts AS BucketCounts,
  point.explicit_bounds AS ExplicitBounds,
  arrayMap(x -> attribute_map(x), point.exemplars.filtered_attributes) AS `Exemplars.FilteredAttributes`,
  arrayMap(x -> instant(x), point.exemplars.time_unix_nano) AS `Exemplars.TimeUnix`,
  arrayMap((x, y) -> x + y, point.exemplars.as_double, point.exemplars.as_int) AS `Exemplars.Value`,
  arrayMap(x -> lower(hex(x)), point.exemplars.span_id) AS `Exemplars.SpanId`,
  arrayMap(x -> lower(hex(x)), point.exemplars.trace_id) AS `Exemplars.TraceId`
FROM
(
  SELECT
    ResourceAttributes, ResourceSchemaUrl, ScopeName, ScopeVersion, ScopeAttributes, ScopeDroppedAttrCount, ScopeSchemaUrl,
    metric.name AS MetricName,
    metric.description AS MetricDescription,
    metric.unit AS MetricUnit,
    metric.histogram.aggregation_temporality AS AggregationTemporality,
    arrayJoin(metric.histogram.data_points) AS point
  FROM
  (
{part:metrics}
  )
);

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.otel_metrics_exponential_histogram_mv {on_cluster} TO {database}.otel_metrics_exponential_histogram AS
WITH
{part:readers}
SELECT
  ResourceAttributes,
  ResourceSchemaUrl,
  ScopeName,
  ScopeVersion,
  ScopeAttributes,
  ScopeDroppedAttrCount,
  ScopeSchemaUrl,
  ResourceAttributes['service.name'] AS ServiceName,
  MetricName,
  MetricDescription,
  MetricUnit,
  attribute_map(point.attributes) AS Attributes,
  instant(point.start_time_unix_nano) AS StartTimeUnix,
  instant(point.time_unix_nano) AS TimeUnix,
  point.flags AS Flags,
  point.count AS Count,
  point.sum AS Sum,
  point.min AS Min,
  point.max AS Max,
  AggregationTemporality,
  point.scale AS Scale,
  point.zero_count AS ZeroCount,
  point.positive.offset AS PositiveOffset,
  point.positive.bucket_counts AS PositiveBucketCounts,
  point.negative.offset AS NegativeOffset,
  point.negative.bucket_counts AS NegativeBucketCounts,
  arrayMap(x -> attribute_map(x), point.exemplars.filtered_attributes) AS `Exemplars.FilteredAttributes`,
  arrayMap(x -> instant(x), point.exemplars.time_unix_nano) AS `Exemplars.TimeUnix`,
  arrayMap((x, y) -> x + y, point.exemplars.as_double, point.exemplars.as_int) AS `Exemplars.Value`,
  arrayMap(x -> lower(hex(x)), point.exemplars.span_id) AS `Exemplars.SpanId`,
  arrayMap(x -> lower(hex(x)), point.exemplars.trace_id) AS `Exemplars.TraceId`
FROM
(
  SELECT
    ResourceAttributes, ResourceSchemaUrl, ScopeName, ScopeVersion, ScopeAttributes, ScopeDroppedAttrCount, ScopeSchemaUrl,
    metric.name AS MetricName,
    metric.description AS MetricDescription,
    metric.unit AS MetricUnit,
    metric.exponential_histogram.aggregation_temporality AS AggregationTemporality,
    arrayJoin(metric.exponential_histogram.data_points) AS point
  FROM
  (
{part:metrics}
  )
);

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.otel_metrics_summary_mv {on_cluster} TO {database}.otel_metrics_summary AS
WITH
{part:readers}
SELECT
  ResourceAttributes,
  ResourceSchemaUrl,
  ScopeName,
  ScopeVersion,
  ScopeAttributes,
  ScopeDroppedAttrCount,
  ScopeSchemaUrl,
  ResourceAttributes['service.name'] AS ServiceName,
  MetricName,
  MetricDescription,
  MetricUnit,
  attribute_map(point.attributes) AS Attributes,
  instant(point.start_time_unix_nano) AS StartTimeUnix,
  instant(point.time_unix_nano) AS TimeUnix,
  point.flags AS Flags,
  point.count AS Count,
  point.sum AS Sum,
  point.quantile_values.quantile AS `ValueAtQuantiles.Quantile`,
  point.quantile_values.value AS `ValueAtQuantiles.Value`
FROM
(
  SELECT
    ResourceAttributes, ResourceSchemaUrl, ScopeName, ScopeVersion, ScopeAttributes, ScopeDroppedAttrCount, ScopeSchemaUrl,
    metric.name AS MetricName,
    metric.description AS MetricDescription,
    metric.unit AS MetricUnit,
    arrayJoin(metric.summary.data_points) AS point
  FROM
  (
{part:metrics}
  )
);

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.engine_samples_mv {on_cluster} TO {database}.engine_samples AS
WITH
{part:readers},
{part:sample_readers}
SELECT
  fromUnixTimestamp64Milli(toInt64(intDiv(sampled_ns(metrics), 1000000)), 'UTC') AS time,
  instance,
  deployment,
  engine,
  model,
  dp_rank,
  role,
  region,
  cluster,
  version,
  pod,
  node,
  recording,
  toUInt8(ifNull(signal(metrics, 'up'), 0) > 0) AS up,
  toFloat32(ifNull(signal(metrics, 'scrape_seconds'), 0)) AS scrape_seconds,
  toFloat32(ifNull(signal(metrics, 'interval_seconds'), 0)) AS interval_seconds,
  signal(metrics, 'running') AS running,
  signal(metrics, 'waiting') AS waiting,
  signal(metrics, 'kv_cache_usage_ratio') AS kv_cache_usage_ratio,
  signal(metrics, 'preemptions_total') AS preemptions_total,
  signal(metrics, 'preemptions_delta') AS preemptions_delta,
  signal(metrics, 'prompt_tokens_total') AS prompt_tokens_total,
  signal(metrics, 'prompt_tokens_delta') AS prompt_tokens_delta,
  signal(metrics, 'generation_tokens_total') AS generation_tokens_total,
  signal(metrics, 'generation_tokens_delta') AS generation_tokens_delta,
  signal(metrics, 'prefix_cache_queries_total') AS prefix_cache_queries_total,
  signal(metrics, 'prefix_cache_queries_delta') AS prefix_cache_queries_delta,
  signal(metrics, 'prefix_cache_hits_total') AS prefix_cache_hits_total,
  signal(metrics, 'prefix_cache_hits_delta') AS prefix_cache_hits_delta,
  signal(metrics, 'requests_finished_total') AS requests_finished_total,
  signal(metrics, 'requests_finished_delta') AS requests_finished_delta,
  signal(metrics, 'requests_failed_total') AS requests_failed_total,
  signal(metrics, 'requests_failed_delta') AS requests_failed_delta,
  signal(metrics, 'engine_steps_total') AS engine_steps_total,
  signal(metrics, 'engine_steps_delta') AS engine_steps_delta,
  signal(metrics, 'batch_tokens_total') AS batch_tokens_total,
  signal(metrics, 'batch_tokens_delta') AS batch_tokens_delta,
  signal(metrics, 'inferences_total') AS inferences_total,
  signal(metrics, 'inferences_delta') AS inferences_delta,
  signal(metrics, 'executions_total') AS executions_total,
  signal(metrics, 'executions_delta') AS executions_delta,
  signal(metrics, 'response_cache_hits_total') AS response_cache_hits_total,
  signal(metrics, 'response_cache_hits_delta') AS response_cache_hits_delta,
  signal(metrics, 'response_cache_misses_total') AS response_cache_misses_total,
  signal(metrics, 'response_cache_misses_delta') AS response_cache_misses_delta,
  signal(metrics, 'request_seconds_total') AS request_seconds_total,
  signal(metrics, 'request_seconds_delta') AS request_seconds_delta,
  signal(metrics, 'queue_seconds_total') AS queue_seconds_total,
  signal(metrics, 'queue_seconds_delta') AS queue_seconds_delta,
  signal(metrics, 'prefill_seconds_total') AS prefill_seconds_total,
  signal(metrics, 'prefill_seconds_delta') AS prefill_seconds_delta,
  signal(metrics, 'decode_seconds_total') AS decode_seconds_total,
  signal(metrics, 'decode_seconds_delta') AS decode_seconds_delta,
  signal(metrics, 'compute_input_seconds_total') AS compute_input_seconds_total,
  signal(metrics, 'compute_input_seconds_delta') AS compute_input_seconds_delta,
  signal(metrics, 'compute_infer_seconds_total') AS compute_infer_seconds_total,
  signal(metrics, 'compute_infer_seconds_delta') AS compute_infer_seconds_delta,
  signal(metrics, 'compute_output_seconds_total') AS compute_output_seconds_total,
  signal(metrics, 'compute_output_seconds_delta') AS compute_output_seconds_delta
FROM
(
{part:samples}
)
WHERE scope_name = 'servescope.sample' AND sampled_ns(metrics) > 0;

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.engine_histograms_mv {on_cluster} TO {database}.engine_histograms AS
SELECT
  fromUnixTimestamp64Milli(toInt64(intDiv(point.time_unix_nano, 1000000)), 'UTC') AS time,
  instance,
  deployment,
  engine,
  model,
  dp_rank,
  region,
  version,
  recording,
  signal,
  point.count AS count,
  point.sum AS sum,
  point.explicit_bounds AS bounds,
  point.bucket_counts AS counts
FROM
(
  SELECT instance, deployment, engine, model, dp_rank, region, version, recording, metric.name AS signal, arrayJoin(metric.histogram.data_points) AS point
  FROM
  (
    SELECT instance, deployment, engine, model, dp_rank, region, version, recording, arrayJoin(metrics) AS metric
    FROM
    (
{part:samples}
    )
    WHERE scope_name = 'servescope.sample'
  )
);

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.host_samples_mv {on_cluster} TO {database}.host_samples AS
WITH
{part:readers},
{part:sample_readers}
SELECT
  fromUnixTimestamp64Milli(toInt64(intDiv(sampled_ns(metrics), 1000000)), 'UTC') AS time,
  instance,
  attribute_text(resource, 'process.name') AS process_name,
  value_text(resource.value[indexOf(resource.key, 'process.pid')]) AS process_pid,
  deployment,
  region,
  cluster,
  pod,
  node,
  recording,
  signal(metrics, 'cpu_seconds_total') AS cpu_seconds_total,
  signal(metrics, 'cpu_delay_seconds_total') AS cpu_delay_seconds_total,
  signal(metrics, 'rss_bytes') AS rss_bytes,
  signal(metrics, 'threads') AS threads,
  signal(metrics, 'stopped') AS stopped,
  signal(metrics, 'involuntary_switches_total') AS involuntary_switches_total,
  signal(metrics, 'cpu_usage_ratio') AS cpu_usage_ratio,
  signal(metrics, 'load1') AS load1,
  signal(metrics, 'memory_available_bytes') AS memory_available_bytes,
  signal(metrics, 'cpu_pressure_some_ratio') AS cpu_pressure_some_ratio,
  signal(metrics, 'memory_pressure_some_ratio') AS memory_pressure_some_ratio,
  signal(metrics, 'io_pressure_some_ratio') AS io_pressure_some_ratio
FROM
(
{part:samples}
)
WHERE scope_name = 'servescope.host' AND sampled_ns(metrics) > 0;

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.gpu_samples_mv {on_cluster} TO {database}.gpu_samples AS
WITH
{part:readers},
{part:sample_readers}
SELECT
  fromUnixTimestamp64Milli(toInt64(intDiv(sampled_ns(metrics), 1000000)), 'UTC') AS time,
  attribute_text(resource, 'hw.id') AS gpu,
  attribute_text(resource, 'hw.name') AS gpu_name,
  value_text(resource.value[indexOf(resource.key, 'hw.index')]) AS gpu_index,
  instance,
  deployment,
  region,
  cluster,
  pod,
  node,
  recording,
  signal(metrics, 'gpu_utilization_ratio') AS gpu_utilization_ratio,
  signal(metrics, 'memory_utilization_ratio') AS memory_utilization_ratio,
  signal(metrics, 'memory_used_bytes') AS memory_used_bytes,
  signal(metrics, 'memory_total_bytes') AS memory_total_bytes,
  signal(metrics, 'power_watts') AS power_watts,
  signal(metrics, 'power_limit_watts') AS power_limit_watts,
  signal(metrics, 'energy_joules_total') AS energy_joules_total,
  signal(metrics, 'temperature_celsius') AS temperature_celsius,
  signal(metrics, 'sm_clock_hertz') AS sm_clock_hertz,
  signal(metrics, 'memory_clock_hertz') AS memory_clock_hertz,
  signal(metrics, 'throttle_reasons') AS throttle_reasons,
  signal(metrics, 'ecc_uncorrected_total') AS ecc_uncorrected_total,
  signal(metrics, 'pcie_replay_total') AS pcie_replay_total
FROM
(
{part:samples}
)
WHERE scope_name = 'servescope.gpu' AND sampled_ns(metrics) > 0;
