-- name: marks
SELECT
    toUnixTimestamp64Milli(time) AS time_ms,
    event, message, instance, deployment, engine, model, region, version, recording, attributes,
    count() OVER () AS found
FROM events FINAL
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:events*/ /*only*/
ORDER BY time DESC, event, instance, message
LIMIT {limit:UInt32}

-- name: bands
SELECT
    id,
    toUnixTimestamp64Milli(opened_at) AS opened_ms,
    toUnixTimestamp64Milli(resolved_at) AS resolved_ms,
    toString(state) AS state_now,
    severity, title, labels
FROM incidents FINAL
WHERE opened_at < fromUnixTimestamp64Milli({to_ms:Int64})
  AND (resolved_at IS NULL OR resolved_at >= fromUnixTimestamp64Milli({from_ms:Int64})) /*labels*/
ORDER BY opened_at, id
LIMIT 1000
