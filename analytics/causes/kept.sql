-- name: fingerprints
-- What changes when anything that the others look at does.
SELECT 'references' AS part, sum(cityHash64(until, deployment, model, route, has_engine, computed_at)) AS fingerprint, count() AS n
FROM cause_references
WHERE until <= fromUnixTimestamp64Milli({at_ms:Int64}) AND until > fromUnixTimestamp64Milli({fresh_ms:Int64})
UNION ALL
SELECT 'noise', sum(cityHash64(until, deployment, cause, computed_at)), count()
FROM cause_noise
WHERE until <= fromUnixTimestamp64Milli({at_ms:Int64}) AND until > fromUnixTimestamp64Milli({fresh_ms:Int64})

-- name: references
-- The newest of each kind that was there when the window began.
SELECT *
FROM cause_references FINAL
WHERE until <= fromUnixTimestamp64Milli({at_ms:Int64}) AND until > fromUnixTimestamp64Milli({fresh_ms:Int64})
ORDER BY until DESC
LIMIT 1 BY deployment, model, route, has_engine
LIMIT {limit:UInt32}

-- name: noise
-- The newest of each deployment; a row without a cause says how many blocks those had that are not named.
SELECT deployment, cause, blocks, mean_load, load_deviation
FROM cause_noise FINAL
WHERE until <= fromUnixTimestamp64Milli({at_ms:Int64}) AND until > fromUnixTimestamp64Milli({fresh_ms:Int64})
  AND (deployment, until) IN
  (
      SELECT deployment, max(until)
      FROM cause_noise
      WHERE until <= fromUnixTimestamp64Milli({at_ms:Int64}) AND until > fromUnixTimestamp64Milli({fresh_ms:Int64})
      GROUP BY deployment
  )
LIMIT {limit:UInt32}
