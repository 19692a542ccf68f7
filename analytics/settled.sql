-- name: taps
-- What each tap said of itself last; one that was restarted is another process, with its own open requests.
SELECT
    ResourceAttributes['service.instance.id'] AS instance,
    toUnixTimestamp64Milli(CAST(max(TimeUnix), 'DateTime64(3)')) AS at_ms,
    argMaxIf(Value, TimeUnix, MetricName = 'servescope.tap.requests.open') AS open,
    argMaxIf(Value, TimeUnix, MetricName = 'servescope.tap.requests.oldest_age') AS oldest
FROM otel_metrics_gauge
WHERE ServiceName = 'servescope-tap'
  AND MetricName IN ('servescope.tap.requests.open', 'servescope.tap.requests.oldest_age')
  AND TimeUnix >= fromUnixTimestamp64Milli({since_ms:Int64}) AND TimeUnix < fromUnixTimestamp64Milli({now_ms:Int64})
GROUP BY ResourceAttributes
ORDER BY at_ms DESC
LIMIT {limit:UInt32}

-- name: longest
SELECT max(e2e_seconds) AS seconds
FROM requests
WHERE time >= fromUnixTimestamp64Milli({since_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:arrived*/
