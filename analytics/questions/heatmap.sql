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
