-- name: hosts
-- Increases are between neighbouring samples of one process, or of one instance's machine; a counter that fell began
-- again and adds nothing. A row per instance and step, and one per instance for the whole window (no_slot).
WITH samples AS
(
    SELECT
        intDiv(toUnixTimestamp64Milli(time), {step_ms:Int64}) AS slot,
        time,
        instance AS name_of_instance,
        node,
        process_name = 'host' AS is_machine,
        recording AS recorded,
        state,
        toString(process_name) AS name_of_process, process_pid, open_files, open_files_limit, uptime_seconds,
        rss_bytes, cpu_usage_ratio, cores, cpu_pressure_some_ratio, memory_pressure_some_ratio, io_pressure_some_ratio,
        cgroup_cpu_quota_cores, cgroup_memory_used_bytes, cgroup_memory_limit_bytes,
        cpu_seconds_total - lagInFrame(cpu_seconds_total) OVER series AS cpu,
        cpu_delay_seconds_total - lagInFrame(cpu_delay_seconds_total) OVER series AS delay,
        involuntary_switches_total - lagInFrame(involuntary_switches_total) OVER series AS switches,
        major_faults_total - lagInFrame(major_faults_total) OVER series AS major_faults,
        cgroup_cpu_throttled_seconds_total - lagInFrame(cgroup_cpu_throttled_seconds_total) OVER series AS held,
        cgroup_oom_kills_total - lagInFrame(cgroup_oom_kills_total) OVER series AS kills,
        network_receive_bytes_total - lagInFrame(network_receive_bytes_total) OVER series AS received,
        network_transmit_bytes_total - lagInFrame(network_transmit_bytes_total) OVER series AS sent
    FROM host_samples FINAL
    WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:hosts*/
    WINDOW series AS (PARTITION BY node, instance, process_name, process_pid, recording ORDER BY time)
)
SELECT
    slot,
    grouping(slot) AS no_slot,
    name_of_instance AS instance,
    node,
    recorded,
    count() AS samples,
    uniqExactIf((name_of_process, process_pid), NOT is_machine) AS processes,
    toUnixTimestamp64Milli(max(time)) AS newest_ms,
    sumIf(cpu, cpu >= 0) AS cpu_seconds,
    sumIf(delay, delay >= 0) AS delay_seconds,
    sumIf(switches, switches >= 0) AS involuntary,
    sumIf(major_faults, major_faults >= 0) AS majors,
    sum(rss_bytes) / nullIf(uniqExactIf(time, rss_bytes IS NOT NULL), 0) AS rss,
    sumIf(held, held >= 0) AS throttled_seconds,
    sumIf(kills, kills >= 0) AS oom_kills,
    sumIf(received, received >= 0) AS received_bytes,
    sumIf(sent, sent >= 0) AS sent_bytes,
    uniqExactIf(time, state IN ('T', 't', 'D')) AS stuck_samples,
    uniqExactIf(time, state != '') AS instants,
    avgIf(cpu_usage_ratio, is_machine) AS cpu_usage,
    maxIf(cores, is_machine) AS core_count,
    avgIf(cpu_pressure_some_ratio, is_machine) AS cpu_pressure,
    avgIf(memory_pressure_some_ratio, is_machine) AS memory_pressure,
    avgIf(io_pressure_some_ratio, is_machine) AS io_pressure,
    maxIf(cgroup_cpu_quota_cores, is_machine) AS quota,
    maxIf(cgroup_memory_used_bytes / nullIf(cgroup_memory_limit_bytes, 0), is_machine) AS memory_of_limit,
    -- of the process that was closest to its limit, when it was closest
    (maxIf(
        (ifNull(open_files / nullIf(open_files_limit, 0), 0), open_files, open_files_limit, name_of_process),
        open_files IS NOT NULL) AS fullest).2 AS files_open,
    fullest.3 AS files_limit,
    fullest.4 AS files_process,
    -- of the oldest process that its newest samples tell of
    nullIf(max((time, ifNull(uptime_seconds, -1))).2, -1) AS uptime
FROM samples
GROUP BY GROUPING SETS ((slot, name_of_instance, node, recorded), (name_of_instance, node, recorded))
ORDER BY no_slot, slot, instance, node
