-- name: flow_rows
-- A request arrives at its time and is finished at time + e2e_seconds; those that arrived up to an hour before the
-- window may finish in it. One that nobody timed (e2e_seconds = 0) never finishes here.
SELECT
    slot,
    sumIf(weight, arrives) AS arrived,
    sumIf(weight, NOT arrives) AS done
FROM
(
    SELECT
        weight,
        arrayJoin([
            (toUnixTimestamp64Milli(time), true),
            (if(e2e_seconds > 0, toUnixTimestamp64Milli(time) + toInt64(round(e2e_seconds * 1000)), 0), false)
        ]) AS moment,
        moment.2 AS arrives,
        intDiv(moment.1, {step_ms:Int64}) AS slot
    FROM requests
    WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64} - 3600000) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:requests*/
      AND moment.1 >= {from_ms:Int64} AND moment.1 < {to_ms:Int64}
)
GROUP BY slot
ORDER BY slot

-- name: e2e_mean
SELECT sum(e2e_seconds * weight) / sum(weight) AS mean
FROM requests
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:requests*/
  AND e2e_seconds > 0
