-- name: flow_rows
-- A request arrives at its time and is finished at time + e2e_seconds; those that arrived up to an hour before the
-- window may finish in it. One that nobody timed (e2e_seconds = 0) never finishes here. Requests are first counted by
-- the pair of their two slots, for they are many and the pairs are few.
SELECT
    moment.1 AS slot,
    sumIf(n, moment.2) AS arrived,
    sumIf(n, NOT moment.2) AS done,
    sumIf(e2e, moment.2) AS e2e_sum,
    sumIf(timed, moment.2) AS e2e_n
FROM
(
    SELECT
        if(toUnixTimestamp64Milli(time) >= {from_ms:Int64}, intDiv(toUnixTimestamp64Milli(time), {step_ms:Int64}), -1) AS arrival,
        if(e2e_seconds > 0 AND (toUnixTimestamp64Milli(time) + toInt64(round(e2e_seconds * 1000))) >= {from_ms:Int64} AND (toUnixTimestamp64Milli(time) + toInt64(round(e2e_seconds * 1000))) < {to_ms:Int64}, intDiv((toUnixTimestamp64Milli(time) + toInt64(round(e2e_seconds * 1000))), {step_ms:Int64}), -1) AS finish,
        sum(weight) AS n,
        sum(e2e_seconds * weight) AS e2e,
        sumIf(weight, e2e_seconds > 0) AS timed
    FROM requests
    WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64} - 3600000) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:requests*/
    GROUP BY arrival, finish
)
ARRAY JOIN [(arrival, true), (finish, false)] AS moment
WHERE slot >= 0
GROUP BY slot
ORDER BY slot
