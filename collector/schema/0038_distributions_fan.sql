-- Histograms and summaries come a way of their own, so that numbers, which taps tell every few seconds, do not pay for it.

DROP VIEW IF EXISTS {database}.land_points_mv {on_cluster} SYNC;

CREATE TABLE IF NOT EXISTS {database}.land_distributions {on_cluster}
(
  tenant LowCardinality(String),
  received_ns UInt64,
  sender_key_id LowCardinality(String),
  sender_peer LowCardinality(String),
{part:resource_metrics}
)
ENGINE = Null;

-- A row a point, whatever its kind: only one of a metric's lists of points has any, so joining them end to end is
-- choosing. Lists that a kind lacks are shorter than the points; ARRAY JOIN pads them with defaults.
CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.land_points_mv {on_cluster} TO {database}.land_points AS
WITH
{part:attribute_readers},
{part:scalar_map},
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
  attribute_map(point_attributes) AS Attributes,
  if(raw_start_ns > 0, raw_start_ns, time_ns) AS start_ns,
  if(raw_time_ns > 0, raw_time_ns, received_ns) AS time_ns,
  flags,
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
    greatest(metric.histogram.aggregation_temporality, metric.exponential_histogram.aggregation_temporality) AS AggregationTemporality,
    arrayConcat(metric.histogram.data_points.attributes, metric.exponential_histogram.data_points.attributes, metric.summary.data_points.attributes) AS point_attributes_1,
    arrayConcat(metric.histogram.data_points.start_time_unix_nano, metric.exponential_histogram.data_points.start_time_unix_nano, metric.summary.data_points.start_time_unix_nano) AS start_ns_1,
    arrayConcat(metric.histogram.data_points.time_unix_nano, metric.exponential_histogram.data_points.time_unix_nano, metric.summary.data_points.time_unix_nano) AS time_ns_1,
    arrayConcat(metric.histogram.data_points.flags, metric.exponential_histogram.data_points.flags, metric.summary.data_points.flags) AS flags_1,
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
    arrayConcat(metric.histogram.data_points.exemplars, metric.exponential_histogram.data_points.exemplars) AS exemplars_1
  FROM
  (
    WITH
{part:attribute_readers},
{part:scalar_map}
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
      FROM {database}.land_distributions
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

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.land_distributions_mv {on_cluster} TO {database}.land_distributions AS
SELECT tenant, received_ns, sender_key_id, sender_peer, resource_metrics
FROM {database}.land_foreign_metrics
WHERE length(arrayFlatten(resource_metrics.scope_metrics.metrics.histogram.data_points.flags)) + length(arrayFlatten(resource_metrics.scope_metrics.metrics.exponential_histogram.data_points.flags)) + length(arrayFlatten(resource_metrics.scope_metrics.metrics.summary.data_points.flags)) > 0;
