-- name: configured
-- The newest configuration of every server that sent samples in the window, told in it or before.
WITH seen AS
(
    SELECT
        instance,
        recording,
        argMax(deployment, time) AS seen_deployment,
        argMax(engine, time) AS seen_engine,
        argMax(version, time) AS seen_version
    FROM engine_samples
    WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:samples*/
    GROUP BY instance, recording
    LIMIT 1000
)
SELECT
    told.name AS name,
    told.recorded AS recorded,
    seen.seen_deployment AS of_deployment,
    seen.seen_engine AS of_engine,
    seen.seen_version AS of_version,
    told.since_ms AS since_ms,
    told.settings AS settings,
    places.pod AS pod,
    places.namespace AS namespace,
    places.node AS node
FROM
(
    SELECT
        instance AS name,
        recording AS recorded,
        toUnixTimestamp64Milli(max(time)) AS since_ms,
        argMax(config, time) AS settings
    FROM instance_config
    WHERE time < fromUnixTimestamp64Milli({to_ms:Int64}) AND (instance, recording) IN (SELECT instance, recording FROM seen)
    GROUP BY name, recorded
) AS told
INNER JOIN seen ON seen.instance = told.name AND seen.recording = told.recorded
LEFT JOIN
(
    -- where a server runs stands in the resource of what its agent told of it last
    SELECT
        of_instance, of_recording,
        argMax(resource['k8s.pod.name'], at) AS pod,
        argMax(resource['k8s.namespace.name'], at) AS namespace,
        argMax(if(resource['k8s.node.name'] != '', resource['k8s.node.name'], resource['host.name']), at) AS node
    FROM
    (
        SELECT
            ResourceAttributes AS resource,
            ResourceAttributes['service.instance.id'] AS of_instance,
            ResourceAttributes['servescope.recording'] AS of_recording,
            Timestamp AS at
        FROM otel_logs
        WHERE ScopeName = 'servescope.event' AND EventName IN ('instance_config', 'target_found')
          AND Timestamp >= fromUnixTimestamp64Milli({to_ms:Int64}) - INTERVAL 30 DAY
          AND Timestamp < fromUnixTimestamp64Milli({to_ms:Int64})
    )
    WHERE (of_instance, of_recording) IN (SELECT instance, recording FROM seen)
    GROUP BY of_instance, of_recording
) AS places ON places.of_instance = told.name AND places.of_recording = told.recorded
ORDER BY of_deployment, name, recorded

-- name: changes
SELECT toUnixTimestamp64Milli(time) AS time_ms, instance, event, message, attributes, recording
FROM events FINAL
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:events*/
  AND event IN ('config_changed', 'version_changed', 'instance_restarted', 'instance_down', 'instance_up', 'target_found',
                'deploy', 'contract_broken', 'contract_mended', 'engine_unknown', 'page_malformed', 'engine_frozen',
                'engine_moves', 'oom_kill')
ORDER BY time DESC, event, instance, message
LIMIT 200
