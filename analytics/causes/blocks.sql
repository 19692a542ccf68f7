-- name: fingerprints
-- Of each block of a table what changes when anything of its rows does, and of what is asked of a whole span the same.
-- Halves of requests are merged by maximum, so that merges of parts change nothing there; of the others a row is one
-- from the start. Fresh: something came a moment ago.
SELECT
    'requests' AS part,
    intDiv(toUnixTimestamp64Milli(time), {block_ms:Int64}) * {block_ms:Int64} AS begin_ms,
    sum(cityHash64(key, has_edge, has_engine, moved, inserted_at, e2e_seconds, engine_e2e_seconds, completion_tokens)) AS fingerprint,
    max(inserted_at) > now('UTC') - {fresh:Int32} AS fresh,
    count() AS n
FROM requests_t FINAL
WHERE time >= fromUnixTimestamp64Milli({first_ms:Int64}) AND time < fromUnixTimestamp64Milli({end_ms:Int64}) /*period*/
GROUP BY begin_ms
UNION ALL
SELECT
    'samples',
    intDiv(toUnixTimestamp64Milli(time), {block_ms:Int64}) * {block_ms:Int64} AS begin_ms,
    sum(cityHash64(instance, model, dp_rank, time, inserted_at)),
    max(inserted_at) > now('UTC') - {fresh:Int32},
    count()
FROM engine_samples
WHERE time >= fromUnixTimestamp64Milli({first_ms:Int64}) AND time < fromUnixTimestamp64Milli({end_ms:Int64}) /*period*/
GROUP BY begin_ms
UNION ALL
SELECT
    'hosts',
    intDiv(toUnixTimestamp64Milli(time), {block_ms:Int64}) * {block_ms:Int64} AS begin_ms,
    sum(cityHash64(node, instance, process_name, process_pid, time, inserted_at)),
    max(inserted_at) > now('UTC') - {fresh:Int32},
    count()
FROM host_samples
WHERE time >= fromUnixTimestamp64Milli({first_ms:Int64}) AND time < fromUnixTimestamp64Milli({end_ms:Int64}) /*period*/
GROUP BY begin_ms
UNION ALL
SELECT
    'gpus',
    intDiv(toUnixTimestamp64Milli(time), {block_ms:Int64}) * {block_ms:Int64} AS begin_ms,
    sum(cityHash64(gpu, instance, time, inserted_at)),
    max(inserted_at) > now('UTC') - {fresh:Int32},
    count()
FROM gpu_samples
WHERE time >= fromUnixTimestamp64Milli({first_ms:Int64}) AND time < fromUnixTimestamp64Milli({end_ms:Int64}) /*period*/
GROUP BY begin_ms
UNION ALL
SELECT 'whose', 0, sum(cityHash64(gpu, instance)), 0, count()
FROM
(
    SELECT gpu, instance
    FROM instance_gpus
    WHERE `to` >= fromUnixTimestamp64Milli({reference_ms:Int64}) AND `from` < fromUnixTimestamp64Milli({to_ms:Int64}) /*period*/
    UNION ALL
    SELECT gpu, instance
    FROM gpu_samples
    WHERE time >= fromUnixTimestamp64Milli({reference_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*period*/
      AND instance != ''
    GROUP BY gpu, instance
)
UNION ALL
SELECT
    'events',
    0,
    sum(cityHash64(time, event, instance, model, message, inserted_at)),
    max(inserted_at) > now('UTC') - {fresh:Int32},
    count()
FROM events
WHERE time >= fromUnixTimestamp64Milli({reference_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*period*/
UNION ALL
SELECT 'steps', 0, 0, 0, sum(steps)
FROM engine_steps_1s
WHERE time >= fromUnixTimestamp64Milli({reference_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*period*/

-- name: of_deployments
-- Either half may name it; the keys are found in few columns, so that only their rows are merged.
AND has({only:Array(String)}, deployment) AND (time, key) IN
(
    SELECT time, key
    FROM requests_t
    WHERE time >= fromUnixTimestamp64Milli({reference_ms:Int64}) AND time < fromUnixTimestamp64Milli({until_ms:Int64})
      AND (has({only:Array(String)}, deployment) OR has({only:Array(String)}, engine_deployment))
)
