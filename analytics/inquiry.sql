-- name: coverage
SELECT
    'rows' AS part,
    /*counted*/ AS n,
    toUnixTimestamp64Milli(max(time)) AS newest,
    groupUniqArray(10000)(instance) AS seen,
    groupUniqArrayIf(10000)(instance, has_edge = 1) AS good,
    CAST([], 'Array(LowCardinality(String))') AS bad,
    groupUniqArray(1000)(recording) AS recordings
FROM requests
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:arrived*/
UNION ALL
SELECT
    'samples',
    sum(found),
    max(newest_ms),
    groupUniqArray(10000)(instance),
    groupUniqArrayIf(10000)(instance, last_up = 1),
    groupUniqArrayIf(10000)(instance, last_up = 0),
    groupUniqArrayArray(1000)(recorded)
FROM
(
    SELECT
        instance,
        count() AS found,
        toUnixTimestamp64Milli(max(time)) AS newest_ms,
        argMax(up, time) AS last_up,
        groupUniqArray(100)(recording) AS recorded
    FROM engine_samples FINAL
    WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:samples*/
    GROUP BY instance
)
