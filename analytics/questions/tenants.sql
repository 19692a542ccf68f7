-- name: shares
SELECT
    tenant AS name,
    sum(weight) AS n,
    sumIf(weight, outcome IN {bad:Array(String)}) AS errors,
    sumIf(weight, outcome IN {forgiven:Array(String)}) AS forgiven_n,
    sum(prompt_tokens * weight) AS prompt,
    sum(cached_tokens * weight) AS cached,
    sum(completion_tokens * weight) AS generated,
    sum((toFloat64(prefill_seconds) + decode_seconds + compute_input_seconds + compute_infer_seconds + compute_output_seconds) * weight) AS engine_seconds,
    /*ttft_p99*/ AS ttft_p99,
    /*e2e_p99*/ AS e2e_p99,
    /*queue_p99*/ AS queue_p99,
    count() OVER () AS tenants_total,
    sum(n) OVER () AS n_total,
    sum(prompt + generated) OVER () AS tokens_total
FROM requests
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({settled_ms:Int64}) /*filter:requests*/
GROUP BY name
ORDER BY n DESC, name
LIMIT {limit:UInt32}
