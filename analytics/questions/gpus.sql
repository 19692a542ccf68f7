-- name: gpus
-- A row per GPU and step, and one per GPU for the whole window (no_slot). Reasons that slow a GPU down: power cap,
-- hardware slowdown, thermal (software, hardware), power brake; idle and set clocks do not.
SELECT
    intDiv(toUnixTimestamp64Milli(time), {step_ms:Int64}) AS slot,
    grouping(slot) AS no_slot,
    gpu,
    count() AS samples,
    any(gpu_name) AS name,
    any(gpu_index) AS place,
    any(gpu_parent) AS parent,
    any(node) AS machine,
    groupUniqArrayIf(10)(instance, instance != '') AS named,
    any(recording) AS recorded,
    toUnixTimestamp64Milli(max(time)) AS newest_ms,
    avg(gpu_utilization_ratio) AS utilization,
    avg(sm_active_ratio) AS sm_active,
    avg(sm_occupancy_ratio) AS sm_occupancy,
    avg(tensor_active_ratio) AS tensor_active,
    avg(dram_active_ratio) AS dram_active,
    avg(memory_used_bytes / nullIf(memory_total_bytes, 0)) AS memory_used,
    avg(power_watts) AS power,
    max(power_limit_watts) AS power_limit,
    max(temperature_celsius) AS temperature,
    max(memory_temperature_celsius) AS memory_temperature,
    avg(sm_clock_hertz) AS sm_clock,
    avg(bitAnd(toUInt64(throttle_reasons), 236) != 0) AS throttled,
    arrayDistinct(arrayFlatten(groupUniqArray(32)(throttled_by))) AS reasons,
    avg(pcie_tx_bytes_per_second + pcie_rx_bytes_per_second) AS pcie,
    avg(nvlink_tx_bytes_per_second + nvlink_rx_bytes_per_second) AS nvlink,
    max(xid_total) - min(xid_total) AS xids,
    max(ecc_uncorrected_total) - min(ecc_uncorrected_total) AS ecc_uncorrected,
    max(remapped_rows_pending) AS remap_pending
FROM gpu_samples FINAL
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:hardware*/
GROUP BY GROUPING SETS ((slot, gpu), (gpu))
ORDER BY no_slot, slot, gpu

-- name: whose
-- What ran on which GPU within the window.
SELECT gpu, instance, groupUniqArray(100)(rank) AS ranks
FROM instance_gpus
WHERE `to` >= fromUnixTimestamp64Milli({from_ms:Int64}) AND `from` < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:recording*/
GROUP BY gpu, instance
ORDER BY gpu, instance

-- name: told
-- The newest word about GPUs that cannot be watched, of a day before the window's end.
SELECT message
FROM events
WHERE event = 'gpu_unavailable'
  AND time >= fromUnixTimestamp64Milli({to_ms:Int64} - 86400000) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:recording*/
ORDER BY time DESC
LIMIT 1
