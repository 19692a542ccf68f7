-- What becomes of a metric. Samples of our own agents become wide rows, everybody else's go to otel_metrics_*.

-- A row a point, whatever its kind: only one of a metric's five lists of points has any, so joining them end to end is
-- choosing. Lists that a kind lacks are shorter than the points; ARRAY JOIN pads them with defaults.
CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.land_points_mv {on_cluster} TO {database}.land_points AS
WITH
{part:value_readers},
{part:time_readers}
SELECT
  arrival_ns(p.received_ns) AS received_ns,
  multiIf(
    p.tenant != '', p.tenant,
    Attributes['servescope.tenant'] != '', Attributes['servescope.tenant'],
    ResourceAttributes['servescope.tenant']) AS tenant,
  sender_key_id,
  sender_peer,
  kind,
  ResourceAttributes,
  ResourceSchemaUrl,
  ScopeName,
  ScopeVersion,
  ScopeAttributes,
  ScopeDroppedAttrCount,
  ScopeSchemaUrl,
  MetricName,
  MetricDescription,
  MetricUnit,
  AggregationTemporality,
  IsMonotonic,
  attribute_map(point_attributes) AS Attributes,
  if(raw_start_ns > 0, raw_start_ns, time_ns) AS start_ns,
  if(raw_time_ns > 0, raw_time_ns, received_ns) AS time_ns,
  flags,
  as_double + as_int AS value,
  count,
  sum,
  min,
  max,
  bucket_counts,
  explicit_bounds,
  scale,
  zero_count,
  positive_offset,
  positive_counts,
  negative_offset,
  negative_counts,
  quantiles,
  quantile_values,
  arrayMap(a -> scalar_map(a), exemplars.filtered_attributes) AS exemplar_attributes,
  arrayMap(ns -> if(ns > 0, ns, time_ns), exemplars.time_unix_nano) AS exemplar_ns,
  arrayMap((d, i) -> d + i, exemplars.as_double, exemplars.as_int) AS exemplar_values,
  exemplars.span_id AS exemplar_span_ids,
  exemplars.trace_id AS exemplar_trace_ids
