-- name: status_rows
SELECT
    intDiv(toUnixTimestamp64Milli(finished), {step_ms:Int64}) AS slot,
    [/*totals*/] AS totals,
    [/*bads*/] AS bads
FROM
(
    SELECT *, /*finished*/ AS finished
    FROM requests
    WHERE time >= fromUnixTimestamp64Milli({arrived_from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:requests*/
)
WHERE finished >= fromUnixTimestamp64Milli({from_ms:Int64}) AND finished < fromUnixTimestamp64Milli({to_ms:Int64})
GROUP BY slot
ORDER BY slot

-- name: status_samples
SELECT
    intDiv(toUnixTimestamp64Milli(time), {step_ms:Int64}) AS slot,
    /*total*/ AS total,
    /*bad*/ AS bad
FROM engine_samples FINAL
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:servers*/
GROUP BY slot
HAVING total > 0
ORDER BY slot

-- name: status_histograms
SELECT
    intDiv(toUnixTimestamp64Milli(time), {step_ms:Int64}) AS slot,
    /*total*/ AS total,
    /*bad*/ AS bad,
    max(arrayMax(arrayFilter(bound -> bound <= {limit_0:Float64}, arrayPushFront(bounds, 0.)))) AS bound_used
FROM engine_histograms FINAL
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:servers*/
  AND signal = {signal_0:String}
GROUP BY slot
ORDER BY slot
