-- name: engines
-- Of each engine: what counters gained, and a gauge's mean and highest value. Copies of a name in the same sample: none.
SELECT instance, dp_rank, signal.1 AS name, sum(signal.2) AS added, avg(signal.2) AS mean, max(signal.2) AS most
FROM
(
    SELECT
        instance, dp_rank,
        arrayJoin(arrayFilter(
            pair -> has({names:Array(String)}, pair.1),
            arrayZip(mapKeys(other_signals), mapValues(other_signals)))) AS signal
    FROM engine_samples FINAL
    WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:servers*/
)
GROUP BY instance, dp_rank, name
ORDER BY instance, dp_rank, name

-- name: gpu_names
-- GPUs by their names; more than a few are not one.
SELECT gpu_name AS name
FROM gpu_samples FINAL
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:hardware*/
  AND gpu_name != ''
GROUP BY name
ORDER BY name
LIMIT 10
