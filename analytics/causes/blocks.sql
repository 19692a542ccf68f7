-- name: marks
-- Of each block what changes when anything of its requests does: rows are merged by maximum, so that merges of parts
-- change nothing. Fresh: something came a moment ago.
SELECT
    intDiv(toUnixTimestamp64Milli(time), {block_ms:Int64}) * {block_ms:Int64} AS begin_ms,
    sum(cityHash64(key, has_edge, has_engine, moved, inserted_at, e2e_seconds, engine_e2e_seconds, completion_tokens)) AS mark,
    max(inserted_at) > now('UTC') - {fresh:Int32} AS fresh
FROM requests_t FINAL
WHERE time >= fromUnixTimestamp64Milli({first_ms:Int64}) AND time < fromUnixTimestamp64Milli({end_ms:Int64}) /*period*/
GROUP BY begin_ms

-- name: of_deployments
-- Either half may name it; the keys are found in few columns, so that only their rows are merged.
AND has({only:Array(String)}, deployment) AND (time, key) IN
(
    SELECT time, key
    FROM requests_t
    WHERE time >= fromUnixTimestamp64Milli({reference_ms:Int64}) AND time < fromUnixTimestamp64Milli({until_ms:Int64})
      AND (has({only:Array(String)}, deployment) OR has({only:Array(String)}, engine_deployment))
)
