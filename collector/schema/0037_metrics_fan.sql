-- What becomes of a metric, with less to analyse (see 0036). What is a number comes a way of its own; what 0038 leaves of
-- the other way are histograms and summaries.

DROP VIEW IF EXISTS {database}.land_samples_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.otel_metrics_gauge_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.otel_metrics_sum_mv {on_cluster} SYNC;

CREATE TABLE IF NOT EXISTS {database}.land_numbers {on_cluster}
(
  received_ns UInt64,
  tenant LowCardinality(String),
  sender_key_id LowCardinality(String),
  sender_peer LowCardinality(String),
  kind LowCardinality(String),
  ResourceAttributes Map(LowCardinality(String), String),
  ResourceSchemaUrl String,
  ScopeName String,
  ScopeVersion String,
  ScopeAttributes Map(LowCardinality(String), String),
  ScopeDroppedAttrCount UInt32,
  ScopeSchemaUrl String,
  MetricName String,
  MetricDescription String,
  MetricUnit String,
  AggregationTemporality Int32,
  IsMonotonic Bool,
  Attributes Map(LowCardinality(String), String),
  start_ns UInt64,
  time_ns UInt64,
  flags UInt32,
  value Float64,
  exemplar_attributes Array(Map(LowCardinality(String), String)),
  exemplar_ns Array(UInt64),
  exemplar_values Array(Float64),
  exemplar_span_ids Array(String),
  exemplar_trace_ids Array(String)
)
ENGINE = Null;

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
FROM {database}.land_numbers
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
FROM {database}.land_numbers
WHERE kind = 'sum';

-- A row a point: of a metric's two lists of numbers only one has any, so joining them end to end is choosing.
CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.land_numbers_mv {on_cluster} TO {database}.land_numbers AS
WITH
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
  Attributes,
  if(raw_start_ns > 0, raw_start_ns, time_ns) AS start_ns,
  if(raw_time_ns > 0, raw_time_ns, received_ns) AS time_ns,
  flags,
  value,
  exemplar_attributes,
  arrayMap(ns -> if(ns > 0, ns, time_ns), exemplars.time_unix_nano) AS exemplar_ns,
  arrayMap((d, i) -> d + i, exemplars.as_double, exemplars.as_int) AS exemplar_values,
  exemplars.span_id AS exemplar_span_ids,
  exemplars.trace_id AS exemplar_trace_ids
