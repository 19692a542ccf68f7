-- name: shares
SELECT
    /*by*/ AS name,
    sum(weight) AS n,
    sumIf(weight, outcome IN {bad:Array(String)}) AS errors,
    sumIf(weight, outcome IN {forgiven:Array(String)}) AS forgiven_n,
    sum(prompt_tokens * weight) AS prompt,
    sum(cached_tokens * weight) AS cached,
    sum(completion_tokens * weight) AS generated,
    sum(/*engine*/ * weight) AS engine_seconds,
    /*ttft*/ AS ttft,
    /*e2e*/ AS e2e,
    /*queue*/ AS queue,
    count() OVER () AS tenants_total,
    sum(n) OVER () AS n_total,
    sum(prompt) OVER () AS prompt_total,
    sum(generated) OVER () AS generated_total,
    sum(engine_seconds) OVER () AS engine_total
FROM requests
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({settled_ms:Int64}) /*filter:requests*/
GROUP BY name
ORDER BY n DESC, name
LIMIT {limit:UInt32}

-- name: heaviest
SELECT tenant AS name
FROM requests
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({settled_ms:Int64}) /*filter:requests*/
GROUP BY name
ORDER BY sum(/*engine*/ * weight) DESC, sum((prompt_tokens + completion_tokens) * weight) DESC, sum(weight) DESC, name
LIMIT {lines:UInt32}

-- name: over_time
WITH heaviest AS
(
    SELECT tenant
    FROM requests
    WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({settled_ms:Int64}) /*filter:requests*/
    GROUP BY tenant
    ORDER BY sum(/*engine*/ * weight) DESC, sum((prompt_tokens + completion_tokens) * weight) DESC, sum(weight) DESC, tenant
    LIMIT {lines:UInt32}
)
SELECT
    tenant IN heaviest AS own,
    if(own, tenant, '') AS name,
    intDiv(toUnixTimestamp64Milli(time), {step_ms:Int64}) AS slot,
    sum(weight) AS requests,
    sum((prompt_tokens + completion_tokens) * weight) AS tokens,
    sum(/*engine*/ * weight) AS engine_seconds
FROM requests
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({settled_ms:Int64}) /*filter:requests*/
GROUP BY own, name, slot
ORDER BY own DESC, name, slot
