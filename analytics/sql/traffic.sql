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

-- name: census
-- Who asked whom and how it ended: one pass that outcomes, a model's servers and the list of instances all read. Sets of
-- names beside sums, once per grouping set, cost as much as everything else together.
SELECT
    model AS name_of_model,
    engine AS name_of_engine,
    deployment AS name_of_deployment,
    instance AS name_of_instance,
    region AS name_of_region,
    version AS name_of_version,
    dp_rank AS rank_name,
    recording AS recorded,
    outcome AS ended,
    sum(weight) AS n,
    toUnixTimestamp64Milli(max(time)) AS newest_ms
FROM requests
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:requests*/
GROUP BY name_of_model, name_of_engine, name_of_deployment, name_of_instance, name_of_region, name_of_version, rank_name, recorded, ended
ORDER BY n DESC, ended
LIMIT 100000

-- name: instances_samples
WITH series AS
(
    SELECT
        instance AS name,
        recording AS recorded,
        model AS model_name,
        dp_rank AS rank_name,
        max(time) AS newest,
        argMax(up, time) AS last_up,
        argMax(deployment, time) AS last_deployment,
        argMax(engine, time) AS last_engine,
        argMax(region, time) AS last_region,
        argMax(version, time) AS last_version,
        argMax(tuple(running), time).1 AS last_running,
        argMax(tuple(waiting), time).1 AS last_waiting,
        argMax(tuple(kv_cache_usage_ratio), time).1 AS last_kv,
        sum(up) AS ups,
        count() AS samples,
        sum(scrape_seconds) AS scrapes
    FROM engine_samples FINAL
    WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:samples*/
    GROUP BY name, recorded, model_name, rank_name
)
SELECT
    name,
    recorded,
    groupUniqArray(1000)(model_name) AS models,
    groupUniqArray(1000)(rank_name) AS ranks,
    toUnixTimestamp64Milli(max(newest)) AS newest_ms,
    argMax(last_up, newest) AS is_up,
    argMax(last_deployment, newest) AS deployment,
    argMax(last_engine, newest) AS engine,
    argMax(last_region, newest) AS region,
    argMax(last_version, newest) AS version,
    sum(last_running) AS running,
    sum(last_waiting) AS waiting,
    max(last_kv) AS kv,
    sum(ups) / sum(samples) AS up_ratio,
    sum(scrapes) / sum(samples) AS scrape_seconds,
    sum(samples) AS n
FROM series
GROUP BY name, recorded
ORDER BY name, recorded

-- name: choices
-- Of a long window, rows older than the last hour speak through the rollup; the rows that it does not hold, engines'
-- halves without an edge, mostly have samples.
SELECT
    'rows' AS part,
    groupUniqArray(500)(model) AS models,
    groupUniqArray(500)(tenant) AS tenants,
    groupUniqArray(500)(instance) AS instances,
    groupUniqArray(500)(deployment) AS deployments,
    groupUniqArray(500)(engine) AS engines,
    groupUniqArray(500)(region) AS regions,
    groupUniqArray(500)(version) AS versions,
    groupUniqArray(500)(recording) AS recordings,
    groupUniqArray(500)(outcome) AS outcomes,
    count() AS n,
    toUnixTimestamp64Milli(max(time)) AS newest
FROM requests
WHERE time >= fromUnixTimestamp64Milli({rows_from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:requests*/
UNION ALL
SELECT
    'rows',
    groupUniqArray(500)(model),
    groupUniqArray(500)(tenant),
    groupUniqArray(500)(instance),
    groupUniqArray(500)(deployment),
    groupUniqArray(500)(engine),
    groupUniqArray(500)(region),
    groupUniqArray(500)(version),
    groupUniqArray(500)(recording),
    groupUniqArray(500)(outcome),
    sum(count),
    toInt64(toUnixTimestamp(max(time))) * 1000
FROM requests_1m
WHERE time >= toStartOfMinute(fromUnixTimestamp64Milli({from_ms:Int64})) AND time < fromUnixTimestamp64Milli({rows_from_ms:Int64}) /*filter:rollup*/
UNION ALL
SELECT
    'samples',
    groupUniqArray(500)(model),
    [],
    groupUniqArray(500)(instance),
    groupUniqArray(500)(deployment),
    groupUniqArray(500)(engine),
    groupUniqArray(500)(region),
    groupUniqArray(500)(version),
    groupUniqArray(500)(recording),
    [],
    count(),
    toUnixTimestamp64Milli(max(time))
FROM engine_samples
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:samples*/
