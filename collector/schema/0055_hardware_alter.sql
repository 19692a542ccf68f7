-- More of what GPU and host tell; whose processes run on which GPU; OpenTelemetry's names where it has some.

DROP VIEW IF EXISTS {database}.host_samples_mv {on_cluster} SYNC;
DROP VIEW IF EXISTS {database}.gpu_samples_mv {on_cluster} SYNC;

ALTER TABLE {database}.gpu_samples {on_cluster}
  ADD COLUMN IF NOT EXISTS gpu_parent LowCardinality(String) CODEC(ZSTD(1)) AFTER gpu_index,
  ADD COLUMN IF NOT EXISTS driver_version LowCardinality(String) CODEC(ZSTD(1)) AFTER gpu_parent,
  ADD COLUMN IF NOT EXISTS sm_active_ratio Nullable(Float64) CODEC(ZSTD(1)) AFTER gpu_utilization_ratio,
  ADD COLUMN IF NOT EXISTS sm_occupancy_ratio Nullable(Float64) CODEC(ZSTD(1)) AFTER sm_active_ratio,
  ADD COLUMN IF NOT EXISTS tensor_active_ratio Nullable(Float64) CODEC(ZSTD(1)) AFTER sm_occupancy_ratio,
  ADD COLUMN IF NOT EXISTS dram_active_ratio Nullable(Float64) CODEC(ZSTD(1)) AFTER tensor_active_ratio,
  ADD COLUMN IF NOT EXISTS power_limit_default_watts Nullable(Float64) CODEC(ZSTD(1)) AFTER power_limit_watts,
  ADD COLUMN IF NOT EXISTS memory_temperature_celsius Nullable(Float64) CODEC(ZSTD(1)) AFTER temperature_celsius,
  ADD COLUMN IF NOT EXISTS sm_clock_max_hertz Nullable(Float64) CODEC(ZSTD(1)) AFTER sm_clock_hertz,
  ADD COLUMN IF NOT EXISTS pcie_tx_bytes_per_second Nullable(Float64) CODEC(ZSTD(1)) AFTER throttle_reasons,
  ADD COLUMN IF NOT EXISTS pcie_rx_bytes_per_second Nullable(Float64) CODEC(ZSTD(1)) AFTER pcie_tx_bytes_per_second,
  ADD COLUMN IF NOT EXISTS nvlink_tx_bytes_per_second Nullable(Float64) CODEC(ZSTD(1)) AFTER pcie_rx_bytes_per_second,
  ADD COLUMN IF NOT EXISTS nvlink_rx_bytes_per_second Nullable(Float64) CODEC(ZSTD(1)) AFTER nvlink_tx_bytes_per_second,
  ADD COLUMN IF NOT EXISTS ecc_corrected_total Nullable(Float64) CODEC(ZSTD(1)) AFTER nvlink_rx_bytes_per_second,
  ADD COLUMN IF NOT EXISTS remapped_rows_correctable_total Nullable(Float64) CODEC(ZSTD(1)) AFTER ecc_uncorrected_total,
  ADD COLUMN IF NOT EXISTS remapped_rows_uncorrectable_total Nullable(Float64) CODEC(ZSTD(1)) AFTER remapped_rows_correctable_total,
  ADD COLUMN IF NOT EXISTS remapped_rows_pending Nullable(Float64) CODEC(ZSTD(1)) AFTER remapped_rows_uncorrectable_total,
  ADD COLUMN IF NOT EXISTS remapped_rows_failed Nullable(Float64) CODEC(ZSTD(1)) AFTER remapped_rows_pending,
  ADD COLUMN IF NOT EXISTS xid_total Nullable(Float64) CODEC(ZSTD(1)) AFTER pcie_replay_total,
  -- NVML's nvmlClocksEventReasons, by name
  ADD COLUMN IF NOT EXISTS throttled_by Array(String) ALIAS arrayMap(reason -> reason.2, arrayFilter(
    reason -> bitAnd(toUInt64(ifNull(throttle_reasons, 0)), reason.1) != 0,
    [(1, 'idle'), (2, 'application clocks'), (4, 'power cap'), (8, 'hardware slowdown'), (16, 'sync boost'),
     (32, 'thermal (software)'), (64, 'thermal (hardware)'), (128, 'power brake'), (256, 'display clocks')]))
    AFTER throttle_reasons;

