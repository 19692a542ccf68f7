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
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:servers*/
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
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:servers*/
  AND requests_finished_delta IS NOT NULL
  AND (instance, recording) NOT IN (
      SELECT instance, recording FROM engine_histograms
      WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64})
        AND signal = 'e2e_seconds'
  )
GROUP BY slot
ORDER BY slot
