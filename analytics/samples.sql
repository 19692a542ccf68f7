-- name: by_step
-- Gauges are averaged within a series (instance, model, rank, recording) and step, then added up over series; counters
-- add up. What was recorded of a server and the live one of its name are two servers.
-- A row stands for a step, model, instance or the whole window: what it is not for is marked by no_….
WITH series AS
(
    SELECT
        intDiv(toUnixTimestamp64Milli(time), {step_ms:Int64}) AS slot,
        instance AS name_of_instance,
        model AS name_of_model,
        dp_rank,
        recording AS name_of_recording,
        count() AS d_samples,
        groupUniqArray(10)(engine) AS engines_seen,
        groupUniqArray(10)(deployment) AS deployments_seen,
        avg(running) AS running_mean,
        avg(waiting) AS waiting_mean,
        max(waiting) AS waiting_most,
        avg(kv_cache_usage_ratio) AS kv_mean,
        max(kv_cache_usage_ratio) AS kv_most,
        sumIf(interval_seconds, kv_cache_usage_ratio >= 0.9) AS d_kv_full_seconds,
        sum(preemptions_delta) AS d_preemptions,
        sum(prompt_tokens_delta) AS d_prompt_tokens,
        sum(generation_tokens_delta) AS d_generation_tokens,
        sum(prefix_cache_queries_delta) AS d_prefix_queries,
        sum(prefix_cache_hits_delta) AS d_prefix_hits,
        sum(requests_finished_delta) AS d_finished,
        sum(/*failed_requests*/) AS d_failed,
        sum(/*ended_requests*/) AS d_ended,
        sum(/*judged_requests*/) AS d_judged,
        sum(engine_steps_delta) AS d_engine_steps,
        sumIf(batch_tokens_delta, engine_steps_delta IS NOT NULL) AS d_batch_tokens,
        sumIf(engine_steps_delta, batch_tokens_delta IS NOT NULL) AS d_steps_with_tokens,
        sum(inferences_delta) AS d_inferences,
        sum(executions_delta) AS d_executions
    FROM engine_samples FINAL
    WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:servers*/
    GROUP BY slot, name_of_instance, name_of_model, dp_rank, name_of_recording
)
SELECT
    /*keys*/,
    sum(d_samples) AS samples,
    uniqExact(series.slot) AS slots,
    groupUniqArrayArray(10)(engines_seen) AS engines,
    groupUniqArrayArray(100)(deployments_seen) AS deployments,
    groupUniqArray(1000)(name_of_instance) AS instances,
    sum(running_mean) AS running,
    sum(waiting_mean) AS waiting,
    max(waiting_most) AS waiting_peak,
    avg(kv_mean) AS kv_average,
    max(kv_most) AS kv_peak,
    sum(d_kv_full_seconds) AS kv_full_seconds,
    sum(d_preemptions) AS preemptions,
    sum(d_prompt_tokens) AS prompt_tokens,
    sum(d_generation_tokens) AS generation_tokens,
    sum(d_prefix_queries) AS prefix_queries,
    sum(d_prefix_hits) AS prefix_hits,
    sum(d_finished) AS finished,
    sum(d_failed) AS failed,
    sumIf(d_ended, (name_of_instance, name_of_recording) NOT IN (/*covered*/)) AS ended_elsewhere,
    sumIf(d_judged, (name_of_instance, name_of_recording) NOT IN (/*covered*/)) AS judged_elsewhere,
    sumIf(d_failed, (name_of_instance, name_of_recording) NOT IN (/*covered*/)) AS failed_elsewhere,
    sum(d_engine_steps) AS engine_steps,
    sum(d_batch_tokens) AS batch_tokens,
    sum(d_steps_with_tokens) AS steps_with_tokens,
    sum(d_inferences) AS inferences,
    sum(d_executions) AS executions
FROM series
GROUP BY GROUPING SETS (/*sets*/)
ORDER BY no_slot, slot, model, instance

-- name: known_by_rows
SELECT instance, recording
FROM requests
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:requests*/
  AND instance != ''
GROUP BY instance, recording

-- name: gauge_peaks
-- Highest sums over instances within one second. Each instance at its own highest of a longer step would add up what was
-- never there at one time, and a mean over a step is below the highest. Samples of one agent are of one instant.
SELECT max(running) AS running, max(waiting) AS waiting
FROM
(
    SELECT second, sum(most_running) AS running, sum(most_waiting) AS waiting
    FROM
    (
        SELECT
            intDiv(toUnixTimestamp64Milli(time), 1000) AS second,
            max(running) AS most_running,
            max(waiting) AS most_waiting
        FROM engine_samples FINAL
        WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:servers*/
        GROUP BY second, instance, model, dp_rank, recording
    )
    GROUP BY second
)
