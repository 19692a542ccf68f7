-- name: status_rows
SELECT
    intDiv(toUnixTimestamp64Milli(time), {step_ms:Int64}) AS slot,
    [/*totals*/] AS totals,
    [/*bads*/] AS bads
FROM requests
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({settled_ms:Int64}) /*filter:requests*/
GROUP BY slot
ORDER BY slot

-- name: status_samples
SELECT
    intDiv(toUnixTimestamp64Milli(time), {step_ms:Int64}) AS slot,
    sum(/*judged_requests*/) AS judged,
    sum(/*failed_requests*/) AS failed
FROM engine_samples FINAL
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:servers*/ /*objective*/
GROUP BY slot
HAVING judged > 0
ORDER BY slot

-- name: status_histograms
SELECT
    intDiv(toUnixTimestamp64Milli(time), {step_ms:Int64}) AS slot,
    sum(count) AS total,
    sum(arraySum((held, bound) -> if(bound <= {threshold:Float64}, held, 0), arrayPopBack(counts), bounds)) AS good,
    max(arrayMax(arrayFilter(bound -> bound <= {threshold:Float64}, arrayPushFront(bounds, 0.)))) AS bound_used
FROM engine_histograms FINAL
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:servers*/ /*objective*/
  AND signal = {distribution:String}
GROUP BY slot
ORDER BY slot

-- name: burn
-- One pass for all objectives and windows. All windows end now, so that a request belongs to every one that starts no
-- later than the latest start at or before it.
SELECT
    arrayMax(arrayFilter(start -> start <= toUnixTimestamp64Milli(time), {starts:Array(Int64)})) AS latest_start,
    [/*totals*/] AS totals,
    [/*bads*/] AS bads
FROM requests
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) AND operation != ''
GROUP BY latest_start
