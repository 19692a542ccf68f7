-- name: cached_rows
SELECT
    intDiv(toUnixTimestamp64Milli(time), {step_ms:Int64}) AS slot,
    sum(prompt_tokens * weight) AS prompt,
    sum(cached_tokens * weight) AS cached
FROM requests
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:requests*/
GROUP BY slot
ORDER BY slot
