-- name: signals
-- Signals without a column of their own: increases add up, and of_each is what one series had of them; gauges are averaged
-- within a series and added up over series, and most is the highest of any.
SELECT
    slot, name,
    sum(series_sum) AS added, sum(series_mean) AS level, avg(series_sum) AS of_each, max(series_most) AS most
FROM
(
    SELECT
        intDiv(toUnixTimestamp64Milli(time), {step_ms:Int64}) AS slot,
        signal.1 AS name,
        instance, model, dp_rank,
        sum(signal.2) AS series_sum,
        avg(signal.2) AS series_mean,
        max(signal.2) AS series_most
    FROM
    (
        SELECT
            time, instance, model, dp_rank,
            arrayJoin(arrayFilter(
                pair -> has({names:Array(String)}, pair.1),
                arrayZip(mapKeys(other_signals), mapValues(other_signals)))) AS signal
        FROM engine_samples FINAL
        WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:servers*/
    )
    GROUP BY slot, name, instance, model, dp_rank
)
GROUP BY slot, name
ORDER BY slot, name

-- name: newest
-- What each gauge showed last, added up over series.
SELECT name, sum(value) AS value
FROM
(
    SELECT signal.1 AS name, instance, model, dp_rank, recording, argMax(signal.2, time) AS value
    FROM
    (
        SELECT
            time, instance, model, dp_rank, recording,
            arrayJoin(arrayFilter(
                pair -> has({names:Array(String)}, pair.1),
                arrayZip(mapKeys(other_signals), mapValues(other_signals)))) AS signal
        FROM engine_samples FINAL
        WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:servers*/
    )
    GROUP BY name, instance, model, dp_rank, recording
)
GROUP BY name
ORDER BY name

-- name: times
SELECT signal, bounds, sumForEach(counts) AS buckets, sum(count) AS n, sum(sum) AS total
FROM engine_histograms FINAL
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:servers*/
  AND signal IN {names:Array(String)}
GROUP BY signal, bounds
ORDER BY signal, bounds
