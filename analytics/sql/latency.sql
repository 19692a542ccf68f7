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
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:samples*/
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
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:samples*/
  AND NOT (/*known*/)
GROUP BY name, slot
HAVING n > 0
ORDER BY name, slot

-- name: buckets_rows
SELECT bucket, sum(weight) AS n
FROM
(
    SELECT weight, greatest(floor(log2(greatest(toFloat64(/*value*/), 1e-9)) * 4), {lowest:Int32}) AS bucket
    FROM requests
    WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({settled_ms:Int64}) /*filter:requests*/
      AND /*present*/
)
GROUP BY bucket
ORDER BY bucket

-- name: cells_rows
SELECT bucket, slot, sum(weight) AS n
FROM
(
    SELECT
        weight,
        intDiv(toUnixTimestamp64Milli(time), {step_ms:Int64}) AS slot,
        greatest(floor(log2(greatest(toFloat64(/*value*/), 1e-9)) * 4), {lowest:Int32}) AS bucket
    FROM requests
    WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:requests*/
      AND /*present*/
)
GROUP BY bucket, slot
ORDER BY bucket, slot

-- name: phases_rows
SELECT
    slot,
    is_settled,
    grouping(slot) AS whole,
    sum(weight) AS n,
    sumIf(weight, has_engine = 1) AS with_engine,
    sum(e2e_seconds * weight) AS e2e,
    [/*phase_sums*/] AS seconds
FROM
(
    SELECT *, intDiv(toUnixTimestamp64Milli(time), {step_ms:Int64}) AS slot, time < fromUnixTimestamp64Milli({settled_ms:Int64}) AS is_settled
    FROM requests
    WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:requests*/
      AND /*present*/
)
GROUP BY GROUPING SETS ((slot), (is_settled))
ORDER BY whole, is_settled DESC, slot

-- name: phases_tails
SELECT [/*phase_tails*/] AS p99
FROM requests
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({settled_ms:Int64}) /*filter:requests*/
  AND /*present*/

-- name: phases_histograms
SELECT
    intDiv(toUnixTimestamp64Milli(time), {step_ms:Int64}) AS slot,
    sumIf(count, signal = 'e2e_seconds') AS n,
    sumIf(sum, signal = 'e2e_seconds') AS e2e,
    sumIf(sum, signal = 'ttft_seconds') AS ttft,
    sumIf(sum, signal = 'queue_seconds') AS queue,
    sumIf(sum, signal = 'prefill_seconds') AS prefill,
    sumIf(sum, signal = 'decode_seconds') AS decode
FROM engine_histograms FINAL
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:samples*/
  AND signal IN ('e2e_seconds', 'ttft_seconds', 'queue_seconds', 'prefill_seconds', 'decode_seconds')
GROUP BY slot
ORDER BY slot

-- name: phases_sums
SELECT
    intDiv(toUnixTimestamp64Milli(time), {step_ms:Int64}) AS slot,
    sum(requests_finished_delta) AS n,
    sum(request_seconds_delta) AS e2e,
    sum(queue_seconds_delta) AS queue,
    sum(prefill_seconds_delta) AS prefill,
    sum(decode_seconds_delta) AS decode,
    sum(compute_input_seconds_delta) AS compute_input,
    sum(compute_infer_seconds_delta) AS compute_infer,
    sum(compute_output_seconds_delta) AS compute_output
FROM engine_samples FINAL
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:samples*/
  AND requests_finished_delta IS NOT NULL
  AND instance NOT IN (
      SELECT instance FROM engine_histograms
      WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64})
        AND signal = 'e2e_seconds'
  )
GROUP BY slot
ORDER BY slot
