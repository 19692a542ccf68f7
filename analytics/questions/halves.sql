-- name: causes
SELECT
    instance,
    any(engine) AS engine,
    cause,
    sum(weight) AS n
FROM
(
    SELECT
        instance,
        engine,
        weight,
        multiIf(
            has_edge = 1 AND has_engine = 1, 'met',
            has_edge = 0 AND orphan = 1, 'past_the_edge',
            has_edge = 0, 'edge_missing',
            unsampled = 1, 'not_sampled',
            outcome IN ('unreachable', 'rejected', 'client_error'), 'refused',
            outcome IN ('client_abort', 'timeout'), 'given_up',
            outcome IN ('server_error', 'upstream_reset'), 'failed',
            toUnixTimestamp64Milli(time) + toInt64(e2e_seconds * 1000) > {pending_ms:Int64}, 'pending',
            'silent') AS cause
    FROM requests
    WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) AND operation != '' /*filter:requests*/
)
GROUP BY instance, cause
ORDER BY instance, cause
LIMIT 10000
