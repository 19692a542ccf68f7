-- name: limits
-- What each server was last told to keep to, wherever it was told; 0 where nobody told.
SELECT
    limited,
    limited_recording,
    argMaxIf(sequences, told_at, sequences > 0) AS most_running,
    argMaxIf(tokens, told_at, tokens > 0) AS most_tokens
FROM
(
    SELECT
        instance AS limited,
        recording AS limited_recording,
        time AS told_at,
        arrayFirst(limit -> limit > 0, arrayMap(named -> toUInt32OrZero(config[named]), {sequences_names:Array(String)})) AS sequences,
        arrayFirst(limit -> limit > 0, arrayMap(named -> toUInt32OrZero(config[named]), {tokens_names:Array(String)})) AS tokens
    FROM instance_config
    WHERE time < fromUnixTimestamp64Milli({to_ms:Int64})
)
GROUP BY limited, limited_recording

-- name: binding
-- What kept more work out. Preempted is only who had no block, and a limit that is reached is one whatever else is near;
-- a cache that is nearly full keeps out who wants more than is left.
multiIf(
    preempted > 0, 'kv_blocks',
    waited > 0 AND most_running > 0 AND ran >= most_running, 'sequences',
    most_tokens > 0 AND tokens >= most_tokens * {budget_reached:Float64} AND (waited > 0 OR prefilled > 0), 'token_budget',
    waited > 0 AND kv >= {kv_full:Float64}, 'kv_blocks',
    waited > 0, 'other',
    'nothing')

-- name: told
-- What a step's row counts as running is what still runs after it.
SELECT
    instance, recording, elapsed_seconds, done_us, before_us, before_open, counted_on,
    assumeNotNull(running) + ifNull(finished, 0) AS ran,
    ifNull(waiting, 0) AS waited,
    ifNull(kv_cache_usage_ratio, 0) AS kv,
    ifNull(preemptions, 0) AS preempted,
    prefill_tokens IS NOT NULL AND decoded IS NOT NULL AS batch_told,
    if(batch_told, assumeNotNull(prefill_tokens), ifNull(prompt_tokens, 0)) AS prefilled,
    prefilled + if(batch_told, assumeNotNull(decoded), ifNull(generation_tokens, 0)) AS step_tokens,
    if(batch_told, step_tokens, 0) AS tokens
FROM (/*in_order*/)

-- name: bound
-- Each step of the window, what bound it, and when it began: when the one before ended while requests were open, else as
-- long before its end as it says it took. A step before which others went untold began nobody knows when.
SELECT
    instance, done_us, step_tokens, batch_told, ran, prefilled, preempted, kv, most_running, most_tokens,
    /*binding*/ AS bound_by,
    before_us > 0 AND (counted_on OR (elapsed_seconds IS NULL AND done_us - before_us <= 1000000)) AS follows,
    done_us - toInt64(1000000 * ifNull(elapsed_seconds, 0)) AS scheduled_us,
    multiIf(NOT follows, scheduled_us, before_open > 0, before_us, greatest(before_us, scheduled_us)) AS begun_us,
    if(follows AND before_open = 0, begun_us - before_us, 0) AS idle_us,
    if(elapsed_seconds > 0, elapsed_seconds, if(follows AND before_open > 0, (done_us - before_us) / 1000000, NULL)) AS seconds
FROM (/*told*/) AS step
LEFT JOIN (/*limits*/) AS limits ON limited = instance AND limited_recording = recording
WHERE done_us >= {from_ms:Int64} * 1000

-- name: step_spans
SELECT instance, span.1 AS bound_by, span.2 AS begun_us, span.3 AS done_us
FROM
(
    SELECT instance, arrayJoin([(bound_by, begun_us, done_us), ('idle', begun_us - idle_us, begun_us)]) AS span
    FROM (/*bound*/)
)

-- name: second_spans
-- Of steps by second: the most that ran and waited within it, and its steps' mean tokens.
SELECT
    instance,
    /*binding*/ AS bound_by,
    begun_us,
    begun_us + 1000000 AS done_us
