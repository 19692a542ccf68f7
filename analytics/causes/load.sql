-- name: count
-- By deployment and by how many whole steps before the window they arrived; 0 is the window.
SELECT
    toString(deployment) AS deployed,
    if(time < fromUnixTimestamp64Milli({from_ms:Int64}), 1 + intDiv({from_ms:Int64} - toUnixTimestamp64Milli(time), {step_ms:Int64}), 0) AS back,
    count() AS n
FROM requests
WHERE time >= fromUnixTimestamp64Milli({reference_ms:Int64}) AND time < fromUnixTimestamp64Milli({settled_ms:Int64}) /*period*/
  AND operation != ''
GROUP BY deployed, back
ORDER BY deployed, back

-- name: rows
-- All requests of reference period and window, whoever asks: others' work is what some waited for.
SELECT
    at_ms,
    key,
    selected,
    edge_s,
    transit_s,
    frontend_s,
    queue_s,
    stall_s,
    prefill_s,
    decode_s,
    compute_input_s,
    compute_infer_s,
    compute_output_s,
    e2e_s,
    ttft_s,
    gap_max_s,
    prompt,
    cached,
    output,
    preempted,
    has_engine,
    toLowCardinality(toString(instance)) AS instance,
    toLowCardinality(toString(deployment)) AS deployment,
    toLowCardinality(toString(tenant)) AS tenant,
    toLowCardinality(toString(model)) AS model,
    toLowCardinality(toString(route)) AS route,
    toLowCardinality(toString(version)) AS version,
    toLowCardinality(toString(engine)) AS engine,
    toLowCardinality(toString(outcome)) AS outcome,
    toLowCardinality(toString(error)) AS error
FROM
(
    SELECT
        toUnixTimestamp64Milli(time) AS at_ms,
        key,
        toUInt8(1 /*filter:requests*/) AS selected,
        edge_seconds AS edge_s,
        transit_seconds AS transit_s,
        frontend_seconds AS frontend_s,
        queue_seconds AS queue_s,
        stall_seconds AS stall_s,
        prefill_seconds AS prefill_s,
        decode_seconds AS decode_s,
        compute_input_seconds AS compute_input_s,
        compute_infer_seconds AS compute_infer_s,
        compute_output_seconds AS compute_output_s,
        e2e_seconds AS e2e_s,
        if(ttft_seconds > 0, ttft_seconds, engine_ttft_seconds) AS ttft_s,
        itl_max_seconds AS gap_max_s,
        prompt_tokens AS prompt,
        cached_tokens AS cached,
        completion_tokens AS output,
        preemptions AS preempted,
        has_engine, instance, deployment, tenant, model, route, version, engine, outcome,
        error_type AS error
    FROM requests
    WHERE time >= fromUnixTimestamp64Milli({reference_ms:Int64}) AND time < fromUnixTimestamp64Milli({until_ms:Int64}) /*period*/
      AND operation != '' AND operation != 'realtime' /*only*/
      AND ({stride:UInt32} = 1 OR modulo(cityHash64(key), {stride:UInt32}) = 0)
)

-- name: driving
-- Ids of requests by their keys, which are found in few columns.
SELECT key, request_id, response_id, trace_id
FROM requests
WHERE time >= fromUnixTimestamp64Milli({since_ms:Int64}) AND time < fromUnixTimestamp64Milli({until_ms:Int64})
  AND operation != '' AND (time, key) IN
(
    SELECT time, key
    FROM requests_t
    WHERE time >= fromUnixTimestamp64Milli({since_ms:Int64}) AND time < fromUnixTimestamp64Milli({until_ms:Int64})
      AND has({keys:Array(UInt64)}, key)
)

