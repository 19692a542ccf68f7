-- name: gpus
-- Samples of the GPUs that one instance ran on, by what ran on which and by what tells of itself whose it is. The reasons
-- that slow a GPU down are those of questions/gpus.sql.
SELECT
    toUnixTimestamp64Milli(time) AS time_ms,
    gpu,
    gpu_utilization_ratio AS busy,
    bitAnd(toUInt64(throttle_reasons), 236) != 0 AS slowed,
    memory_used_bytes / nullIf(memory_total_bytes, 0) AS memory,
    sm_clock_hertz AS clock,
    power_watts AS power
FROM gpu_samples FINAL
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64})
  AND recording = {recording:String}
  AND (/*here*/ OR gpu IN
  (
      SELECT gpu FROM instance_gpus
      WHERE `to` >= fromUnixTimestamp64Milli({from_ms:Int64}) AND `from` < fromUnixTimestamp64Milli({to_ms:Int64})
        AND /*here*/ AND recording = {recording:String}
  ))
ORDER BY time, gpu
LIMIT 20000

-- name: hosts
-- The machine and the processes of one instance, a row an instant. Increases are between neighbouring samples of one
-- process; a counter that fell began again and adds nothing.
SELECT
    toUnixTimestamp64Milli(time) AS time_ms,
    avgIf(cpu_usage_ratio, is_machine) AS used,
    avgIf(cpu_pressure_some_ratio, is_machine) AS pressed,
    sumIf(cpu / apart, cpu >= 0 AND NOT is_machine) AS cpus,
    sumIf(delay / apart, delay >= 0 AND NOT is_machine) AS delayed
FROM
(
    SELECT
        time,
        process_name = 'host' AS is_machine,
        cpu_usage_ratio,
        cpu_pressure_some_ratio,
        nullIf((toUnixTimestamp64Milli(time) - lagInFrame(toNullable(toUnixTimestamp64Milli(time))) OVER series) / 1000, 0) AS apart,
        cpu_seconds_total - lagInFrame(cpu_seconds_total) OVER series AS cpu,
        cpu_delay_seconds_total - lagInFrame(cpu_delay_seconds_total) OVER series AS delay
    FROM host_samples FINAL
    WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64})
      AND /*here*/ AND recording = {recording:String}
    WINDOW series AS (PARTITION BY node, process_name, process_pid ORDER BY time)
)
GROUP BY time
ORDER BY time
LIMIT 20000
