-- Samples of GPUs and spans of Triton, where there are any, come ways of their own. A view is analysed at each insert that
-- reaches it, whether or not its condition leaves a row, and what hangs on a table that no row reaches is not: one short
-- view stands before each of them.

DROP VIEW IF EXISTS {database}.gpu_samples_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.gpu_processes_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.instance_gpus_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.triton_spans_mv {on_cluster} SYNC;

CREATE TABLE IF NOT EXISTS {database}.land_gpu_samples {on_cluster}
(
  received_ns UInt64,
  tenant LowCardinality(String),
  sender_key_id LowCardinality(String),
  sender_peer LowCardinality(String),
  ResourceAttributes Map(LowCardinality(String), String),
  instance LowCardinality(String),
  deployment LowCardinality(String),
  region LowCardinality(String),
  cluster LowCardinality(String),
  pod LowCardinality(String),
  node LowCardinality(String),
  recording LowCardinality(String),
  time DateTime64(3, 'UTC'),
  names Array(String),
  signals Array(Nullable(Float64))
)
ENGINE = Null;

CREATE TABLE IF NOT EXISTS {database}.land_triton_spans {on_cluster}
(
  tenant LowCardinality(String),
  sender_tenant LowCardinality(String),
  sender_key_id LowCardinality(String),
  sender_peer LowCardinality(String),
  instance LowCardinality(String),
  deployment LowCardinality(String),
  engine LowCardinality(String),
  role LowCardinality(String),
  region LowCardinality(String),
  cluster LowCardinality(String),
  version LowCardinality(String),
  pod LowCardinality(String),
  node LowCardinality(String),
  recording LowCardinality(String),
  trace_id String,
  span_id String,
  parent_span_id String,
  name String,
  start_ns UInt64,
  end_ns UInt64,
  keys Array(LowCardinality(String)),
  texts Array(String),
  event_ns Array(UInt64),
  event_names Array(String)
)
ENGINE = Null;

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.gpu_samples_mv {on_cluster} TO {database}.gpu_samples AS
SELECT
  time,
  tenant, sender_key_id, sender_peer,
  toDateTime(intDiv(received_ns, 1000000000), 'UTC') AS received_at,
  ResourceAttributes['hw.id'] AS gpu,
  ResourceAttributes['hw.name'] AS gpu_name,
  ResourceAttributes['hw.index'] AS gpu_index,
  ResourceAttributes['hw.parent'] AS gpu_parent,
  ResourceAttributes['hw.driver_version'] AS driver_version,
  instance,
  deployment, region, cluster, pod, node, recording,
  ifNull(signals[indexOf(names, 'hw.gpu.utilization')], signals[indexOf(names, 'gpu_utilization_ratio')]) AS gpu_utilization_ratio,
  signals[indexOf(names, 'sm_active_ratio')] AS sm_active_ratio,
  signals[indexOf(names, 'sm_occupancy_ratio')] AS sm_occupancy_ratio,
  signals[indexOf(names, 'tensor_active_ratio')] AS tensor_active_ratio,
  signals[indexOf(names, 'dram_active_ratio')] AS dram_active_ratio,
  signals[indexOf(names, 'memory_utilization_ratio')] AS memory_utilization_ratio,
  ifNull(signals[indexOf(names, 'hw.gpu.memory.usage')], signals[indexOf(names, 'memory_used_bytes')]) AS memory_used_bytes,
  ifNull(signals[indexOf(names, 'hw.gpu.memory.limit')], signals[indexOf(names, 'memory_total_bytes')]) AS memory_total_bytes,
  ifNull(signals[indexOf(names, 'hw.power')], signals[indexOf(names, 'power_watts')]) AS power_watts,
  signals[indexOf(names, 'power_limit_watts')] AS power_limit_watts,
  signals[indexOf(names, 'power_limit_default_watts')] AS power_limit_default_watts,
  ifNull(signals[indexOf(names, 'hw.energy')], signals[indexOf(names, 'energy_joules_total')]) AS energy_joules_total,
  ifNull(signals[indexOf(names, 'hw.temperature')], signals[indexOf(names, 'temperature_celsius')]) AS temperature_celsius,
  signals[indexOf(names, 'memory_temperature_celsius')] AS memory_temperature_celsius,
  signals[indexOf(names, 'sm_clock_hertz')] AS sm_clock_hertz,
  signals[indexOf(names, 'sm_clock_max_hertz')] AS sm_clock_max_hertz,
  signals[indexOf(names, 'memory_clock_hertz')] AS memory_clock_hertz,
  signals[indexOf(names, 'throttle_reasons')] AS throttle_reasons,
  signals[indexOf(names, 'pcie_tx_bytes_per_second')] AS pcie_tx_bytes_per_second,
  signals[indexOf(names, 'pcie_rx_bytes_per_second')] AS pcie_rx_bytes_per_second,
  signals[indexOf(names, 'nvlink_tx_bytes_per_second')] AS nvlink_tx_bytes_per_second,
  signals[indexOf(names, 'nvlink_rx_bytes_per_second')] AS nvlink_rx_bytes_per_second,
  signals[indexOf(names, 'ecc_corrected_total')] AS ecc_corrected_total,
  signals[indexOf(names, 'ecc_uncorrected_total')] AS ecc_uncorrected_total,
  signals[indexOf(names, 'remapped_rows_correctable_total')] AS remapped_rows_correctable_total,
  signals[indexOf(names, 'remapped_rows_uncorrectable_total')] AS remapped_rows_uncorrectable_total,
  signals[indexOf(names, 'remapped_rows_pending')] AS remapped_rows_pending,
  signals[indexOf(names, 'remapped_rows_failed')] AS remapped_rows_failed,
  signals[indexOf(names, 'pcie_replay_total')] AS pcie_replay_total,
  signals[indexOf(names, 'xid_total')] AS xid_total