ALTER TABLE {database}.host_samples {on_cluster}
  ADD COLUMN IF NOT EXISTS rank LowCardinality(String) CODEC(ZSTD(1)) AFTER process_pid,
  ADD COLUMN IF NOT EXISTS state LowCardinality(String) CODEC(ZSTD(1)) AFTER stopped,
  ADD COLUMN IF NOT EXISTS voluntary_switches_total Nullable(Float64) CODEC(ZSTD(1)) AFTER involuntary_switches_total,
  ADD COLUMN IF NOT EXISTS minor_faults_total Nullable(Float64) CODEC(ZSTD(1)) AFTER voluntary_switches_total,
  ADD COLUMN IF NOT EXISTS major_faults_total Nullable(Float64) CODEC(ZSTD(1)) AFTER minor_faults_total,
  ADD COLUMN IF NOT EXISTS disk_read_bytes_total Nullable(Float64) CODEC(ZSTD(1)) AFTER major_faults_total,
  ADD COLUMN IF NOT EXISTS disk_write_bytes_total Nullable(Float64) CODEC(ZSTD(1)) AFTER disk_read_bytes_total,
  ADD COLUMN IF NOT EXISTS cores Nullable(Float64) CODEC(ZSTD(1)) AFTER cpu_usage_ratio,
  ADD COLUMN IF NOT EXISTS memory_pressure_full_ratio Nullable(Float64) CODEC(ZSTD(1)) AFTER memory_pressure_some_ratio,
  ADD COLUMN IF NOT EXISTS io_pressure_full_ratio Nullable(Float64) CODEC(ZSTD(1)) AFTER io_pressure_some_ratio,
  ADD COLUMN IF NOT EXISTS network_receive_bytes_total Nullable(Float64) CODEC(ZSTD(1)) AFTER io_pressure_full_ratio,
  ADD COLUMN IF NOT EXISTS network_transmit_bytes_total Nullable(Float64) CODEC(ZSTD(1)) AFTER network_receive_bytes_total,
  ADD COLUMN IF NOT EXISTS network_drops_total Nullable(Float64) CODEC(ZSTD(1)) AFTER network_transmit_bytes_total,
  ADD COLUMN IF NOT EXISTS tcp_retransmits_total Nullable(Float64) CODEC(ZSTD(1)) AFTER network_drops_total,
  ADD COLUMN IF NOT EXISTS cgroup_cpu_seconds_total Nullable(Float64) CODEC(ZSTD(1)) AFTER tcp_retransmits_total,
  ADD COLUMN IF NOT EXISTS cgroup_cpu_quota_cores Nullable(Float64) CODEC(ZSTD(1)) AFTER cgroup_cpu_seconds_total,
  ADD COLUMN IF NOT EXISTS cgroup_cpu_periods_total Nullable(Float64) CODEC(ZSTD(1)) AFTER cgroup_cpu_quota_cores,
  ADD COLUMN IF NOT EXISTS cgroup_cpu_throttled_periods_total Nullable(Float64) CODEC(ZSTD(1)) AFTER cgroup_cpu_periods_total,
  ADD COLUMN IF NOT EXISTS cgroup_cpu_throttled_seconds_total Nullable(Float64) CODEC(ZSTD(1)) AFTER cgroup_cpu_throttled_periods_total,
  ADD COLUMN IF NOT EXISTS cgroup_memory_used_bytes Nullable(Float64) CODEC(ZSTD(1)) AFTER cgroup_cpu_throttled_seconds_total,
  ADD COLUMN IF NOT EXISTS cgroup_memory_limit_bytes Nullable(Float64) CODEC(ZSTD(1)) AFTER cgroup_memory_used_bytes,
  ADD COLUMN IF NOT EXISTS cgroup_oom_kills_total Nullable(Float64) CODEC(ZSTD(1)) AFTER cgroup_memory_limit_bytes,
  ADD COLUMN IF NOT EXISTS cgroup_cpu_pressure_some_ratio Nullable(Float64) CODEC(ZSTD(1)) AFTER cgroup_oom_kills_total,
  ADD COLUMN IF NOT EXISTS cgroup_memory_pressure_some_ratio Nullable(Float64) CODEC(ZSTD(1)) AFTER cgroup_cpu_pressure_some_ratio,
  ADD COLUMN IF NOT EXISTS cgroup_memory_pressure_full_ratio Nullable(Float64) CODEC(ZSTD(1)) AFTER cgroup_memory_pressure_some_ratio,
  ADD COLUMN IF NOT EXISTS cgroup_io_pressure_some_ratio Nullable(Float64) CODEC(ZSTD(1)) AFTER cgroup_memory_pressure_full_ratio,
  ADD COLUMN IF NOT EXISTS cgroup_io_read_bytes_total Nullable(Float64) CODEC(ZSTD(1)) AFTER cgroup_io_pressure_some_ratio,
  ADD COLUMN IF NOT EXISTS cgroup_io_write_bytes_total Nullable(Float64) CODEC(ZSTD(1)) AFTER cgroup_io_read_bytes_total;

