-- name: names_rows
SELECT /*by*/ AS name, sum(weight) AS n
FROM requests
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:requests*/
  AND /*present*/
GROUP BY name
ORDER BY n DESC, name

-- name: percentiles_rows
SELECT
    name,
    slot,
    is_settled,
    grouping(slot) AS whole,
    sum(weight) AS n,
    sum(value * weight) / n AS mean,
    max(value) AS largest,
    /*quantiles*/ AS q
FROM
(
    SELECT
        /*by*/ AS name,
        intDiv(toUnixTimestamp64Milli(time), {step_ms:Int64}) AS slot,
        time < fromUnixTimestamp64Milli({settled_ms:Int64}) AS is_settled,
        weight,
        /*value*/ AS value
    FROM requests
    WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:requests*/
      AND /*present*/ /*only*/
)
GROUP BY GROUPING SETS ((name, slot), (name, is_settled))
ORDER BY name, whole, is_settled DESC, slot

-- name: percentiles_histograms
SELECT
    /*by*/ AS name,
    intDiv(toUnixTimestamp64Milli(time), {step_ms:Int64}) AS slot,
    bounds,
    sumForEach(counts) AS buckets,
    sum(count) AS n,
    sum(sum) AS total
FROM engine_histograms FINAL
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:servers*/
  AND signal = {distribution:String} AND NOT (/*known*/)
GROUP BY name, slot, bounds
ORDER BY name, slot, bounds

-- name: percentiles_sums
SELECT
    /*by*/ AS name,
    intDiv(toUnixTimestamp64Milli(time), {step_ms:Int64}) AS slot,
    sum(/*total*/) AS seconds,
    sumIf(/*divisor*/, /*total*/ IS NOT NULL) AS n
FROM engine_samples FINAL
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:servers*/
  AND NOT (/*known*/)
GROUP BY name, slot
HAVING n > 0
ORDER BY name, slot
