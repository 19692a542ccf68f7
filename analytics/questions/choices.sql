-- name: choices
-- Of a long window, rows older than the last hour speak through the rollup; the rows that it does not hold, engines'
-- halves without an edge, mostly have samples.
SELECT
    'rows' AS part,
    groupUniqArray(500)(model) AS models,
    groupUniqArray(500)(tenant) AS tenants,
    groupUniqArray(500)(instance) AS instances,
    groupUniqArray(500)(deployment) AS deployments,
    groupUniqArray(500)(engine) AS engines,
    groupUniqArray(500)(region) AS regions,
    groupUniqArray(500)(version) AS versions,
    groupUniqArray(500)(recording) AS recordings,
    groupUniqArray(500)(outcome) AS outcomes,
    count() AS n,
    toUnixTimestamp64Milli(max(time)) AS newest
FROM requests
WHERE time >= fromUnixTimestamp64Milli({rows_from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:requests*/
UNION ALL
SELECT
    'rows',
    groupUniqArray(500)(model),
    groupUniqArray(500)(tenant),
    groupUniqArray(500)(instance),
    groupUniqArray(500)(deployment),
    groupUniqArray(500)(engine),
    groupUniqArray(500)(region),
    groupUniqArray(500)(version),
    groupUniqArray(500)(recording),
    groupUniqArray(500)(outcome),
    sum(count),
    toInt64(toUnixTimestamp(max(time))) * 1000
FROM requests_1m
WHERE time >= toStartOfMinute(fromUnixTimestamp64Milli({from_ms:Int64})) AND time < fromUnixTimestamp64Milli({rows_from_ms:Int64}) /*filter:rollup*/
UNION ALL
SELECT
    'samples',
    groupUniqArray(500)(model),
    [],
    groupUniqArray(500)(instance),
    groupUniqArray(500)(deployment),
    groupUniqArray(500)(engine),
    groupUniqArray(500)(region),
    groupUniqArray(500)(version),
    groupUniqArray(500)(recording),
    [],
    count(),
    toUnixTimestamp64Milli(max(time))
FROM engine_samples
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:samples*/
