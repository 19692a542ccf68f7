-- name: overview_rows
-- Of a window or a model there are two rows: of what arrived before the settled edge, and of what came after it.
SELECT
    slot,
    name,
    is_settled,
    grouping(slot) AS no_slot,
    grouping(name) AS no_name,
    sum(weight) AS n,
    sumIf(weight, outcome IN {bad:Array(String)}) AS bad,
    -- 0 is also what a model leaves that knows no tokens, a preemption nobody tells of
    nullIf(sum(prompt_tokens * weight), 0) AS prompt,
    nullIf(sum(completion_tokens * weight), 0) AS generated,
    countIf(has_ttft) AS ttft_rows,
    countIf(has_e2e) AS e2e_rows,
    /*ttft_quantiles*/ AS ttft_q,
    /*e2e_quantiles*/ AS e2e_q,
    sumIf(e2e * weight, has_e2e) / sumIf(weight, has_e2e) AS e2e_mean,
    nullIf(sum(preemptions * weight), 0) AS preempted
FROM
(
    SELECT
        intDiv(toUnixTimestamp64Milli(time), {step_ms:Int64}) AS slot,
        model AS name,
        time < fromUnixTimestamp64Milli({settled_ms:Int64}) AS is_settled,
        weight, outcome, prompt_tokens, completion_tokens, preemptions,
        /*ttft_value*/ AS ttft,
        /*e2e_value*/ AS e2e,
        /*ttft_present*/ AS has_ttft,
        /*e2e_present*/ AS has_e2e
    FROM requests
    WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:requests*/
)
GROUP BY GROUPING SETS ((slot), (name, is_settled), (is_settled))
ORDER BY no_slot, is_settled DESC, slot, n DESC