FROM
(
  SELECT
    received_ns, tenant, sender_key_id, sender_peer,
    multiIf(
      notEmpty(metric.gauge.data_points.time_unix_nano), 'gauge',
      notEmpty(metric.sum.data_points.time_unix_nano), 'sum',
      notEmpty(metric.histogram.data_points.time_unix_nano), 'histogram',
      notEmpty(metric.exponential_histogram.data_points.time_unix_nano), 'exponential_histogram',
      notEmpty(metric.summary.data_points.time_unix_nano), 'summary', 'none') AS kind,
    ResourceAttributes,
    ResourceSchemaUrl,
    ScopeName,
    ScopeVersion,
    ScopeAttributes,
    ScopeDroppedAttrCount,
    ScopeSchemaUrl,
    metric.name AS MetricName,
    metric.description AS MetricDescription,
    metric.unit AS MetricUnit,
    greatest(metric.sum.aggregation_temporality, metric.histogram.aggregation_temporality, metric.exponential_histogram.aggregation_temporality) AS AggregationTemporality,
    metric.sum.is_monotonic AS IsMonotonic,
    arrayConcat(metric.gauge.data_points.attributes, metric.sum.data_points.attributes, metric.histogram.data_points.attributes, metric.exponential_histogram.data_points.attributes, metric.summary.data_points.attributes) AS point_attributes_1,
    arrayConcat(metric.gauge.data_points.start_time_unix_nano, metric.sum.data_points.start_time_unix_nano, metric.histogram.data_points.start_time_unix_nano, metric.exponential_histogram.data_points.start_time_unix_nano, metric.summary.data_points.start_time_unix_nano) AS start_ns_1,
    arrayConcat(metric.gauge.data_points.time_unix_nano, metric.sum.data_points.time_unix_nano, metric.histogram.data_points.time_unix_nano, metric.exponential_histogram.data_points.time_unix_nano, metric.summary.data_points.time_unix_nano) AS time_ns_1,
    arrayConcat(metric.gauge.data_points.flags, metric.sum.data_points.flags, metric.histogram.data_points.flags, metric.exponential_histogram.data_points.flags, metric.summary.data_points.flags) AS flags_1,
    arrayConcat(metric.gauge.data_points.as_double, metric.sum.data_points.as_double) AS as_double_1,
    arrayConcat(metric.gauge.data_points.as_int, metric.sum.data_points.as_int) AS as_int_1,
    arrayConcat(metric.histogram.data_points.count, metric.exponential_histogram.data_points.count, metric.summary.data_points.count) AS count_1,
    arrayConcat(metric.histogram.data_points.sum, metric.exponential_histogram.data_points.sum, metric.summary.data_points.sum) AS sum_1,
    arrayConcat(metric.histogram.data_points.min, metric.exponential_histogram.data_points.min) AS min_1,
    arrayConcat(metric.histogram.data_points.max, metric.exponential_histogram.data_points.max) AS max_1,
    metric.histogram.data_points.bucket_counts AS bucket_counts_1,
    metric.histogram.data_points.explicit_bounds AS explicit_bounds_1,
    metric.exponential_histogram.data_points.scale AS scale_1,
    metric.exponential_histogram.data_points.zero_count AS zero_count_1,
    metric.exponential_histogram.data_points.positive.offset AS positive_offset_1,
    metric.exponential_histogram.data_points.positive.bucket_counts AS positive_counts_1,
    metric.exponential_histogram.data_points.negative.offset AS negative_offset_1,
    metric.exponential_histogram.data_points.negative.bucket_counts AS negative_counts_1,
    metric.summary.data_points.quantile_values.quantile AS quantiles_1,
    metric.summary.data_points.quantile_values.value AS quantile_values_1,
    arrayConcat(metric.gauge.data_points.exemplars, metric.sum.data_points.exemplars, metric.histogram.data_points.exemplars, metric.exponential_histogram.data_points.exemplars) AS exemplars_1
  FROM
  (
    WITH
{part:value_readers}
    SELECT
      received_ns, tenant, sender_key_id, sender_peer,
      ResourceAttributes,
      ResourceSchemaUrl,
      ScopeName,
      scoped.scope.version AS ScopeVersion,
      scalar_map(scoped.scope.attributes) AS ScopeAttributes,
      scoped.scope.dropped_attributes_count AS ScopeDroppedAttrCount,
      scoped.schema_url AS ScopeSchemaUrl,
      arrayJoin(scoped.metrics) AS metric
    FROM
    (
      SELECT
        received_ns, tenant, sender_key_id, sender_peer,
        attribute_map(resource) AS ResourceAttributes,
        ResourceSchemaUrl,
        arrayJoin(scoped_1) AS scoped,
        scoped.scope.name AS ScopeName
      FROM {database}.land_foreign_metrics
      ARRAY JOIN
        resource_metrics.resource.attributes AS resource,
        resource_metrics.schema_url AS ResourceSchemaUrl,
        resource_metrics.scope_metrics AS scoped_1
    )
    WHERE ScopeName NOT IN ('servescope.sample', 'servescope.host', 'servescope.gpu')
  )
) AS p
ARRAY JOIN
  point_attributes_1 AS point_attributes,
  start_ns_1 AS raw_start_ns,
  time_ns_1 AS raw_time_ns,
  flags_1 AS flags,
  as_double_1 AS as_double,
  as_int_1 AS as_int,
  count_1 AS count,
  sum_1 AS sum,
  min_1 AS min,
  max_1 AS max,
  bucket_counts_1 AS bucket_counts,
  explicit_bounds_1 AS explicit_bounds,
  scale_1 AS scale,
  zero_count_1 AS zero_count,
  positive_offset_1 AS positive_offset,
  positive_counts_1 AS positive_counts,
  negative_offset_1 AS negative_offset,
  negative_counts_1 AS negative_counts,
  quantiles_1 AS quantiles,
  quantile_values_1 AS quantile_values,
  exemplars_1 AS exemplars
SETTINGS enable_unaligned_array_join = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.otel_metrics_gauge_mv {on_cluster} TO {database}.otel_metrics_gauge AS
WITH
{part:time_readers},
{part:id_readers}
SELECT
{part:point_columns},
{part:point_sender},
  value AS Value,
  exemplar_attributes AS `Exemplars.FilteredAttributes`,
  arrayMap(x -> instant(x), exemplar_ns) AS `Exemplars.TimeUnix`,
  exemplar_values AS `Exemplars.Value`,
  arrayMap(x -> span_text(x), exemplar_span_ids) AS `Exemplars.SpanId`,
  arrayMap(x -> trace_text(x), exemplar_trace_ids) AS `Exemplars.TraceId`
FROM {database}.land_points
WHERE kind = 'gauge';

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.otel_metrics_sum_mv {on_cluster} TO {database}.otel_metrics_sum AS
WITH
{part:time_readers},
{part:id_readers}
SELECT
{part:point_columns},
{part:point_sender},
  value AS Value,
  AggregationTemporality,
  IsMonotonic,
  exemplar_attributes AS `Exemplars.FilteredAttributes`,
  arrayMap(x -> instant(x), exemplar_ns) AS `Exemplars.TimeUnix`,
  exemplar_values AS `Exemplars.Value`,
  arrayMap(x -> span_text(x), exemplar_span_ids) AS `Exemplars.SpanId`,
  arrayMap(x -> trace_text(x), exemplar_trace_ids) AS `Exemplars.TraceId`