FROM
(
  WITH
{part:attribute_readers},
{part:scalar_map}
  SELECT
    received_ns, tenant, sender_key_id, sender_peer, kind,
    ResourceAttributes, ResourceSchemaUrl, ScopeName, ScopeVersion, ScopeAttributes, ScopeDroppedAttrCount, ScopeSchemaUrl,
    MetricName, MetricDescription, MetricUnit, AggregationTemporality, IsMonotonic,
    attribute_map(point_attributes) AS Attributes,
    raw_start_ns,
    raw_time_ns,
    flags,
    as_double + as_int AS value,
    arrayMap(a -> scalar_map(a), exemplars.filtered_attributes) AS exemplar_attributes,
    exemplars
  FROM
  (
    SELECT
      received_ns, tenant, sender_key_id, sender_peer,
      if(notEmpty(gauge_time_ns), 'gauge', 'sum') AS kind,
      ResourceAttributes, ResourceSchemaUrl, ScopeName, ScopeVersion, ScopeAttributes, ScopeDroppedAttrCount, ScopeSchemaUrl,
      name AS MetricName,
      description AS MetricDescription,
      unit AS MetricUnit,
      temporality AS AggregationTemporality,
      monotonic AS IsMonotonic,
      arrayConcat(gauge_attributes, sum_attributes) AS attributes_1,
      arrayConcat(gauge_start_ns, sum_start_ns) AS start_ns_1,
      arrayConcat(gauge_time_ns, sum_time_ns) AS time_ns_1,
      arrayConcat(gauge_flags, sum_flags) AS flags_1,
      arrayConcat(gauge_double, sum_double) AS double_1,
      arrayConcat(gauge_int, sum_int) AS int_1,
      arrayConcat(gauge_exemplars, sum_exemplars) AS exemplars_1
    FROM
    (
      WITH
{part:scalar_map}
      SELECT
        received_ns, tenant, sender_key_id, sender_peer, ResourceAttributes, ResourceSchemaUrl,
        ScopeName, ScopeVersion, scalar_map(scope_attributes) AS ScopeAttributes, ScopeDroppedAttrCount, ScopeSchemaUrl,
        name_2, description_2, unit_2, temporality_2, monotonic_2, gauge_attributes_2, gauge_start_ns_2,
        gauge_time_ns_2, gauge_flags_2, gauge_double_2, gauge_int_2, gauge_exemplars_2, sum_attributes_2,
        sum_start_ns_2, sum_time_ns_2, sum_flags_2, sum_double_2, sum_int_2, sum_exemplars_2
      FROM
      (
        WITH
{part:attribute_readers}
        SELECT
          received_ns, tenant, sender_key_id, sender_peer,
          attribute_map(resource) AS ResourceAttributes,
          ResourceSchemaUrl, scope_name_1, scope_version_1, scope_attributes_1, scope_dropped_1, scope_schema_1,
          name_1, description_1, unit_1, temporality_1, monotonic_1, gauge_attributes_1, gauge_start_ns_1,
          gauge_time_ns_1, gauge_flags_1, gauge_double_1, gauge_int_1, gauge_exemplars_1, sum_attributes_1,
          sum_start_ns_1, sum_time_ns_1, sum_flags_1, sum_double_1, sum_int_1, sum_exemplars_1
        FROM {database}.land_foreign_metrics
        ARRAY JOIN
          resource_metrics.resource.attributes AS resource,
          resource_metrics.schema_url AS ResourceSchemaUrl,
          resource_metrics.scope_metrics.scope.name AS scope_name_1,
          resource_metrics.scope_metrics.scope.version AS scope_version_1,
          resource_metrics.scope_metrics.scope.attributes AS scope_attributes_1,
          resource_metrics.scope_metrics.scope.dropped_attributes_count AS scope_dropped_1,
          resource_metrics.scope_metrics.schema_url AS scope_schema_1,
          resource_metrics.scope_metrics.metrics.name AS name_1,
          resource_metrics.scope_metrics.metrics.description AS description_1,
          resource_metrics.scope_metrics.metrics.unit AS unit_1,
          resource_metrics.scope_metrics.metrics.sum.aggregation_temporality AS temporality_1,
          resource_metrics.scope_metrics.metrics.sum.is_monotonic AS monotonic_1,
          resource_metrics.scope_metrics.metrics.gauge.data_points.attributes AS gauge_attributes_1,
          resource_metrics.scope_metrics.metrics.gauge.data_points.start_time_unix_nano AS gauge_start_ns_1,
          resource_metrics.scope_metrics.metrics.gauge.data_points.time_unix_nano AS gauge_time_ns_1,
          resource_metrics.scope_metrics.metrics.gauge.data_points.flags AS gauge_flags_1,
          resource_metrics.scope_metrics.metrics.gauge.data_points.as_double AS gauge_double_1,
          resource_metrics.scope_metrics.metrics.gauge.data_points.as_int AS gauge_int_1,
          resource_metrics.scope_metrics.metrics.gauge.data_points.exemplars AS gauge_exemplars_1,
          resource_metrics.scope_metrics.metrics.sum.data_points.attributes AS sum_attributes_1,
          resource_metrics.scope_metrics.metrics.sum.data_points.start_time_unix_nano AS sum_start_ns_1,
          resource_metrics.scope_metrics.metrics.sum.data_points.time_unix_nano AS sum_time_ns_1,
          resource_metrics.scope_metrics.metrics.sum.data_points.flags AS sum_flags_1,
          resource_metrics.scope_metrics.metrics.sum.data_points.as_double AS sum_double_1,
          resource_metrics.scope_metrics.metrics.sum.data_points.as_int AS sum_int_1,
          resource_metrics.scope_metrics.metrics.sum.data_points.exemplars AS sum_exemplars_1
      )
      ARRAY JOIN
        scope_name_1 AS ScopeName, scope_version_1 AS ScopeVersion, scope_attributes_1 AS scope_attributes,
        scope_dropped_1 AS ScopeDroppedAttrCount, scope_schema_1 AS ScopeSchemaUrl,
        name_1 AS name_2, description_1 AS description_2, unit_1 AS unit_2, temporality_1 AS temporality_2,
        monotonic_1 AS monotonic_2, gauge_attributes_1 AS gauge_attributes_2, gauge_start_ns_1 AS gauge_start_ns_2,
        gauge_time_ns_1 AS gauge_time_ns_2, gauge_flags_1 AS gauge_flags_2, gauge_double_1 AS gauge_double_2,
        gauge_int_1 AS gauge_int_2, gauge_exemplars_1 AS gauge_exemplars_2, sum_attributes_1 AS sum_attributes_2,
        sum_start_ns_1 AS sum_start_ns_2, sum_time_ns_1 AS sum_time_ns_2, sum_flags_1 AS sum_flags_2,
        sum_double_1 AS sum_double_2, sum_int_1 AS sum_int_2, sum_exemplars_1 AS sum_exemplars_2
      WHERE ScopeName NOT IN ('servescope.sample', 'servescope.host', 'servescope.gpu')
    )
    ARRAY JOIN
      name_2 AS name, description_2 AS description, unit_2 AS unit, temporality_2 AS temporality,
      monotonic_2 AS monotonic, gauge_attributes_2 AS gauge_attributes, gauge_start_ns_2 AS gauge_start_ns,
      gauge_time_ns_2 AS gauge_time_ns, gauge_flags_2 AS gauge_flags, gauge_double_2 AS gauge_double,
      gauge_int_2 AS gauge_int, gauge_exemplars_2 AS gauge_exemplars, sum_attributes_2 AS sum_attributes,
      sum_start_ns_2 AS sum_start_ns, sum_time_ns_2 AS sum_time_ns, sum_flags_2 AS sum_flags,
      sum_double_2 AS sum_double, sum_int_2 AS sum_int, sum_exemplars_2 AS sum_exemplars
  )
  ARRAY JOIN
    attributes_1 AS point_attributes, start_ns_1 AS raw_start_ns, time_ns_1 AS raw_time_ns, flags_1 AS flags,
    double_1 AS as_double, int_1 AS as_int, exemplars_1 AS exemplars
) AS p;

