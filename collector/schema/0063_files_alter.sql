-- How many files a process has open, how many it may, and how long it has run.

ALTER TABLE {database}.host_samples {on_cluster}
  ADD COLUMN IF NOT EXISTS open_files Nullable(Float64) CODEC(ZSTD(1)) AFTER disk_write_bytes_total,
  ADD COLUMN IF NOT EXISTS open_files_limit Nullable(Float64) CODEC(ZSTD(1)) AFTER open_files,
  ADD COLUMN IF NOT EXISTS uptime_seconds Nullable(Float64) CODEC(ZSTD(1)) AFTER open_files_limit;

DROP VIEW IF EXISTS {database}.host_samples_mv {on_cluster} SYNC;

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
  signals[indexOf(names, 'open_files')] AS open_files,
  signals[indexOf(names, 'open_files_limit')] AS open_files_limit,
  signals[indexOf(names, 'uptime_seconds')] AS uptime_seconds,
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
