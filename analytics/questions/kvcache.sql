-- name: cached_rows
-- Steps in which nobody counted a prompt's tokens are left out: what reads no tokens has no rate of them.
SELECT
    intDiv(toUnixTimestamp64Milli(time), {step_ms:Int64}) AS slot,
    sum(prompt_tokens * weight) AS prompt,
    sum(cached_tokens * weight) AS cached
FROM requests
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:requests*/
GROUP BY slot
HAVING prompt > 0
ORDER BY slot
