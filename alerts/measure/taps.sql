-- What taps say of themselves: sums that only grow, from one process each. The value before the window is what an
-- increase is taken from; of a process that began later it is 0.

-- name: losses
SELECT instance, metric, reason, sum(greatest(last - base, 0)) AS lost, toUnixTimestamp64Milli(max(newest)) AS at
FROM
(
    SELECT
        ResourceAttributes['service.instance.id'] AS instance,
        MetricName AS metric,
        Attributes['reason'] AS reason,
        max(Value) AS last,
        max(TimeUnix) AS newest,
        multiIf(
            countIf(TimeUnix < fromUnixTimestamp64Milli({from:Int64})) > 0,
            maxIf(Value, TimeUnix < fromUnixTimestamp64Milli({from:Int64})),
            min(StartTimeUnix) >= fromUnixTimestamp64Milli({before:Int64}), 0,
            min(Value)
        ) AS base
    FROM otel_metrics_sum
    WHERE ServiceName = 'servescope-tap' AND MetricName IN {metrics:Array(String)}
      AND TimeUnix >= fromUnixTimestamp64Milli({before:Int64}) AND recording = ''
    GROUP BY ResourceAttributes, Attributes, MetricName, StartTimeUnix
)
GROUP BY instance, metric, reason
LIMIT 1000

-- name: open
-- What each tap said last of its open requests and of what its server owes, and when it last had some.
SELECT
    ResourceAttributes['service.instance.id'] AS instance,
    argMaxIf(Value, TimeUnix, MetricName = 'servescope.tap.requests.open') AS open,
    argMaxIf(Value, TimeUnix, MetricName = 'servescope.tap.requests.owed_age') AS owed,
    toUnixTimestamp64Milli(CAST(max(TimeUnix), 'DateTime64(3)')) AS at_ms,
    toUnixTimestamp64Milli(CAST(maxIf(TimeUnix, Value > 0 AND MetricName = 'servescope.tap.requests.open'), 'DateTime64(3)')) AS busy_ms,
    toUnixTimestamp64Milli(CAST(min(TimeUnix), 'DateTime64(3)')) AS first_ms
FROM otel_metrics_gauge
WHERE ServiceName = 'servescope-tap' AND MetricName IN ('servescope.tap.requests.open', 'servescope.tap.requests.owed_age')
  AND TimeUnix >= fromUnixTimestamp64Milli({since:Int64}) AND TimeUnix < fromUnixTimestamp64Milli({until:Int64})
  AND recording = ''
GROUP BY ResourceAttributes
ORDER BY at_ms DESC
LIMIT {limit:UInt32}
