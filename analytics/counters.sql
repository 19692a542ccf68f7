-- name: once
AND (engine NOT IN (/*routers*/) OR (
    SELECT count() = 0 FROM engine_samples
    WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64})
      AND engine NOT IN (/*routers*/)
))