FROM {database}.land_points
WHERE kind = 'sum';

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.otel_metrics_histogram_mv {on_cluster} TO {database}.otel_metrics_histogram AS
WITH
{part:time_readers},
{part:id_readers}
SELECT
{part:point_columns},
{part:point_sender},
  count AS Count,
  sum AS Sum,
  min AS Min,
  max AS Max,
  AggregationTemporality,
  bucket_counts AS BucketCounts,
  explicit_bounds AS ExplicitBounds,
  exemplar_attributes AS `Exemplars.FilteredAttributes`,
  arrayMap(x -> instant(x), exemplar_ns) AS `Exemplars.TimeUnix`,
  exemplar_values AS `Exemplars.Value`,
  arrayMap(x -> span_text(x), exemplar_span_ids) AS `Exemplars.SpanId`,
  arrayMap(x -> trace_text(x), exemplar_trace_ids) AS `Exemplars.TraceId`
FROM {database}.land_points
WHERE kind = 'histogram';

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.otel_metrics_exponential_histogram_mv {on_cluster} TO {database}.otel_metrics_exponential_histogram AS
WITH
{part:time_readers},
{part:id_readers}
SELECT
{part:point_columns},
{part:point_sender},
  count AS Count,
  sum AS Sum,
  min AS Min,
  max AS Max,
  AggregationTemporality,
  scale AS Scale,
  zero_count AS ZeroCount,
  positive_offset AS PositiveOffset,
  positive_counts AS PositiveBucketCounts,
  negative_offset AS NegativeOffset,
  negative_counts AS NegativeBucketCounts,
  exemplar_attributes AS `Exemplars.FilteredAttributes`,
  arrayMap(x -> instant(x), exemplar_ns) AS `Exemplars.TimeUnix`,
  exemplar_values AS `Exemplars.Value`,
  arrayMap(x -> span_text(x), exemplar_span_ids) AS `Exemplars.SpanId`,
  arrayMap(x -> trace_text(x), exemplar_trace_ids) AS `Exemplars.TraceId`
FROM {database}.land_points
WHERE kind = 'exponential_histogram';

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.otel_metrics_summary_mv {on_cluster} TO {database}.otel_metrics_summary AS
WITH
{part:time_readers},
{part:id_readers}
SELECT
{part:point_columns},
{part:point_sender},
  count AS Count,
  sum AS Sum,
  quantiles AS `ValueAtQuantiles.Quantile`,
  quantile_values AS `ValueAtQuantiles.Value`
FROM {database}.land_points
WHERE kind = 'summary';

CREATE TABLE IF NOT EXISTS {database}.land_metrics {on_cluster}
(
{part:landing_columns},
{part:resource_metrics}
)
ENGINE = Null;

-- One sample of an agent becomes one wide row: a resource and scope of a request hold one point a metric.
CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.land_samples_mv {on_cluster} TO {database}.land_samples AS
WITH
{part:time_readers},
  arrayConcat(arrayFlatten(gauge_ns), arrayFlatten(sum_ns), arrayFlatten(histogram_ns)) AS times,
  arrayFirst(ns -> ns > 0, times) AS first_ns,
  arrayFilter((i, ns) -> notEmpty(ns), arrayEnumerate(names), histogram_ns) AS drawn
SELECT
  arrival_ns(l.received_ns) AS received_ns,
  if(l.tenant != '', l.tenant, ResourceAttributes['servescope.tenant']) AS tenant,
  sender_key_id,
  sender_peer,
  scope_name,
{part:identity_names},
  ResourceAttributes,
  fromUnixTimestamp64Milli(toInt64(intDiv(if(first_ns > 0, first_ns, received_ns), 1000000)), 'UTC') AS time,
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
    received_ns, tenant, sender_key_id, sender_peer,
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
{part:value_readers}
    SELECT
      received_ns, tenant, sender_key_id, sender_peer,
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
) AS l
WHERE scope_name IN ('servescope.sample', 'servescope.host', 'servescope.gpu') AND notEmpty(times);

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.land_foreign_metrics_mv {on_cluster} TO {database}.land_foreign_metrics AS
SELECT tenant, received_ns, sender_key_id, sender_peer, resource_metrics
FROM {database}.land_metrics
WHERE arrayExists(scopes -> arrayExists(scope -> scope NOT IN ('servescope.sample', 'servescope.host', 'servescope.gpu'), scopes),
  resource_metrics.scope_metrics.scope.name);
