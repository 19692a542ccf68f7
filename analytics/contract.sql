-- name: breaches
-- What is broken and not mended since, of every server. What an agent told before it was started again (it sees a server
-- for the first time then) may be over: it tells anew what is still so, as far as it can know. Nothing stands of a server
-- that left since.
SELECT
    instance,
    recorded,
    told.1 AS kind,
    told.2 AS what,
    toUnixTimestamp64Milli(maxIf(at, event = 'contract_broken')) AS since_ms,
    argMaxIf(said, at, event = 'contract_broken') AS message,
    argMax(of_deployment, at) AS deployment,
    argMax(of_engine, at) AS engine,
    argMax(of_version, at) AS version,
    maxIf(at, event = 'contract_broken') >= any(first_seen) AS known
FROM
(
    SELECT
        instance, event, time AS at, message AS said, recording AS recorded,
        deployment AS of_deployment, engine AS of_engine, version AS of_version,
        (attributes['kind'], attributes['what']) AS told,
        maxIf(time, event = 'instance_up') OVER (PARTITION BY instance, recording) AS first_seen,
        maxIf(time, event = 'target_left') OVER (PARTITION BY instance, recording) AS last_left
    FROM events
    WHERE time >= fromUnixTimestamp64Milli({broken_from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64})
      AND (event IN ('contract_broken', 'contract_mended', 'target_left') OR (event = 'instance_up' AND attributes['first'] = 'true'))
      AND instance != '' /*filter:events*/
)
WHERE event NOT IN ('instance_up', 'target_left') AND at > last_left
GROUP BY instance, recorded, told
HAVING argMax(event, (at, event)) = 'contract_broken'
ORDER BY since_ms, instance, kind, what
LIMIT {most:UInt32}
