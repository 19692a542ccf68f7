-- name: coverage
SELECT
    'rows' AS part,
    /*counted*/ AS n,
    toUnixTimestamp64Milli(max(time)) AS newest,
    groupUniqArray(10000)(instance) AS seen,
    groupUniqArrayIf(10000)(instance, has_edge = 1) AS good,
    CAST([], 'Array(LowCardinality(String))') AS bad,
    CAST([], 'Array(LowCardinality(String))') AS gone,
    groupUniqArray(1000)(recording) AS recordings
FROM requests
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:arrived*/
UNION ALL
SELECT
    'samples',
    sum(found),
    toUnixTimestamp64Milli(max(newest)),
    groupUniqArray(10000)(instance),
    groupUniqArrayIf(10000)(instance, last_up = 1 AND newest > left_at),
    groupUniqArrayIf(10000)(instance, last_up = 0 AND newest > left_at),
    groupUniqArrayIf(10000)(instance, newest <= left_at),
    groupUniqArrayArray(1000)(recorded)
FROM
(
    SELECT
        instance,
        count() AS found,
        max(time) AS newest,
        argMax(up, time) AS last_up,
        groupUniqArray(100)(recording) AS recorded
    FROM engine_samples FINAL
    WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:samples*/
    GROUP BY instance
) AS reported
LEFT JOIN
(
    SELECT instance, max(time) AS left_at
    FROM events
    WHERE event = 'target_left'
      AND time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:recording*/
    GROUP BY instance
) AS goodbyes USING (instance)
