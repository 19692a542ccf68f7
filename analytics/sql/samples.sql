-- name: by_step
-- Gauges are averaged within a series (instance, model, rank) and step, then added up over series; counters add up.
-- group: 0 = one row per step, 1 = one per model, 2 = one per instance, 3 = the whole window.
WITH series AS
(
    SELECT
        intDiv(toUnixTimestamp64Milli(time), {step_ms:Int64}) AS slot,
        instance AS name_of_instance,
        model AS name_of_model,
        dp_rank,
        count() AS samples,
        groupUniqArray(10)(engine) AS engines_seen,
        groupUniqArray(10)(deployment) AS deployments_seen,
        avg(running) AS running_mean,
        avg(waiting) AS waiting_mean,
        max(waiting) AS waiting_most,
        avg(kv_cache_usage_ratio) AS kv_mean,
        max(kv_cache_usage_ratio) AS kv_most,
        sumIf(interval_seconds, kv_cache_usage_ratio >= 0.9) AS kv_full_seconds,
        sum(preemptions_delta) AS preemptions,
        sum(prompt_tokens_delta) AS prompt_tokens,
        sum(generation_tokens_delta) AS generation_tokens,
        sum(prefix_cache_queries_delta) AS prefix_queries,
        sum(prefix_cache_hits_delta) AS prefix_hits,
        sum(requests_finished_delta) AS finished,
        sum(requests_failed_delta) AS failed,
        sum(engine_steps_delta) AS engine_steps,
        sumIf(batch_tokens_delta, engine_steps_delta IS NOT NULL) AS batch_tokens,
        sumIf(engine_steps_delta, batch_tokens_delta IS NOT NULL) AS steps_with_tokens,
        sum(inferences_delta) AS inferences,
        sum(executions_delta) AS executions
    FROM engine_samples FINAL
    WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:samples*/
    GROUP BY slot, name_of_instance, name_of_model, dp_rank
)
SELECT
    slot,
    name_of_model AS model,
    name_of_instance AS instance,
    grouping(slot) AS no_slot,
    grouping(name_of_model) AS no_model,
    grouping(name_of_instance) AS no_instance,
    sum(samples) AS samples,
    groupUniqArrayArray(10)(engines_seen) AS engines,
    groupUniqArrayArray(100)(deployments_seen) AS deployments,
    groupUniqArray(1000)(name_of_instance) AS instances,
    sum(running_mean) AS running,
    sum(waiting_mean) AS waiting,
    max(waiting_most) AS waiting_peak,
    sum(waiting_most) AS waiting_peaks,
    avg(kv_mean) AS kv_average,
    max(kv_most) AS kv_peak,
    sum(kv_full_seconds) AS kv_full_seconds,
    sum(preemptions) AS preemptions,
    sum(prompt_tokens) AS prompt_tokens,
    sum(generation_tokens) AS generation_tokens,
    sum(prefix_queries) AS prefix_queries,
    sum(prefix_hits) AS prefix_hits,
    sum(finished) AS finished,
    sum(failed) AS failed,
    sumIf(finished, name_of_instance NOT IN {covered:Array(String)}) AS finished_elsewhere,
    sumIf(failed, name_of_instance NOT IN {covered:Array(String)}) AS failed_elsewhere,
    sum(engine_steps) AS engine_steps,
    sum(batch_tokens) AS batch_tokens,
    sum(steps_with_tokens) AS steps_with_tokens,
    sum(inferences) AS inferences,
    sum(executions) AS executions
FROM series
GROUP BY GROUPING SETS (/*sets*/)
ORDER BY no_slot, slot, name_of_model, name_of_instance