CREATE TABLE IF NOT EXISTS {database}.gpu_processes {on_cluster}
(
  time DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
  gpu LowCardinality(String),
  gpu_name LowCardinality(String),
  gpu_index LowCardinality(String),
  gpu_parent LowCardinality(String),
  process_pid LowCardinality(String),
  process_name LowCardinality(String),
  instance LowCardinality(String),
  rank LowCardinality(String),
  deployment LowCardinality(String),
  region LowCardinality(String),
  cluster LowCardinality(String),
  pod LowCardinality(String),
  node LowCardinality(String),
  recording LowCardinality(String),
  memory_bytes Nullable(Float64) CODEC(ZSTD(1)),
  sm_ratio Nullable(Float64) CODEC(ZSTD(1)),
  tenant LowCardinality(String),
  sender_key_id LowCardinality(String),
  sender_peer LowCardinality(String),
  received_at DateTime('UTC') DEFAULT now('UTC') CODEC(DoubleDelta, ZSTD(1)),
  inserted_at DateTime('UTC') MATERIALIZED now('UTC') CODEC(DoubleDelta, ZSTD(1)),
  INDEX idx_time time TYPE minmax GRANULARITY 1
)
ENGINE = {engine:ReplacingMergeTree}
PARTITION BY toDate(received_at)
ORDER BY (gpu, instance, process_pid, time, tenant, sender_key_id)
{ttl:gpu_samples inserted_at 30}
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

