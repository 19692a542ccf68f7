-- name: by_time_and_key
SELECT
    /*columns*/
FROM requests
WHERE time = fromUnixTimestamp64Milli({time_ms:Int64}) /*filter:any_requests*/

-- name: by_key
SELECT
    /*columns*/
FROM requests
WHERE (time, key) IN
(
    SELECT time, key FROM requests_t
    WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) AND key = {of_key:UInt64}
) /*filter:any_requests*/
ORDER BY time
LIMIT 1

-- name: by_trace
SELECT
    /*columns*/
FROM requests
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:any_requests*/
ORDER BY recording, time, key
LIMIT 1

-- name: samples
SELECT
    toUnixTimestamp64Milli(time) AS time_ms,
    min(up) AS is_up,
    sum(running) AS running_sum,
    sum(waiting) AS waiting_sum,
    max(kv_cache_usage_ratio) AS kv,
    sum(preemptions_delta) AS preempted,
    sum(generation_tokens_delta) AS generated,
    sum(prompt_tokens_delta) AS prompted,
    sumIf(batch_tokens_delta, engine_steps_delta > 0) / sum(engine_steps_delta) AS tokens_per_step
FROM engine_samples FINAL
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64})
  AND /*here*/ AND recording = {recording:String}
GROUP BY time
ORDER BY time
LIMIT 20000

-- name: steps
-- Steps that ended while the engine had the request, each with the time since the one before of its core, which is its
-- length where it does not tell its own; the slowest first, and how many there are.
SELECT
    done_us, dp_rank AS core, waiting AS waited, running AS ran, kv_cache_usage_ratio AS kv, preemptions AS preempted,
    prefill_tokens AS prefilled, decoded,
    if(elapsed_seconds > 0, elapsed_seconds, if(counted_on, (done_us - before_us) / 1000000, NULL)) AS seconds,
    count() OVER () AS steps_total,
    medianIf(seconds, seconds IS NOT NULL) OVER () AS median_seconds
FROM (/*in_order*/)
WHERE done_us >= {first_us:Int64}
ORDER BY ifNull(seconds, 0) DESC, done_us
LIMIT 2000

-- name: spans
SELECT
    toUnixTimestamp64Micro(Timestamp) AS start_us,
    toUnixTimestamp64Micro(Timestamp) + intDiv(Duration, 1000) AS end_us,
    SpanName, ServiceName, ScopeName, SpanId, ParentSpanId, StatusCode, SpanAttributes
FROM otel_traces
WHERE Timestamp >= fromUnixTimestamp64Milli({from_ms:Int64} - 3600000) AND Timestamp < fromUnixTimestamp64Milli({to_ms:Int64} + 3600000)
  AND TraceId = {trace_id:String}
ORDER BY Timestamp, SpanId
LIMIT 1 BY SpanId
LIMIT 1000

-- name: neighbours
SELECT
    least({end_ms:Int64}, toUnixTimestamp64Milli(time) + toInt64(round(e2e_seconds * 1000))) - greatest({start_ms:Int64}, toUnixTimestamp64Milli(time)) AS overlap_ms,
    count() OVER () AS neighbours_total,
    /*columns*/
FROM requests
WHERE time >= fromUnixTimestamp64Milli({start_ms:Int64} - 3600000) AND time < fromUnixTimestamp64Milli({end_ms:Int64})
  AND /*here*/ AND recording = {recording:String}
  AND operation != '' AND NOT (key = {key:UInt64} AND time = fromUnixTimestamp64Milli({start_ms:Int64}))
  AND overlap_ms > 0
ORDER BY overlap_ms DESC, time, key
LIMIT 200
