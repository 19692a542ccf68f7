-- name: in_order
-- Steps in order, each with the one before of its core: `counted_on` where the process that tells of it missed none since.
-- Where batches are told and not what they decoded, it was at least a token for each request that decodes.
SELECT * FROM (/*told_by_one*/) UNION ALL SELECT * FROM (/*told_by_several*/)

-- name: told_by_one
SELECT
    instance, recording, dp_rank, elapsed_seconds, running, waiting, deferred, kv_cache_usage_ratio, prefill_tokens,
    ifNull(decode_tokens, decode_requests) AS decoded, drafts, accepted_tokens,
    prompt_tokens, generation_tokens, finished, preemptions,
    toUnixTimestamp64Micro(time) AS done_us,
    any(done_us) OVER earlier AS before_us,
    any(assumeNotNull(running) + ifNull(waiting, 0) + ifNull(deferred, 0)) OVER earlier AS before_open,
    before_us > 0 AND any(pid) OVER earlier = pid AND any(counter) OVER earlier + 1 = counter AS counted_on
FROM engine_steps FINAL
WHERE time >= /*first*/ AND time < /*last*/ /*whose*/
  AND running IS NOT NULL AND instance NOT IN (/*several*/)
WINDOW earlier AS (PARTITION BY instance, model, dp_rank, recording ORDER BY time, pid, counter ROWS BETWEEN 1 PRECEDING AND 1 PRECEDING)

-- name: told_by_several
-- Of several API servers one is told what the scheduler says of a step, and each what its own requests got: what the
-- others told since the step before counts to this one.
SELECT
    instance, recording, dp_rank, elapsed_seconds, running, waiting, deferred, kv_cache_usage_ratio, prefill_tokens,
    ifNull(decode_tokens, decode_requests) AS decoded, drafts, accepted_tokens,
    prompts - ifNull(any(prompts) OVER earlier, 0) AS prompt_tokens,
    generated - ifNull(any(generated) OVER earlier, 0) AS generation_tokens,
    done - ifNull(any(done) OVER earlier, 0) AS finished,
    preempted_so_far - ifNull(any(preempted_so_far) OVER earlier, 0) AS preemptions,
    done_us,
    any(done_us) OVER earlier AS before_us,
    any(assumeNotNull(running) + ifNull(waiting, 0) + ifNull(deferred, 0)) OVER earlier AS before_open,
    before_us > 0 AND own_before > 0 AND own_before + 1 = counter AS counted_on
FROM
(
    SELECT
        instance, model, recording, dp_rank, elapsed_seconds, running, waiting, deferred, kv_cache_usage_ratio,
        prefill_tokens, decode_tokens, decode_requests, drafts, accepted_tokens, time, pid, counter,
        toUnixTimestamp64Micro(time) AS done_us,
        any(counter) OVER own AS own_before,
        sum(prompt_tokens) OVER so_far AS prompts,
        sum(generation_tokens) OVER so_far AS generated,
        sum(finished) OVER so_far AS done,
        sum(preemptions) OVER so_far AS preempted_so_far
    FROM engine_steps FINAL
    WHERE time >= /*first*/ AND time < /*last*/ /*whose*/
      AND instance IN (/*several*/)
    WINDOW
        own AS (PARTITION BY instance, model, dp_rank, recording, pid ORDER BY time, counter ROWS BETWEEN 1 PRECEDING AND 1 PRECEDING),
        so_far AS (PARTITION BY instance, model, dp_rank, recording ORDER BY time, pid, counter ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
)
WHERE running IS NOT NULL
WINDOW earlier AS (PARTITION BY instance, model, dp_rank, recording ORDER BY time, pid, counter ROWS BETWEEN 1 PRECEDING AND 1 PRECEDING)

-- name: several
-- Those of which a process told of steps without what the scheduler says of them: another one was told that.
SELECT instance
FROM engine_steps_1s
WHERE time > /*first*/ - INTERVAL 1 SECOND AND time < /*last*/
GROUP BY instance
HAVING sum(rows) > sum(steps)
