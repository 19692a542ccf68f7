-- name: batch_sizes
-- Two histograms over the same sizes: executions, and microseconds of compute.
SELECT model, signal, bounds, sumForEach(counts) AS buckets, sum(count) AS n, sum(sum) AS total
FROM engine_histograms FINAL
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:servers*/
  AND signal IN ('batch_size', 'batch_compute_microseconds')
GROUP BY model, signal, bounds
ORDER BY model, signal, bounds
