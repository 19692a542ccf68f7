-- name: before
-- Whether anything of the same length of time before the window is there; the first row found is enough.
SELECT 1 AS found
FROM requests_t
WHERE time >= fromUnixTimestamp64Milli({since_ms:Int64}) AND time < fromUnixTimestamp64Milli({from_ms:Int64}) /*recorded*/
LIMIT 1
UNION ALL
SELECT 1
FROM engine_samples
WHERE time >= fromUnixTimestamp64Milli({since_ms:Int64}) AND time < fromUnixTimestamp64Milli({from_ms:Int64}) /*recorded*/
LIMIT 1

-- name: first
SELECT count() AS n, toUnixTimestamp64Milli(min(time)) AS first_ms
FROM requests_t
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*recorded*/
UNION ALL
SELECT count(), toUnixTimestamp64Milli(min(time))
FROM engine_samples
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*recorded*/
