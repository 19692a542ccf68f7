-- Everything that the rules of one round look at: a statement for each way to know it, however many rules there are.
-- A marker of the form /*name*/ is filled with columns or conditions made of this module's own words, never of data.

-- name: request_counts
-- Requests count when they finish: by arrival, a short window would never hold the slow ones.
SELECT /*columns*/
FROM
(
    SELECT *, /*finished*/ AS finished
    FROM requests
    WHERE time >= fromUnixTimestamp64Milli({arrived_from:Int64}) AND time <= fromUnixTimestamp64Milli({until:Int64})
      AND operation != '' AND (/*recordings*/)
)
WHERE finished >= fromUnixTimestamp64Milli({from:Int64})
/*group*/
LIMIT {limit:UInt32}

-- name: histogram_counts
-- For servers that only show metrics: what lies in buckets above the threshold is bad.
SELECT /*columns*/
FROM engine_histograms FINAL
WHERE time >= fromUnixTimestamp64Milli({from:Int64}) AND time <= fromUnixTimestamp64Milli({until:Int64})
  AND signal IN {signals:Array(String)} AND (/*recordings*/)
/*group*/
LIMIT {limit:UInt32}

-- name: counter_counts
SELECT /*columns*/
FROM engine_samples FINAL
WHERE time >= fromUnixTimestamp64Milli({from:Int64}) AND time <= fromUnixTimestamp64Milli({until:Int64})
  AND (/*recordings*/)
/*group*/
LIMIT {limit:UInt32}

-- name: servers
-- Who had samples beside the routers, whose requests are theirs.
SELECT /*columns*/
FROM engine_samples
WHERE time >= fromUnixTimestamp64Milli({from:Int64}) AND time <= fromUnixTimestamp64Milli({until:Int64})
  AND (/*recordings*/) AND NOT /*router*/
/*group*/
LIMIT {limit:UInt32}

-- name: samples
-- One row per scrape, instance and model: ranks of one server add up, its fullest cache counts.
SELECT
    instance,
    model,
    toUnixTimestamp64Milli(time) AS at,
    any(deployment) AS deployment,
    any(engine) AS engine,
    any(region) AS region,
    any(version) AS version,
    max(recording != '') AS replayed,
    min(up) AS up,
    max(scrape_seconds) AS scrape_seconds,
    max(interval_seconds) AS interval_seconds
    /*columns*/
FROM engine_samples
WHERE time >= fromUnixTimestamp64Milli({from:Int64}) AND (/*recordings*/)
GROUP BY instance, model, time
ORDER BY instance, model, time
LIMIT {limit:UInt32}

-- name: last_seen
-- One that left on purpose is silent on purpose; when it comes again it is a new one, which was not up yet.
SELECT
    instance,
    argMax(deployment, time) AS deployment,
    argMax(engine, time) AS engine,
    argMax(region, time) AS region,
    argMax(version, time) AS version,
    max(recording != '') AS replayed,
    countIf(up = 1 AND time > left_at) > 0 AS was_up,
    toUnixTimestamp64Milli(max(time)) AS at
FROM engine_samples
LEFT JOIN
(
    SELECT instance, max(time) AS left_at
    FROM events
    WHERE time >= fromUnixTimestamp64Milli({from:Int64}) AND event = 'target_left' AND (/*recordings*/)
    GROUP BY instance
) AS gone USING (instance)
WHERE time >= fromUnixTimestamp64Milli({from:Int64}) AND (/*recordings*/)
GROUP BY instance
HAVING max(time) > max(left_at)
LIMIT {limit:UInt32}