FROM
(
    SELECT
        instance, recording,
        toInt64(toUnixTimestamp(time)) * 1000000 AS begun_us,
        max(ifNull(running_max, 0)) AS ran,
        max(ifNull(waiting_max, 0)) AS waited,
        max(ifNull(kv_cache_usage_ratio_max, 0)) AS kv,
        sum(ifNull(preemptions, 0)) AS preempted,
        sum(ifNull(prefill_tokens, 0)) AS prefilled,
        ifNull((prefilled + sum(coalesce(decode_tokens, decode_requests, 0))) / nullIf(sum(steps), 0), 0) AS tokens
    FROM engine_steps_1s
    WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:samples*/
    GROUP BY instance, model, dp_rank, recording, time
    HAVING sum(steps) > 0
) AS seen
LEFT JOIN (/*limits*/) AS limits ON limited = instance AND limited_recording = recording

-- name: sample_spans
-- Of samples: gauges at an instant stand for the time since the sample before. Engines without a KV cache are left out.
SELECT
    instance,
    if(ran = 0 AND waited = 0, 'idle', /*binding*/) AS bound_by,
    done_us - toInt64(1000000 * least(interval_seconds, {longest:Float64})) AS begun_us,
    done_us
FROM
(
    SELECT
        instance, recording, interval_seconds,
        toUnixTimestamp64Micro(toDateTime64(time, 6)) AS done_us,
        running AS ran,
        ifNull(waiting, 0) AS waited,
        kv_cache_usage_ratio AS kv,
        ifNull(preemptions_delta, 0) AS preempted,
        ifNull(prompt_tokens_delta, 0) AS prefilled,
        ifNull(batch_tokens_delta / nullIf(engine_steps_delta, 0), 0) AS tokens
    FROM engine_samples FINAL
    WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:servers*/
      AND up = 1 AND running IS NOT NULL AND kv_cache_usage_ratio IS NOT NULL AND interval_seconds > 0 /*elsewhere*/
) AS seen
LEFT JOIN (/*limits*/) AS limits ON limited = instance AND limited_recording = recording

-- name: shares
-- Seconds by what bound them, per instance and step of the grid; a span that crosses steps is cut at each.
SELECT
    slot,
    instance,
    bound_by,
    sum(least(done_us, (slot + 1) * {step_ms:Int64} * 1000) - greatest(begun_us, slot * {step_ms:Int64} * 1000)) / 1000000 AS seconds,
    count() AS spans
FROM
(
    SELECT instance, bound_by, greatest(begun_us, toInt64({from_ms:Int64} * 1000)) AS begun_us, least(done_us, toInt64({to_ms:Int64} * 1000)) AS done_us
    FROM (/*spans*/)
    WHERE done_us > begun_us AND done_us > {from_ms:Int64} * 1000 AND begun_us < {to_ms:Int64} * 1000
)
ARRAY JOIN range(intDiv(begun_us, {step_ms:Int64} * 1000), intDiv(done_us - 1, {step_ms:Int64} * 1000) + 1) AS slot
GROUP BY slot, instance, bound_by
ORDER BY slot, instance, bound_by

-- name: by_instance
-- A step in which nothing ran has no batch to tell of: vLLM makes one after its last request.
SELECT
    instance,
    count() AS steps,
    countIf(seconds IS NOT NULL) AS timed,
    quantiles(0.5, 0.95)(seconds) AS times,
    max(seconds) AS longest,
    avg(step_tokens) AS tokens_mean,
    min(batch_told OR ran = 0) AS all_told,
    sum(preempted) AS preemptions,
    max(most_running) AS sequences_limit,
    max(most_tokens) AS tokens_limit
FROM (/*bound*/)
GROUP BY instance
ORDER BY instance

-- name: sizes
-- Step time by tokens in the step, apart for steps that read prompts and those that only decode; bins double.
SELECT
    prefilled > 0 AS reads_prompts,
    toUInt32(floor(log2(step_tokens))) AS doubling,
    count() AS steps,
    quantiles(0.5, 0.95)(seconds) AS times
FROM (/*bound*/)
WHERE seconds IS NOT NULL AND step_tokens > 0
GROUP BY reads_prompts, doubling
ORDER BY reads_prompts, doubling