FROM {database}.land_gpu_samples
WHERE ResourceAttributes['process.pid'] = '';

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.gpu_processes_mv {on_cluster} TO {database}.gpu_processes AS
SELECT
  time,
  tenant, sender_key_id, sender_peer,
  toDateTime(intDiv(received_ns, 1000000000), 'UTC') AS received_at,
  ResourceAttributes['hw.id'] AS gpu,
  ResourceAttributes['hw.name'] AS gpu_name,
  ResourceAttributes['hw.index'] AS gpu_index,
  ResourceAttributes['hw.parent'] AS gpu_parent,
  ResourceAttributes['process.pid'] AS process_pid,
  ResourceAttributes['process.name'] AS process_name,
  instance,
  ResourceAttributes['servescope.rank'] AS rank,
  deployment, region, cluster, pod, node, recording,
  signals[indexOf(names, 'process_memory_bytes')] AS memory_bytes,
  signals[indexOf(names, 'process_sm_ratio')] AS sm_ratio
FROM {database}.land_gpu_samples
WHERE ResourceAttributes['process.pid'] != '';

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.instance_gpus_mv {on_cluster} TO {database}.instance_gpus_t AS
SELECT
  instance,
  ResourceAttributes['servescope.rank'] AS rank,
  node,
  ResourceAttributes['hw.id'] AS gpu,
  ResourceAttributes['process.pid'] AS process_pid,
  recording,
  time AS `from`,
  time AS `to`,
  tenant,
  sender_key_id,
  toDateTime(intDiv(received_ns, 1000000000), 'UTC') AS received_at
FROM {database}.land_gpu_samples
WHERE ResourceAttributes['process.pid'] != '' AND instance != '';

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.triton_spans_mv {on_cluster} TO {database}.triton_spans AS
WITH
  k -> texts[indexOf(keys, k)] AS text_of,
  k -> event_ns[indexOf(event_names, k)] AS event_at
SELECT
  now64(3, 'UTC') AS inserted_at,
  multiIf(text_of('triton.model_name') != '', 'model', name = 'InferRequest', 'request', 'compute') AS kind,
  trace_id,
  span_id,
  parent_span_id,
  start_ns,
  end_ns,
  text_of('triton.model_name') AS model,
  text_of('triton.model_version') AS model_version,
  text_of('triton.request_id') AS request_id,
  toUInt8(toFloat64OrZero(text_of('triton.trace_parent_id')) = 0) AS outermost,
  event_at('QUEUE_START') AS queue_start_ns,
  event_at('REQUEST_END') AS request_end_ns,
  event_at('INFER_RESPONSE_COMPLETE') AS response_complete_ns,
  event_at('COMPUTE_START') AS compute_start_ns,
  event_at('COMPUTE_INPUT_END') AS compute_input_end_ns,
  event_at('COMPUTE_OUTPUT_START') AS compute_output_start_ns,
  event_at('COMPUTE_END') AS compute_end_ns,
  instance,
  deployment,
  engine,
  role,
  region,
  cluster,
  version,
  pod,
  node,
  recording,
  tenant,
  sender_tenant,
  sender_key_id,
  sender_peer
FROM {database}.land_triton_spans;

-- Last: what lands meanwhile waits until all that hangs on it is there.
CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.land_gpu_samples_mv {on_cluster} TO {database}.land_gpu_samples AS
SELECT
  received_ns, tenant, sender_key_id, sender_peer, ResourceAttributes, instance, deployment, region, cluster,
  pod, node, recording, time, names, signals
FROM {database}.land_samples
WHERE scope_name = 'servescope.gpu';

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.land_triton_spans_mv {on_cluster} TO {database}.land_triton_spans AS
SELECT
  tenant, sender_tenant, sender_key_id, sender_peer, instance, deployment, engine, role, region, cluster,
  version, pod, node, recording, trace_id, span_id, parent_span_id, name, start_ns, end_ns, keys, texts,
  event_ns, event_names
FROM {database}.land_spans
WHERE scope_name = 'triton-server';
