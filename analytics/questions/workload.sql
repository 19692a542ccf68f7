-- name: endings
-- Reasons are whatever servers say: beyond the commonest few they are one.
WITH commonest AS
(
    SELECT /*ending*/ AS ending
    FROM requests
    WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:requests*/
    GROUP BY ending
    ORDER BY sum(weight) DESC, ending
    LIMIT {most:UInt32}
)
SELECT
    intDiv(toUnixTimestamp64Milli(time), {step_ms:Int64}) AS slot,
    if(/*ending*/ IN (SELECT ending FROM commonest), /*ending*/, 'other') AS name,
    sum(weight) AS n
FROM requests
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:requests*/
GROUP BY slot, name
ORDER BY slot, name

-- name: ways
SELECT
    route AS route_of,
    status AS status_of,
    sum(weight) AS n,
    sumIf(e2e_seconds * weight, e2e_seconds > 0) / nullIf(sumIf(weight, e2e_seconds > 0), 0) AS e2e
FROM requests
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:requests*/
GROUP BY route_of, status_of
ORDER BY n DESC, route_of, status_of
LIMIT {most:UInt32}

-- name: lengths
SELECT
    /*prompt*/ AS prompt_percentiles,
    /*answer*/ AS answer_percentiles,
    max(prompt_tokens) AS prompt_most,
    max(completion_tokens) AS answer_most
FROM requests
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:requests*/

-- name: sizes
-- By powers of two: 0 is one token, 1 two and three, and so on.
SELECT 'prompt' AS name, toUInt8(floor(log2(prompt_tokens))) AS power, sum(weight) AS n
FROM requests
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:requests*/
  AND prompt_tokens > 0
GROUP BY power
UNION ALL
SELECT 'answer' AS name, toUInt8(floor(log2(completion_tokens))) AS power, sum(weight) AS n
FROM requests
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:requests*/
  AND completion_tokens > 0
GROUP BY power
