-- name: signals
-- Signals without a column of their own: increases add up, and of_each is what one series had of them; gauges are averaged
-- within a series and added up over series.
SELECT slot, name, sum(series_sum) AS added, sum(series_mean) AS level, avg(series_sum) AS of_each
FROM
(
    SELECT
        intDiv(toUnixTimestamp64Milli(time), {step_ms:Int64}) AS slot,
        signal.1 AS name,
        instance, model, dp_rank,
        sum(signal.2) AS series_sum,
        avg(signal.2) AS series_mean
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
