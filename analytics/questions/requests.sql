-- name: find
-- Which ones first, by the few columns that say so; then all columns of those alone.
SELECT
    toFloat64(/*value*/) AS ordering,
    /*columns*/
FROM requests
WHERE (time, key) IN
(
    WITH toFloat64(/*value*/) AS ordering
    SELECT time, key
    FROM requests
    WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*whose*/
      AND (/*present*/) /*after*/
    ORDER BY /*order*/
    LIMIT {limit:UInt32}
)
ORDER BY /*order*/
LIMIT {limit:UInt32}

-- name: matching
SELECT sum(weight) AS n
FROM requests
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*whose*/
  AND (/*present*/)
