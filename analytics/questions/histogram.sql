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