-- name: finishers
-- What servers' pages say of the requests that finished between two samples: how many, and their seconds and tokens in
-- sum. A router's requests are its servers'. One row of arrays.
SELECT
    groupArray(at_ms) AS at_ms,
    groupArray(selected) AS selected,
    groupArray(interval_s) AS interval,
    groupArray(if(h.observed > 0, toFloat64(h.observed), finished)) AS n,
    groupArray(e2e_s) AS e2e_s,
    groupArray(queue_s) AS queue_s,
    groupArray(prefill_s) AS prefill_s,
    groupArray(decode_s) AS decode_s,
    groupArray(compute_input_s) AS compute_input_s,
    groupArray(compute_infer_s) AS compute_infer_s,
    groupArray(compute_output_s) AS compute_output_s,
    groupArray(waiting_s) AS waiting_s,
    groupArray(running_s) AS running_s,
    groupArray(asked) AS asked,
    groupArray(hits) AS hits,
    groupArray(if(h.firsts > 0, h.first_sum / h.firsts, nan)) AS first,
    groupArray(if(h.prompts > 0, h.prompt_sum / h.prompts, nan)) AS prompt,
    groupArray(if(h.outputs > 0, h.output_sum / h.outputs, nan)) AS output,
    groupArray(s.instance) AS instance,
    groupArray(deployment) AS deployment,
    groupArray(s.model) AS model,
    groupArray(version) AS version,
    groupArray(engine) AS engine
FROM
(
    SELECT
        intDiv(toUnixTimestamp64Milli(time), {sample_ms:Int64}) AS slot,
        instance, deployment, model, version, engine,
        max(toUnixTimestamp64Milli(time)) AS at_ms,
        max(toUInt8(1 /*filter:samples*/)) AS selected,
        toFloat64(sum(interval_seconds) / uniqExact(dp_rank)) AS interval_s,
        ifNull(sum(requests_finished_delta), 0) AS finished,
        ifNull(sum(request_seconds_delta), nan) AS e2e_s,
        ifNull(sum(queue_seconds_delta), nan) AS queue_s,
        ifNull(sum(prefill_seconds_delta), nan) AS prefill_s,
        ifNull(sum(decode_seconds_delta), nan) AS decode_s,
        ifNull(sum(compute_input_seconds_delta), nan) AS compute_input_s,
        ifNull(sum(compute_infer_seconds_delta), nan) AS compute_infer_s,
        ifNull(sum(compute_output_seconds_delta), nan) AS compute_output_s,
        ifNull(toFloat64(sum(waiting * interval_seconds)), nan) AS waiting_s,
        ifNull(toFloat64(sum(running * interval_seconds)), nan) AS running_s,
        ifNull(sum(prefix_cache_queries_delta), nan) AS asked,
        ifNull(sum(prefix_cache_hits_delta), nan) AS hits
    FROM engine_samples FINAL
    WHERE time >= fromUnixTimestamp64Milli({reference_ms:Int64}) AND time < fromUnixTimestamp64Milli({until_ms:Int64}) /*period*/
      AND NOT /*router*/
    GROUP BY slot, instance, deployment, model, version, engine
) AS s
LEFT JOIN
(
    SELECT
        intDiv(toUnixTimestamp64Milli(time), {sample_ms:Int64}) AS slot,
        instance,
        model,
        sumIf(count, signal = 'e2e_seconds') AS observed,
        sumIf(count, signal = 'ttft_seconds') AS firsts,
        sumIf(sum, signal = 'ttft_seconds') AS first_sum,
        sumIf(count, signal = 'prompt_tokens') AS prompts,
        sumIf(sum, signal = 'prompt_tokens') AS prompt_sum,
        sumIf(count, signal = 'completion_tokens') AS outputs,
        sumIf(sum, signal = 'completion_tokens') AS output_sum
    FROM engine_histograms FINAL
    WHERE time >= fromUnixTimestamp64Milli({reference_ms:Int64}) AND time < fromUnixTimestamp64Milli({until_ms:Int64}) /*period*/
      AND signal IN ('e2e_seconds', 'ttft_seconds', 'prompt_tokens', 'completion_tokens')
    GROUP BY slot, instance, model
) AS h ON s.slot = h.slot AND s.instance = h.instance AND s.model = h.model

-- name: samples
SELECT
    at_ms,
    toLowCardinality(toString(instance)) AS name,
    interval_s AS interval,
    up_now AS up,
    running_now AS running,
    waiting_now AS waiting,
    kv_now AS kv,
    preempted AS preemptions,
    moved AS progress,
    took_now AS took,
    asked_ms,
    toLowCardinality(toString(deployed)) AS deployment,
    generated_now AS generated,
    drafts_now AS drafts,
    accepted_now AS accepted,
    length_now AS acceptance_length,
    transfers_now AS transfers,
    transferred_s AS transfer_s,
    adapters_now AS adapters_running,
    held_back_now AS adapters_held_back,
    slots_now AS adapter_slots,
    deferred_now AS deferred,
    capacity_now AS capacity
