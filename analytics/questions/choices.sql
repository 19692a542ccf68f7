-- name: choices
-- Of a long window, rows older than the last hour speak through the rollup; the rows that it does not hold, engines'
-- halves without an edge, mostly have samples. Names of recordings are told whether recordings are looked at or not.
SELECT
    'rows' AS part,
    groupUniqArrayIf(500)(model, /*shown*/) AS models,
    groupUniqArrayIf(500)(tenant, /*shown*/) AS tenants,
    groupUniqArrayIf(500)(instance, /*shown*/) AS instances,
    groupUniqArrayIf(500)(deployment, /*shown*/) AS deployments,
    groupUniqArrayIf(500)(engine, /*shown*/) AS engines,
    groupUniqArrayIf(500)(region, /*shown*/) AS regions,
    groupUniqArrayIf(500)(version, /*shown*/) AS versions,
    groupUniqArray(500)(recording) AS recordings,
    groupUniqArrayIf(500)(outcome, /*shown*/) AS outcomes,
    countIf(/*shown*/) AS n,
    toUnixTimestamp64Milli(maxIf(time, /*shown*/)) AS newest
FROM requests
WHERE time >= fromUnixTimestamp64Milli({rows_from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:requests*/
UNION ALL
SELECT
    'rows',
    groupUniqArrayIf(500)(model, /*shown*/),
    groupUniqArrayIf(500)(tenant, /*shown*/),
    groupUniqArrayIf(500)(instance, /*shown*/),
    groupUniqArrayIf(500)(deployment, /*shown*/),
    groupUniqArrayIf(500)(engine, /*shown*/),
    groupUniqArrayIf(500)(region, /*shown*/),
    groupUniqArrayIf(500)(version, /*shown*/),
    groupUniqArray(500)(recording),
    groupUniqArrayIf(500)(outcome, /*shown*/),
    sumIf(count, /*shown*/),
    toInt64(toUnixTimestamp(maxIf(time, /*shown*/))) * 1000
FROM requests_1m
WHERE time >= toStartOfMinute(fromUnixTimestamp64Milli({from_ms:Int64})) AND time < fromUnixTimestamp64Milli({rows_from_ms:Int64}) /*filter:rollup*/
UNION ALL
SELECT
    'samples',
    groupUniqArrayIf(500)(model, /*shown*/),
    [],
    groupUniqArrayIf(500)(instance, /*shown*/),
    groupUniqArrayIf(500)(deployment, /*shown*/),
    groupUniqArrayIf(500)(engine, /*shown*/),
    groupUniqArrayIf(500)(region, /*shown*/),
    groupUniqArrayIf(500)(version, /*shown*/),
    groupUniqArray(500)(recording),
    [],
    countIf(/*shown*/),
    toUnixTimestamp64Milli(maxIf(time, /*shown*/))
FROM engine_samples
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:samples*/
