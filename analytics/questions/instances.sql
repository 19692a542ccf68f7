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
        argMax(role, time) AS last_role,
        argMax(node, time) AS last_node,
        argMax(tuple(running), time).1 AS last_running,
        argMax(tuple(waiting), time).1 AS last_waiting,
        argMax(tuple(kv_cache_usage_ratio), time).1 AS last_kv,
        argMax(tuple(if(mapContains(other_signals, 'asleep'), other_signals['asleep'], NULL)), time).1 AS last_asleep,
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
    if(max(left_at) >= max(newest), toUnixTimestamp64Milli(max(left_at)), 0) AS left_ms,
    any(let_go_by) AS left_by,
    argMax(last_up, newest) AS is_up,
    argMax(last_deployment, newest) AS deployment,
    argMax(last_engine, newest) AS engine,
    argMax(last_region, newest) AS region,
    argMax(last_version, newest) AS version,
    argMax(last_role, newest) AS role,
    argMax(last_node, newest) AS node,
    sum(last_running) AS running,
    sum(last_waiting) AS waiting,
    max(last_kv) AS kv,
    max(last_asleep) AS asleep,
    sum(ups) / sum(samples) AS up_ratio,
    sum(scrapes) / sum(samples) AS scrape_seconds,
    sum(samples) AS n
FROM series
LEFT JOIN
(
    SELECT instance AS name, recording AS recorded, max(time) AS left_at, argMax(attributes['by'], time) AS let_go_by
    FROM events
    WHERE event = 'target_left'
      AND time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:recording*/
    GROUP BY name, recorded
) AS goodbyes USING (name, recorded)
GROUP BY name, recorded
ORDER BY name, recorded
