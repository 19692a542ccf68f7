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
