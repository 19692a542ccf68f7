-- name: due
-- The period of the first request after the last one that is kept; no row where none waits.
WITH
    (SELECT max(toUnixTimestamp64Milli(time)) FROM cause_seconds
     WHERE time >= fromUnixTimestamp64Milli({first_ms:Int64})) + {period_ms:Int64} AS kept_ms,
    greatest({first_ms:Int64}, kept_ms) AS since_ms
SELECT intDiv(min(toUnixTimestamp64Milli(time)), {period_ms:Int64}) * {period_ms:Int64} AS begin_ms
FROM
(
    SELECT time
    FROM requests_t
    WHERE time >= fromUnixTimestamp64Milli(since_ms) AND time < fromUnixTimestamp64Milli({last_ms:Int64}) AND recording = ''
    ORDER BY time
    LIMIT 1
)
HAVING count() > 0
