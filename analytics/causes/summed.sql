-- name: periods
-- Of each period the rows of its last account. Seconds by whole periods inside of the window.
SELECT
    count(DISTINCT time) AS periods,
    toUnixTimestamp64Milli(min(time)) AS first_ms,
    toUnixTimestamp64Milli(max(time)) AS last_ms,
    sum(requests) AS n,
    sum(seconds) AS excess,
    sum(reference_seconds) AS usual
FROM cause_seconds FINAL
WHERE /*kept*/ AND cause = '' /*only*/

-- name: charges
SELECT
    cause,
    phase,
    driver,
    by_tenant,
    by_instance,
    by_version,
    by_gpu,
    tenant,
    sum(requests) AS n,
    sum(seconds) AS lost,
    groupUniqArray(toUnixTimestamp64Milli(time)) AS times
FROM cause_seconds FINAL
WHERE /*kept*/ AND cause != '' /*only*/
GROUP BY cause, phase, driver, by_tenant, by_instance, by_version, by_gpu, tenant
ORDER BY lost DESC
LIMIT {limit:UInt32}

-- name: worst
SELECT cause, toUnixTimestamp64Milli(time) AS at_ms, sum(seconds) AS lost
FROM cause_seconds FINAL
WHERE /*kept*/ AND cause != '' /*only*/
GROUP BY cause, time
ORDER BY cause, lost DESC
LIMIT 1 BY cause

-- name: failures
SELECT
    outcome,
    error_type,
    count() AS n,
    toUnixTimestamp64Milli(min(time)) AS first_ms,
    tuple(approx_top_k(1)(tenant)[1].1, approx_top_k(1)(tenant)[1].2) AS tenants,
    tuple(approx_top_k(1)(instance)[1].1, approx_top_k(1)(instance)[1].2) AS instances
FROM requests
WHERE time >= fromUnixTimestamp64Milli({first_ms:Int64}) AND time < fromUnixTimestamp64Milli({end_ms:Int64})
  AND outcome IN {bad:Array(String)} /*filter:requests*/
GROUP BY outcome, error_type
ORDER BY n DESC, outcome, error_type
LIMIT {limit:UInt32}
