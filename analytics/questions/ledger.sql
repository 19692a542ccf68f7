-- name: books
-- The newest report of each collector process: all figures of a report are of one instant, so that they add up. One that
-- was started again begins anew, and reads back what the log still has.
WITH reports AS
(
    SELECT
        concat(ResourceAttributes['host.name'], ' · ', ResourceAttributes['process.pid']) AS collector,
        Attributes['signal'] AS signal,
        Attributes['fate'] AS fate,
        Attributes['reason'] AS reason,
        Value AS value,
        TimeUnix AS at,
        StartTimeUnix AS since
    FROM otel_metrics_sum
    WHERE ServiceName = 'servescope-collector' AND MetricName IN ('servescope.collector.records', 'servescope.collector.pending')
      AND TimeUnix >= fromUnixTimestamp64Milli({from_ms:Int64}) AND TimeUnix < fromUnixTimestamp64Milli({to_ms:Int64})
)
SELECT
    collector, signal, fate, reason, any(value) AS value,
    toUnixTimestamp64Milli(any(since)) AS since_ms,
    toUnixTimestamp64Milli(any(at)) AS at_ms
FROM reports
WHERE (collector, at) IN (SELECT collector, max(at) FROM reports GROUP BY collector)
GROUP BY collector, signal, fate, reason
ORDER BY collector, signal, fate, reason
LIMIT 10000

-- name: agents
SELECT sent.*, ifNull(told.started_ms, 0) AS started_ms
FROM
(
    SELECT
        node AS name,
        if(uniqExact(pod) = 1, any(pod), '') AS of_pod,
        sender_key_id AS key_id,
        sender_peer AS peer,
        groupUniqArray(1000)(instance) AS instances,
        count() AS samples,
        toUnixTimestamp64Milli(max(time)) AS newest_ms
    FROM engine_samples
    WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64})
      AND recording = '' /*filter:samples*/
    GROUP BY name, key_id, peer
) AS sent
LEFT JOIN
(
    SELECT LogNode AS node, toUnixTimestamp64Milli(max(at)) AS started_ms
    FROM
    (
        SELECT ResourceAttributes['host.name'] AS LogNode, CAST(Timestamp, 'DateTime64(3)') AS at
        FROM otel_logs
        WHERE ServiceName = '' AND EventName = 'agent_started' AND ScopeName = 'servescope.event'
          AND Timestamp >= fromUnixTimestamp64Milli({to_ms:Int64}) - INTERVAL 30 DAY
          AND Timestamp < fromUnixTimestamp64Milli({to_ms:Int64})
    )
    GROUP BY node
) AS told ON told.node = sent.name
ORDER BY newest_ms, name, key_id, peer
LIMIT 1000