-- From when to when a process of an instance was seen on a GPU: first and last look merge by minimum and maximum.
CREATE TABLE IF NOT EXISTS {database}.instance_gpus_t {on_cluster}
(
  instance LowCardinality(String),
  rank LowCardinality(String),
  node LowCardinality(String),
  gpu LowCardinality(String),
  process_pid LowCardinality(String),
  recording LowCardinality(String),
  `from` SimpleAggregateFunction(min, DateTime64(3, 'UTC')) CODEC(ZSTD(1)),
  `to` SimpleAggregateFunction(max, DateTime64(3, 'UTC')) CODEC(ZSTD(1)),
  tenant LowCardinality(String),
  sender_key_id LowCardinality(String),
  received_at SimpleAggregateFunction(max, DateTime('UTC')) DEFAULT now('UTC') CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = {engine:AggregatingMergeTree}
PARTITION BY toYYYYMM(received_at)
ORDER BY (instance, node, gpu, process_pid, rank, recording, tenant, sender_key_id)
{ttl:events received_at 400}
SETTINGS non_replicated_deduplication_window = 10000;

CREATE VIEW IF NOT EXISTS {database}.instance_gpus {on_cluster} AS
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
GROUP BY instance, rank, node, gpu, process_pid, recording, tenant, sender_key_id;

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.host_samples_mv {on_cluster} TO {database}.host_samples AS
SELECT
  time,
  tenant, sender_key_id, sender_peer,
  toDateTime(intDiv(received_ns, 1000000000), 'UTC') AS received_at,
  instance,
  ResourceAttributes['process.name'] AS process_name,
  ResourceAttributes['process.pid'] AS process_pid,
  ResourceAttributes['servescope.rank'] AS rank,
  deployment, region, cluster, pod, node, recording,
  signals[indexOf(names, 'cpu_seconds_total')] AS cpu_seconds_total,
  signals[indexOf(names, 'cpu_delay_seconds_total')] AS cpu_delay_seconds_total,
  signals[indexOf(names, 'rss_bytes')] AS rss_bytes,
  signals[indexOf(names, 'threads')] AS threads,
  signals[indexOf(names, 'stopped')] AS stopped,
  -- its letter in proc(5), sent as a number
  if(has(names, 'state'), char(toUInt8(ifNull(signals[indexOf(names, 'state')], 0))), '') AS state,
  signals[indexOf(names, 'involuntary_switches_total')] AS involuntary_switches_total,
  signals[indexOf(names, 'voluntary_switches_total')] AS voluntary_switches_total,
  signals[indexOf(names, 'minor_faults_total')] AS minor_faults_total,
  signals[indexOf(names, 'major_faults_total')] AS major_faults_total,
  signals[indexOf(names, 'disk_read_bytes_total')] AS disk_read_bytes_total,
  signals[indexOf(names, 'disk_write_bytes_total')] AS disk_write_bytes_total,
  signals[indexOf(names, 'cpu_usage_ratio')] AS cpu_usage_ratio,
  signals[indexOf(names, 'cores')] AS cores,
  signals[indexOf(names, 'load1')] AS load1,
  signals[indexOf(names, 'memory_available_bytes')] AS memory_available_bytes,
  signals[indexOf(names, 'cpu_pressure_some_ratio')] AS cpu_pressure_some_ratio,
  signals[indexOf(names, 'memory_pressure_some_ratio')] AS memory_pressure_some_ratio,
  signals[indexOf(names, 'memory_pressure_full_ratio')] AS memory_pressure_full_ratio,
  signals[indexOf(names, 'io_pressure_some_ratio')] AS io_pressure_some_ratio,
  signals[indexOf(names, 'io_pressure_full_ratio')] AS io_pressure_full_ratio,
  signals[indexOf(names, 'network_receive_bytes_total')] AS network_receive_bytes_total,
  signals[indexOf(names, 'network_transmit_bytes_total')] AS network_transmit_bytes_total,
  signals[indexOf(names, 'network_drops_total')] AS network_drops_total,
  signals[indexOf(names, 'tcp_retransmits_total')] AS tcp_retransmits_total,
  signals[indexOf(names, 'cgroup_cpu_seconds_total')] AS cgroup_cpu_seconds_total,
  signals[indexOf(names, 'cgroup_cpu_quota_cores')] AS cgroup_cpu_quota_cores,
  signals[indexOf(names, 'cgroup_cpu_periods_total')] AS cgroup_cpu_periods_total,
  signals[indexOf(names, 'cgroup_cpu_throttled_periods_total')] AS cgroup_cpu_throttled_periods_total,
  signals[indexOf(names, 'cgroup_cpu_throttled_seconds_total')] AS cgroup_cpu_throttled_seconds_total,
  signals[indexOf(names, 'cgroup_memory_used_bytes')] AS cgroup_memory_used_bytes,
  signals[indexOf(names, 'cgroup_memory_limit_bytes')] AS cgroup_memory_limit_bytes,
  signals[indexOf(names, 'cgroup_oom_kills_total')] AS cgroup_oom_kills_total,
  signals[indexOf(names, 'cgroup_cpu_pressure_some_ratio')] AS cgroup_cpu_pressure_some_ratio,
  signals[indexOf(names, 'cgroup_memory_pressure_some_ratio')] AS cgroup_memory_pressure_some_ratio,
  signals[indexOf(names, 'cgroup_memory_pressure_full_ratio')] AS cgroup_memory_pressure_full_ratio,
  signals[indexOf(names, 'cgroup_io_pressure_some_ratio')] AS cgroup_io_pressure_some_ratio,
  signals[indexOf(names, 'cgroup_io_read_bytes_total')] AS cgroup_io_read_bytes_total,
  signals[indexOf(names, 'cgroup_io_write_bytes_total')] AS cgroup_io_write_bytes_total
FROM {database}.land_samples
WHERE scope_name = 'servescope.host';

-- Names of agents and recordings from before OpenTelemetry's are read too.
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
FROM {database}.land_samples
WHERE scope_name = 'servescope.gpu' AND ResourceAttributes['process.pid'] = '';

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
FROM {database}.land_samples
WHERE scope_name = 'servescope.gpu' AND ResourceAttributes['process.pid'] != '';

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
FROM {database}.land_samples
WHERE scope_name = 'servescope.gpu' AND ResourceAttributes['process.pid'] != '' AND instance != '';
