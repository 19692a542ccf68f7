-- Which pods have which GPUs, as a kubelet tells the agent of its node, and which server is in which pod, as whoever
-- reads its pages tells. These may be two agents: what they tell meets as it is read.

CREATE TABLE IF NOT EXISTS {database}.gpu_pods_t {on_cluster}
(
  gpu LowCardinality(String),
  node LowCardinality(String),
  namespace LowCardinality(String),
  pod LowCardinality(String),
  recording LowCardinality(String),
  `from` DateTime64(3, 'UTC') CODEC(ZSTD(1)),
  `to` SimpleAggregateFunction(max, DateTime64(3, 'UTC')) CODEC(ZSTD(1)),
  tenant LowCardinality(String),
  sender_key_id LowCardinality(String),
  received_at SimpleAggregateFunction(max, DateTime('UTC')) DEFAULT now('UTC') CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = {engine:AggregatingMergeTree}
PARTITION BY toYYYYMM(received_at)
ORDER BY (gpu, node, namespace, pod, `from`, recording, tenant, sender_key_id)
{ttl:events received_at 400}
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS {database}.pod_servers_t {on_cluster}
(
  pod LowCardinality(String),
  namespace LowCardinality(String),
  node LowCardinality(String),
  instance LowCardinality(String),
  recording LowCardinality(String),
  tenant LowCardinality(String),
  sender_key_id LowCardinality(String),
  received_at SimpleAggregateFunction(max, DateTime('UTC')) DEFAULT now('UTC') CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = {engine:AggregatingMergeTree}
PARTITION BY toYYYYMM(received_at)
ORDER BY (pod, namespace, node, instance, recording, tenant, sender_key_id)
{ttl:events received_at 400}
SETTINGS non_replicated_deduplication_window = 10000;

-- Events are few: what hangs on their table costs no segment of other records anything.
CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.pod_servers_mv {on_cluster} TO {database}.pod_servers_t AS
SELECT
  attributes['pod'] AS pod,
  attributes['namespace'] AS namespace,
  attributes['node'] AS node,
  instance,
  recording,
  tenant,
  sender_key_id,
  received_at
FROM {database}.events
WHERE event = 'instance_up' AND instance != '' AND attributes['pod'] != '';

DROP VIEW IF EXISTS {database}.gpu_samples_mv {on_cluster} SYNC;

-- A kubelet's word about a GPU is no sample of it. What cannot be a time that a pod has had it counts as 0.
CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.gpu_pods_mv {on_cluster} TO {database}.gpu_pods_t AS
WITH ifNull(signals[indexOf(names, 'pod_held_seconds')], 0) AS held
SELECT
  ResourceAttributes['hw.id'] AS gpu,
  node,
  ResourceAttributes['k8s.namespace.name'] AS namespace,
  pod,
  recording,
  fromUnixTimestamp64Milli(toUnixTimestamp64Milli(time) - toInt64(if(held BETWEEN 0 AND 1e9, round(held * 1000), 0)), 'UTC') AS `from`,
  time AS `to`,
  tenant,
  sender_key_id,
  toDateTime(intDiv(received_ns, 1000000000), 'UTC') AS received_at
FROM {database}.land_gpu_samples
WHERE has(names, 'pod_held_seconds') AND pod != '';

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
WHERE ResourceAttributes['process.pid'] = '' AND NOT has(names, 'pod_held_seconds');

-- Processes that were seen on a GPU, and servers of whose pod it is. A pod with several servers does not say which of
-- them works on it; several pods on one GPU all do, as several processes do. Who does not tell the namespace of a server
-- must tell its node.
CREATE OR REPLACE VIEW {database}.instance_gpus {on_cluster} AS
SELECT
  instance,
  rank,
  node,
  gpu,
  process_pid,
  recording,
  min(t.`from`) AS `from`,
  max(t.`to`) AS `to`,
  tenant,
  sender_key_id
FROM {database}.instance_gpus_t AS t
GROUP BY instance, rank, node, gpu, process_pid, recording, tenant, sender_key_id
UNION ALL
SELECT
  any(s.instance) AS instance,
  toLowCardinality('') AS rank,
  h.node AS node,
  h.gpu AS gpu,
  toLowCardinality('') AS process_pid,
  h.recording AS recording,
  h.`from` AS `from`,
  max(h.`to`) AS `to`,
  h.tenant AS tenant,
  h.sender_key_id AS sender_key_id
FROM {database}.gpu_pods_t AS h
INNER JOIN {database}.pod_servers_t AS s ON s.pod = h.pod AND s.recording = h.recording
WHERE (s.namespace = h.namespace OR (s.namespace = '' AND s.node = h.node)) AND (h.tenant = '' OR h.tenant = s.tenant)
GROUP BY h.gpu, h.node, h.namespace, h.pod, h.`from`, h.recording, h.tenant, h.sender_key_id
HAVING uniqExact(s.instance) = 1;