-- One sample of an agent becomes one wide row: a resource and scope of a request hold one point a metric.
CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.land_samples_mv {on_cluster} TO {database}.land_samples AS
SELECT
  received_ns,
  tenant,
  sender_key_id,
  sender_peer,
  scope_name,
{part:identity_names},
  ResourceAttributes,
  fromUnixTimestamp64Milli(toInt64(intDiv(if(first_ns > 0, first_ns, received_ns), 1000000)), 'UTC') AS time,
  names,
  arrayMap(x -> if(isFinite(x), x, NULL), read) AS signals,
  arrayMap(i -> names[i], drawn) AS histogram_names,
  arrayMap(i -> histogram_count[i][1], drawn) AS histogram_counts,
  arrayMap(i -> histogram_sum[i][1], drawn) AS histogram_sums,
  arrayMap(i -> histogram_bounds[i][1], drawn) AS histogram_bounds,
  arrayMap(i -> histogram_buckets[i][1], drawn) AS histogram_buckets
FROM
(
  WITH
{part:time_readers},
    arrayConcat(arrayFlatten(gauge_ns), arrayFlatten(sum_ns), arrayFlatten(histogram_ns)) AS times
  SELECT
    arrival_ns(l.received_ns) AS received_ns,
    if(l.tenant != '', l.tenant, ResourceAttributes['servescope.tenant']) AS tenant,
    sender_key_id,
    sender_peer,
    scope_name,
{part:identity_names},
    ResourceAttributes,
    names,
    notEmpty(times) AS filled,
    arrayFirst(ns -> ns > 0, times) AS first_ns,
    arrayMap((v, w, x, y) -> v[1] + w[1] + x[1] + y[1], gauge_double, gauge_int, sum_double, sum_int) AS read,
    arrayFilter((i, ns) -> notEmpty(ns), arrayEnumerate(names), histogram_ns) AS drawn,
    histogram_count,
    histogram_sum,
    histogram_bounds,
    histogram_buckets
  FROM
  (
    SELECT
      received_ns, tenant, sender_key_id, sender_peer, ResourceAttributes,
{part:identity},
      scope_name,
      names, gauge_double, gauge_int, gauge_ns, sum_double, sum_int, sum_ns, histogram_ns, histogram_count,
      histogram_sum, histogram_bounds, histogram_buckets
    FROM
    (
      WITH
{part:attribute_readers}
      SELECT
        received_ns, tenant, sender_key_id, sender_peer,
        attribute_map(resource) AS ResourceAttributes,
        scope_name_1,
        names_1, gauge_double_1, gauge_int_1, gauge_ns_1, sum_double_1, sum_int_1, sum_ns_1, histogram_ns_1,
        histogram_count_1, histogram_sum_1, histogram_bounds_1, histogram_buckets_1
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
      names_1 AS names, gauge_double_1 AS gauge_double, gauge_int_1 AS gauge_int, gauge_ns_1 AS gauge_ns,
      sum_double_1 AS sum_double, sum_int_1 AS sum_int, sum_ns_1 AS sum_ns, histogram_ns_1 AS histogram_ns,
      histogram_count_1 AS histogram_count, histogram_sum_1 AS histogram_sum,
      histogram_bounds_1 AS histogram_bounds, histogram_buckets_1 AS histogram_buckets
    WHERE scope_name IN ('servescope.sample', 'servescope.host', 'servescope.gpu')
  ) AS l
)
WHERE filled;