FROM
(
    SELECT
        intDiv(toUnixTimestamp64Milli(time), {slot_ms:Int64}) * {slot_ms:Int64} AS slot,
        instance,
        max(toUnixTimestamp64Milli(time)) AS at_ms,
        sum(interval_seconds) / uniqExact(model, dp_rank) AS interval_s,
        min(up) AS up_now,
        ifNull(toFloat64(sum(running) / count(DISTINCT time)), nan) AS running_now,
        ifNull(toFloat64(sum(waiting) / count(DISTINCT time)), nan) AS waiting_now,
        ifNull(toFloat64(max(kv_cache_usage_ratio)), nan) AS kv_now,
        ifNull(sum(preemptions_delta), nan) AS preempted,
        -- unknown where the server counts none of these
        if(count(generation_tokens_delta) + count(inferences_delta) + count(requests_finished_delta) = 0, nan,
            ifNull(sum(generation_tokens_delta), 0) + ifNull(sum(prompt_tokens_delta), 0)
            + ifNull(sum(requests_finished_delta), 0) + ifNull(sum(inferences_delta), 0)) AS moved,
        toFloat64(max(scrape_seconds)) AS took_now,
        argMax(toUnixTimestamp64Milli(time), scrape_seconds) AS asked_ms,
        any(deployment) AS deployed,
        ifNull(sum(generation_tokens_delta), nan) AS generated_now,
        -- a name that a map lacks reads as 0
        ifNull(sumOrNullIf(other_signals['spec_decode_drafts_delta'],
            mapContains(other_signals, 'spec_decode_drafts_delta')), nan) AS drafts_now,
        ifNull(sumOrNullIf(other_signals['spec_decode_accepted_tokens_delta'],
            mapContains(other_signals, 'spec_decode_accepted_tokens_delta')), nan) AS accepted_now,
        -- 0 while nothing is decoded
        avgIf(other_signals['spec_decode_acceptance_length'],
            other_signals['spec_decode_acceptance_length'] > 0) AS length_now,
        ifNull(sumOrNullIf(other_signals['kv_transfers_delta'],
            mapContains(other_signals, 'kv_transfers_delta')), nan) AS transfers_now,
        ifNull(sumOrNullIf(other_signals['kv_transfer_seconds_delta'],
            mapContains(other_signals, 'kv_transfer_seconds_delta')), nan) AS transferred_s,
        ifNull(sumOrNullIf(other_signals['lora_adapters_running'],
            mapContains(other_signals, 'lora_adapters_running')) / count(DISTINCT time), nan) AS adapters_now,
        ifNull(sumOrNullIf(other_signals['lora_adapters_held_back'],
            mapContains(other_signals, 'lora_adapters_held_back')) / count(DISTINCT time), nan) AS held_back_now,
        ifNull(sumOrNullIf(other_signals['lora_slots'],
            mapContains(other_signals, 'lora_slots')) / count(DISTINCT time), nan) AS slots_now,
        ifNull(sumOrNullIf(other_signals['waiting_deferred'],
            mapContains(other_signals, 'waiting_deferred')) / count(DISTINCT time), nan) AS deferred_now,
        ifNull(sumOrNullIf(other_signals['waiting_capacity'],
            mapContains(other_signals, 'waiting_capacity')) / count(DISTINCT time), nan) AS capacity_now
    FROM engine_samples FINAL
    WHERE time >= fromUnixTimestamp64Milli({reference_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*period*/
    GROUP BY slot, instance
    ORDER BY instance, slot
    LIMIT {limit:UInt32}
)

-- name: hosts
-- What counters of processes showed last in each slot; `minutes.rates_of` makes rates of them. The newest are taken where
-- there are too many.
SELECT
    at_ms,
    toLowCardinality(toString(instance)) AS name,
    toLowCardinality(toString(node)) AS node,
    toLowCardinality(toString(recording)) AS recording,
    toLowCardinality(toString(process_name)) AS process,
    toLowCardinality(toString(process_pid)) AS pid,
    ifNull(cpu, nan) AS cpu_s,
    ifNull(delay, nan) AS delay_s,
    ifNull(pressed, nan) AS pressure,
    ifNull(in_use, nan) AS busy,
    ifNull(cpus, nan) AS cores
FROM
(
    SELECT
        intDiv(toUnixTimestamp64Milli(time), {slot_ms:Int64}) AS slot,
        instance,
        node,
        recording,
        process_name,
        process_pid,
        max(toUnixTimestamp64Milli(time)) AS at_ms,
        argMax(cpu_seconds_total, time) AS cpu,
        argMax(cpu_delay_seconds_total, time) AS delay,
        avg(cpu_pressure_some_ratio) AS pressed,
        avg(cpu_usage_ratio) AS in_use,
        max(cores) AS cpus
    FROM host_samples FINAL
    WHERE time >= fromUnixTimestamp64Milli({reference_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*period*/
    GROUP BY slot, instance, node, recording, process_name, process_pid
    ORDER BY at_ms DESC
    LIMIT {limit:UInt32}
)

-- name: events
SELECT toUnixTimestamp64Milli(time) AS at_ms, event, instance, version, message, deployment
FROM events FINAL
WHERE time >= fromUnixTimestamp64Milli({reference_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*period*/
  AND event IN ('deploy', 'version_changed', 'config_changed', 'oom_kill', 'engine_frozen', 'instance_restarted',
                'instance_down', 'instance_up')
ORDER BY time
LIMIT 1000

-- name: whose
-- GPUs of instances: what ran on which, and what tells of itself whose it is.
SELECT gpu, instance
FROM
(
    SELECT gpu, instance
    FROM instance_gpus
    WHERE `to` >= fromUnixTimestamp64Milli({reference_ms:Int64}) AND `from` < fromUnixTimestamp64Milli({to_ms:Int64}) /*period*/
    UNION ALL
    SELECT gpu, instance
    FROM gpu_samples
    WHERE time >= fromUnixTimestamp64Milli({reference_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*period*/
      AND instance != ''
)
WHERE has({instances:Array(String)}, instance)
GROUP BY gpu, instance
ORDER BY gpu, instance
LIMIT {most:UInt32}

-- name: gpus
-- The bits of NVML's reasons that slow a GPU down are those of analytics.causes.gpus.REASONS.
SELECT
    at_ms,
    toLowCardinality(toString(gpu)) AS gpu,
    toLowCardinality(toString(product)) AS product,
    toLowCardinality(toString(place)) AS place,
    toLowCardinality(toString(machine)) AS machine,
    slowed,
    bits AS reasons,
    clock,
    xids,
    ecc,
    pending,
    failed
FROM
(
    SELECT
        intDiv(toUnixTimestamp64Milli(time), {slot_ms:Int64}) AS slot,
        gpu,
        max(toUnixTimestamp64Milli(time)) AS at_ms,
        any(gpu_name) AS product,
        any(gpu_index) AS place,
        any(node) AS machine,
        ifNull(avg(bitAnd(toUInt64(throttle_reasons), 236) != 0), nan) AS slowed,
        toFloat64(groupBitOr(bitAnd(toUInt64(ifNull(throttle_reasons, 0)), 236))) AS bits,
        ifNull(avg(sm_clock_hertz), nan) AS clock,
        ifNull(max(xid_total), nan) AS xids,
        ifNull(max(ecc_uncorrected_total), nan) AS ecc,
        ifNull(max(remapped_rows_pending), nan) AS pending,
        ifNull(max(remapped_rows_failed), nan) AS failed
    FROM gpu_samples FINAL
    WHERE time >= fromUnixTimestamp64Milli({reference_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*period*/
      AND has({gpus:Array(String)}, gpu)
    GROUP BY slot, gpu
    ORDER BY slot DESC
    LIMIT {limit:UInt32}
)

-- name: gpu_events
-- What a driver told as it happened, and GPUs that stopped answering.
SELECT toUnixTimestamp64Milli(time) AS at_ms, attributes['hw.id'] AS gpu, attributes['xid'] AS xid, message
FROM events FINAL
WHERE time >= fromUnixTimestamp64Milli({reference_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*period*/
  AND event IN ('gpu_xid', 'gpu_unavailable', 'gpu_driver_hung') AND has({gpus:Array(String)}, attributes['hw.id'])
ORDER BY time
LIMIT 1000

-- name: step_count
SELECT sum(steps) AS n
FROM engine_steps_1s
WHERE time >= fromUnixTimestamp64Milli({reference_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*period*/
  AND has({instances:Array(String)}, instance)

-- name: steps
-- Steps by slots of time. A step took the time since the one before it where requests were open then, else what it says;
-- steps that overlap count once so. Where the one before is not known, neither is a silence. One row of arrays.
SELECT
    groupArray(slot) AS slot,
    groupArray(instance) AS name,
    groupArray(steps) AS count,
    groupArray(busy) AS busy,
    groupArray(prefilled) AS prefilled,
    groupArray(decoded_now) AS decoded,
    groupArray(preempted) AS preempted,
    groupArray(waited) AS waiting,
    groupArray(kv) AS kv,
    groupArray(generated_now) AS generated,
    groupArray(drafts_now) AS drafts,
    groupArray(accepted_now) AS accepted,
    groupArray(silences) AS silences
FROM
(
    SELECT
        intDiv(done_us, 1000 * {slot_ms:Int64}) AS slot,
        instance,
        toFloat64(count()) AS steps,
        sum(took) AS busy,
        ifNull(toFloat64(sum(prefill_tokens)), nan) AS prefilled,
        ifNull(toFloat64(sum(decoded)), nan) AS decoded_now,
        toFloat64(sum(ifNull(preemptions, 0))) AS preempted,
        ifNull(toFloat64(max(waiting)), nan) AS waited,
        ifNull(toFloat64(max(kv_cache_usage_ratio)), nan) AS kv,
        ifNull(toFloat64(sum(generation_tokens)), nan) AS generated_now,
        ifNull(toFloat64(sum(drafts)), nan) AS drafts_now,
        ifNull(toFloat64(sum(accepted_tokens)), nan) AS accepted_now,
        groupArrayIf((before_us, done_us, toFloat64(ifNull(prefill_tokens, 0))), silent) AS silences
    FROM
    (
        SELECT
            *,
            counted_on AND before_open > 0 AS waited_for,
            waited_for AND done_us - before_us >= 1000000 * {silent:Float64} AS silent,
            if(waited_for, (done_us - before_us) / 1000000, toFloat64(ifNull(elapsed_seconds, 0))) AS took
        FROM (/*in_order*/)
    )
    GROUP BY slot, instance
    ORDER BY slot DESC
    LIMIT {limit:UInt32}
)

-- name: step_seconds
-- The same of steps that are too old to be kept each: sums of seconds, in which nothing tells how they followed.
SELECT
    groupArray(slot) AS slot,
    groupArray(instance) AS name,
    groupArray(counted) AS count,
    groupArray(busy) AS busy,
    groupArray(prefilled) AS prefilled,
    groupArray(decoded) AS decoded,
    groupArray(preempted) AS preempted,
    groupArray(waited) AS waiting,
    groupArray(kv) AS kv,
    groupArray(generated_now) AS generated,
    groupArray(drafts_now) AS drafts,
    groupArray(accepted_now) AS accepted,
    groupArray(CAST([] AS Array(Tuple(Int64, Int64, Float64)))) AS silences
FROM
(
    SELECT
        intDiv(toInt64(toUnixTimestamp(time)) * 1000, {slot_ms:Int64}) AS slot,
        instance,
        toFloat64(sum(steps)) AS counted,
        toFloat64(ifNull(sum(elapsed_seconds_sum), 0)) AS busy,
        ifNull(toFloat64(sum(prefill_tokens)), nan) AS prefilled,
        ifNull(toFloat64(sum(ifNull(decode_tokens, decode_requests))), nan) AS decoded,
        toFloat64(ifNull(sum(preemptions), 0)) AS preempted,
        ifNull(toFloat64(max(waiting_max)), nan) AS waited,
        ifNull(toFloat64(max(kv_cache_usage_ratio_max)), nan) AS kv,
        ifNull(toFloat64(sum(generation_tokens)), nan) AS generated_now,
        ifNull(toFloat64(sum(drafts)), nan) AS drafts_now,
        ifNull(toFloat64(sum(accepted_tokens)), nan) AS accepted_now
    FROM engine_steps_1s
    WHERE time >= fromUnixTimestamp64Milli({reference_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*period*/
      AND has({instances:Array(String)}, instance)
    GROUP BY slot, instance
    HAVING counted > 0
    ORDER BY slot DESC
    LIMIT {limit:UInt32}
)
