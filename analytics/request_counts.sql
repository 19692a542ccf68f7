-- name: request_counts
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
