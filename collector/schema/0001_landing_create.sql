-- Landing tables: shaped like the OTLP export requests, they keep nothing themselves. The bytes of a segment are
-- parsed here and the materialized views (001x) fan them out. Metadata of a request (tenant, receipt, batch) is
-- appended to its body as the fields 15001-15003.

CREATE TABLE IF NOT EXISTS {database}.land_traces {on_cluster}
(
  tenant String,
  received_ns UInt64,
  batch String,
  resource_spans Array(Tuple(
    resource Tuple(attributes {part:attributes}),
    scope_spans Array(Tuple(
      {part:scope},
      spans Array(Tuple(
        trace_id String,
        span_id String,
        trace_state String,
        parent_span_id String,
        name String,
        kind Int32,
        start_time_unix_nano UInt64,
        end_time_unix_nano UInt64,
        attributes {part:attributes},
        events Array(Tuple(time_unix_nano UInt64, name String, attributes {part:attributes})),
        links Array(Tuple(trace_id String, span_id String, trace_state String, attributes {part:attributes})),
        status Tuple(message String, code Int32)
      ))
    ))
  ))
)
ENGINE = Null;

CREATE TABLE IF NOT EXISTS {database}.land_metrics {on_cluster}
(
  tenant String,
  received_ns UInt64,
  batch String,
  resource_metrics Array(Tuple(
    resource Tuple(attributes {part:attributes}),
    scope_metrics Array(Tuple(
      {part:scope},
      metrics Array(Tuple(
        name String,
        description String,
        unit String,
        gauge Tuple({part:points}),
        sum Tuple({part:points}, aggregation_temporality Int32, is_monotonic Bool),
        histogram Tuple(
          data_points Array(Tuple(
            attributes {part:attributes}, start_time_unix_nano UInt64, time_unix_nano UInt64, count UInt64, sum Float64,
            bucket_counts Array(UInt64), explicit_bounds Array(Float64), exemplars {part:exemplars}, flags UInt32,
            min Float64, max Float64)),
          aggregation_temporality Int32),
        exponential_histogram Tuple(
          data_points Array(Tuple(
            attributes {part:attributes}, start_time_unix_nano UInt64, time_unix_nano UInt64, count UInt64, sum Float64,
            scale Int32, zero_count UInt64, positive Tuple(offset Int32, bucket_counts Array(UInt64)),
            negative Tuple(offset Int32, bucket_counts Array(UInt64)), flags UInt32, exemplars {part:exemplars},
            min Float64, max Float64)),
          aggregation_temporality Int32),
        summary Tuple(
          data_points Array(Tuple(
            attributes {part:attributes}, start_time_unix_nano UInt64, time_unix_nano UInt64, count UInt64, sum Float64,
            quantile_values Array(Tuple(quantile Float64, value Float64)), flags UInt32)))
      )),
      schema_url String
    )),
    schema_url String
  ))
)
ENGINE = Null;

CREATE TABLE IF NOT EXISTS {database}.land_logs {on_cluster}
(
  tenant String,
  received_ns UInt64,
  batch String,
  resource_logs Array(Tuple(
    resource Tuple(attributes {part:attributes}),
    scope_logs Array(Tuple(
      {part:scope},
      log_records Array(Tuple(
        time_unix_nano UInt64,
        observed_time_unix_nano UInt64,
        severity_number Int32,
        severity_text String,
        body Tuple({part:scalar}, array_value Tuple(values Array(Tuple({part:scalar}))), kvlist_value Tuple(values Array(Tuple(key String, value Tuple({part:scalar}))))),
        attributes {part:attributes},
        flags UInt32,
        trace_id String,
        span_id String,
        event_name String
      )),
      schema_url String
    )),
    schema_url String
  ))
)
ENGINE = Null;
