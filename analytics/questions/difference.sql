-- Selected requests and the baseline that they are compared with, by each value of each column of names; the most frequent
-- values of a column among the selected ones. A request that does not tell a column counts in none of its shares.
-- name: names
SELECT
  pair.1 AS column,
  pair.2 AS value,
  toUInt64(sum(weight * is_selected)) AS selected,
  toUInt64(sum(weight * (1 - is_selected))) AS baseline,
  sum(selected) OVER (PARTITION BY column) AS of_selected,
  sum(baseline) OVER (PARTITION BY column) AS of_baseline,
  -- the same for the very same requests, whatever their order
  groupBitXor(cityHash64(key)) AS requests
FROM
(
  SELECT
    weight,
    key,
    toUInt8(/*selected*/) AS is_selected,
    arrayJoin([/*pairs*/]) AS pair
  FROM requests
  WHERE time >= fromUnixTimestamp64Milli({first_ms:Int64}) AND time < fromUnixTimestamp64Milli({settled_ms:Int64})
    AND operation != '' /*universe*/
)
WHERE value != ''
GROUP BY column, value
ORDER BY selected DESC, value
LIMIT {values:UInt32} BY column;

-- How many requests are selected, and how many are not.
-- name: sizes
SELECT
  toUInt64(sum(weight * is_selected)) AS selected,
  toUInt64(sum(weight * (1 - is_selected))) AS baseline
FROM
(
  SELECT weight, toUInt8(/*selected*/) AS is_selected
  FROM requests
  WHERE time >= fromUnixTimestamp64Milli({first_ms:Int64}) AND time < fromUnixTimestamp64Milli({settled_ms:Int64})
    AND operation != '' /*universe*/
);

-- Columns of numbers of as many requests of either kind as asked for, the same ones at each asking. What is 0 and
-- unknown is the same in a row: a column counts where any of its requests tells it.
-- name: numbers
SELECT
  is_selected,
  prompt_tokens,
  toInt64(prompt_tokens) - toInt64(cached_tokens) AS uncached_prompt_tokens,
  cached_tokens,
  completion_tokens,
  request_bytes,
  response_bytes,
  preemptions
FROM
(
  SELECT
    toUInt8(/*selected*/) AS is_selected, key, prompt_tokens, cached_tokens, completion_tokens, request_bytes,
    response_bytes, preemptions
  FROM requests
  WHERE time >= fromUnixTimestamp64Milli({first_ms:Int64}) AND time < fromUnixTimestamp64Milli({settled_ms:Int64})
    AND operation != '' /*universe*/
)
ORDER BY cityHash64(key)
LIMIT {sample:UInt32} BY is_selected;
