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
    max(remapped_rows_pending) AS remap_pending
FROM gpu_samples FINAL
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:hardware*/
GROUP BY GROUPING SETS ((slot, gpu), (gpu))
ORDER BY no_slot, slot, gpu

-- name: faults
-- Increases of each series. What shows less than before began again and gained what it shows, as did a GPU that is new on
-- a machine that was watched already; of one that is among its machine's first the past is unknown. Memory errors are
-- the GPU's own, older than any agent: of a new one they are no increase. What was before the window is looked for within
-- an hour.
SELECT gpu, sumIf(xids, inside) AS xids, sumIf(ecc_uncorrected, inside) AS ecc_uncorrected
FROM
(
    SELECT
        gpu,
        time >= fromUnixTimestamp64Milli({from_ms:Int64}) AS inside,
        time = min(time) OVER (PARTITION BY node, pod, recording) AS among_the_first,
        anyLast(xid_total) OVER earlier AS xids_before,
        anyLast(ecc_uncorrected_total) OVER earlier AS ecc_before,
        xid_total - multiIf(
            xids_before IS NULL, if(among_the_first, xid_total, 0), xids_before <= xid_total, xids_before, 0) AS xids,
        ecc_uncorrected_total - multiIf(
            ecc_before IS NULL, ecc_uncorrected_total, ecc_before <= ecc_uncorrected_total, ecc_before, 0) AS ecc_uncorrected
    FROM gpu_samples FINAL
    WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64} - 3600000) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:hardware*/
    WINDOW earlier AS (
        PARTITION BY gpu, node, pod, instance, recording ORDER BY time ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
)
GROUP BY gpu

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
