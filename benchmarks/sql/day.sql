-- A request's figures come from hashes of its number in time, so that both halves, made apart, agree on them.

-- name: requests_edge
INSERT INTO requests_t
(
    time, key, trace_id, request_id, tenant, model, engine, instance, deployment, version, route, stream, status,
    outcome, prompt_tokens, completion_tokens, edge_seconds, ttft_seconds, e2e_seconds, itl_mean_seconds,
    itl_p50_seconds, itl_p99_seconds, itl_max_seconds, itl_gaps, has_edge, recording
)
WITH
    intDiv({start_ms:Int64}, 1000) * {rate:UInt32} + number AS n,
    intDiv(n * 1000, {rate:UInt32}) AS ms,
    cityHash64(n) AS h,
    h % 1000 AS kind,
    (intDiv(ms, 1000) % 180) BETWEEN 60 AND 79 AS flood,
    multiIf(kind < 420, 1, kind < 840, 2, kind < 920, 3, 4) AS m,
    (cityHash64(n, 1) % 10000) / 10000 AS a,
    (cityHash64(n, 2) % 10000) / 10000 AS b,
    (cityHash64(n, 3) % 10000) / 10000 AS c,
    multiIf(m = 1, if(flood, 0.4 + 3 * a, 0.001 + 0.01 * a), m = 4, pow(a, 3) * 6, 0.0005) AS queue,
    if(m = 4, 0.02 + 0.2 * b, 0) AS prefill,
    if(m = 4, 0.2 + 2 * c, 0) AS decode,
    multiIf(m = 1, 0.008 + 0.01 * b, m = 2, 0.001 + 0.002 * b, 0) AS infer,
    if(m = 3, 0.05 + 0.6 * pow(c, 2), 0) AS chat,
    multiIf(m = 1 AND flood AND h % 17 = 0, 'rejected', h % 97 = 0, 'server_error', h % 211 = 0, 'client_abort', 'ok') AS result
SELECT
    fromUnixTimestamp64Milli(ms),
    bitOr(bitShiftLeft(toUInt64(ms), 22), h % 4194304),
    reverse(reinterpretAsString(sipHash128(n))),
    concat('req-', toString(n)),
    if(m = 1 AND flood, 'hooli', ['acme', 'acme', 'acme', 'acme', 'acme', 'globex', 'globex', 'globex', 'initech', 'initech', 'umbrella'][1 + h % 11]),
    ['vision_classifier', 'ranker', 'tiny-llama', 'tiny'][m],
    ['triton', 'triton', 'llamacpp', 'vllm'][m],
    ['triton-a', 'triton-a', 'llama-a', 'kv_exhaustion'][m],
    ['vision', 'vision', 'chat', 'kv_exhaustion'][m],
    ['2.69.0', '2.69.0', 'b9000', '0.32.0'][m],
    if(m <= 2, '/v2/models/{}/infer', '/v1/completions'),
    m >= 3,
    multiIf(result = 'rejected', 503, result = 'server_error', 500, 200),
    result,
    if(m >= 3, 20 + h % 800, 0),
    if(m >= 3 AND result IN ('ok', 'client_abort'), 8 + h % 120, 0),
    0.0002 + 0.0006 * c,
    if(result IN ('rejected', 'server_error'), 0, 0.0008 + queue + prefill + infer + chat * 0.2),
    if(result IN ('rejected', 'server_error'), 0.001, 0.0012 + queue + prefill + decode + infer + chat),
    if(m >= 3, 0.005 + 0.01 * c, 0),
    if(m >= 3, 0.004 + 0.01 * c, 0),
    if(m >= 3, 0.02 + 0.05 * c, 0),
    if(m >= 3, 0.04 + 0.2 * c, 0),
    if(m >= 3, 7 + h % 120, 0),
    1,
    if(m = 4, 'kv_exhaustion', '')
FROM numbers({seconds:UInt64} * {rate:UInt32})

-- name: requests_engine
INSERT INTO requests_t
(
    time, key, trace_id, engine_request_id, engine_model, engine, engine_instance, engine_deployment, engine_version,
    engine_outcome, finish_reason, prompt_tokens, cached_tokens, completion_tokens, queue_seconds, prefill_seconds,
    decode_seconds, stall_seconds, compute_input_seconds, compute_infer_seconds, compute_output_seconds,
    engine_ttft_seconds, engine_e2e_seconds, has_engine, recording
)
WITH
    intDiv({start_ms:Int64}, 1000) * {rate:UInt32} + number AS n,
    intDiv(n * 1000, {rate:UInt32}) AS ms,
    cityHash64(n) AS h,
    h % 1000 AS kind,
    (intDiv(ms, 1000) % 180) BETWEEN 60 AND 79 AS flood,
    multiIf(kind < 420, 1, kind < 840, 2, kind < 920, 3, 4) AS m,
    (cityHash64(n, 1) % 10000) / 10000 AS a,
    (cityHash64(n, 2) % 10000) / 10000 AS b,
    (cityHash64(n, 3) % 10000) / 10000 AS c,
    multiIf(m = 1, if(flood, 0.4 + 3 * a, 0.001 + 0.01 * a), m = 4, pow(a, 3) * 6, 0.0005) AS queue,
    if(m = 4, 0.02 + 0.2 * b, 0) AS prefill,
    if(m = 4, 0.2 + 2 * c, 0) AS decode,
    multiIf(m = 1, 0.008 + 0.01 * b, m = 2, 0.001 + 0.002 * b, 0) AS infer,
    (m = 1 AND flood AND h % 17 = 0) OR h % 97 = 0 AS failed
SELECT
    fromUnixTimestamp64Milli(ms),
    bitOr(bitShiftLeft(toUInt64(ms), 22), h % 4194304),
    reverse(reinterpretAsString(sipHash128(n))),
    concat('cmpl-', toString(n)),
    ['vision_classifier', 'ranker', 'tiny-llama', 'tiny'][m],
    ['triton', 'triton', 'llamacpp', 'vllm'][m],
    ['triton-a', 'triton-a', 'llama-a', 'kv_exhaustion'][m],
    ['vision', 'vision', 'chat', 'kv_exhaustion'][m],
    ['2.69.0', '2.69.0', 'b9000', '0.32.0'][m],
    if(failed, 'server_error', 'ok'),
    if(m = 4, 'length', ''),
    if(m = 4, 20 + h % 800, 0),
    if(m = 4, h % 300, 0),
    if(m = 4, 8 + h % 120, 0),
    queue,
    prefill,
    decode,
    0,
    if(m <= 2, 0.0003 * b, 0),
    infer,
    if(m <= 2, 0.0002 * b, 0),
    if(m = 4, queue + prefill, 0),
    queue + prefill + decode + infer,
    1,
    if(m = 4, 'kv_exhaustion', '')
FROM numbers({seconds:UInt64} * {rate:UInt32})
WHERE m != 3 AND NOT failed

-- name: samples
INSERT INTO engine_samples
(
    time, instance, deployment, engine, model, dp_rank, version, recording, up, scrape_seconds, interval_seconds,
    running, waiting, kv_cache_usage_ratio, preemptions_delta, prompt_tokens_delta, generation_tokens_delta,
    prefix_cache_queries_delta, prefix_cache_hits_delta, requests_finished_delta, requests_failed_delta,
    engine_steps_delta, batch_tokens_delta, inferences_delta, executions_delta, request_seconds_delta,
    queue_seconds_delta, prefill_seconds_delta, decode_seconds_delta, compute_infer_seconds_delta
)
WITH
    1 + number % 4 AS m,
    intDiv({start_ms:Int64}, 1000) + intDiv(number, 4) AS s,
    cityHash64(s, m) AS h,
    (s % 180) BETWEEN 60 AND 79 AS flood
SELECT
    fromUnixTimestamp64Milli(s * 1000 + 137),
    ['triton-a', 'triton-a', 'llama-a', 'kv_exhaustion'][m],
    ['vision', 'vision', 'chat', 'kv_exhaustion'][m],
    ['triton', 'triton', 'llamacpp', 'vllm'][m],
    ['vision_classifier', 'ranker', 'tiny-llama', 'tiny'][m],
    if(m = 4, '0', ''),
    ['2.69.0', '2.69.0', 'b9000', '0.32.0'][m],
    if(m = 4, 'kv_exhaustion', ''),
    1,
    0.002 + (h % 100) / 50000,
    1,
    h % 8,
    if(m = 1 AND flood, 30 + h % 60, if(m = 4, h % 6, 0)),
    if(m = 4, (h % 1000) / 1000, NULL),
    if(m = 4, (h % 5 = 0) * 2, NULL),
    if(m >= 3, h % 900, NULL),
    if(m >= 3, h % 300, NULL),
    if(m = 4, 400, NULL),
    if(m = 4, h % 400, NULL),
    h % 9,
    if(m <= 2, h % 40 = 0, NULL),
    if(m = 4, 20 + h % 10, NULL),
    if(m = 4, 200 + h % 500, NULL),
    if(m <= 2, 8 + h % 8, NULL),
    if(m <= 2, 1 + h % 8, NULL),
    if(m != 3, (h % 9) * 0.1, NULL),
    if(m != 3, (h % 9) * 0.02, NULL),
    if(m >= 3, (h % 9) * 0.01, NULL),
    if(m >= 3, (h % 9) * 0.05, NULL),
    if(m <= 2, (h % 9) * 0.01, NULL)
FROM numbers({seconds:UInt64} * 4)

-- name: histograms
INSERT INTO engine_histograms
(time, instance, deployment, engine, model, dp_rank, version, recording, signal, count, sum, bounds, counts)
WITH
    intDiv({start_ms:Int64}, 1000) + intDiv(number, 6) AS s,
    ['e2e_seconds', 'ttft_seconds', 'queue_seconds', 'prefill_seconds', 'decode_seconds', 'itl_seconds'][1 + number % 6] AS name,
    [0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60] AS edges,
    1 + cityHash64(s, number % 6) % 18 AS place
SELECT
    fromUnixTimestamp64Milli(s * 1000 + 137),
    'kv_exhaustion', 'kv_exhaustion', 'vllm', 'tiny', '0', '0.32.0', 'kv_exhaustion',
    name,
    2,
    edges[place] * 1.8,
    edges,
    arrayMap(i -> if(i = place, 2, 0), range(1, 20))
FROM numbers({seconds:UInt64} * 6)

-- name: events
INSERT INTO events (time, event, message, instance, deployment, engine)
SELECT
    fromUnixTimestamp64Milli({start_ms:Int64} + number * 3600000 + 60000),
    'deploy', 'Version 2.69.0 goes to triton-a', 'triton-a', 'vision', 'triton'
FROM numbers(intDiv({seconds:UInt64}, 3600))

-- name: incidents
INSERT INTO incidents (id, opened_at, updated_at, resolved_at, state, severity, title, summary, labels, owner, version)
WITH fromUnixTimestamp64Milli({start_ms:Int64} + number * 180000 + 65000) AS opened
SELECT
    concat('day-', leftPad(toString(number), 6, '0')),
    opened,
    opened + INTERVAL 40 SECOND,
    opened + INTERVAL 40 SECOND,
    'resolved', 'critical',
    'waiting 56 on triton-a, model vision_classifier, limit 20, for 5 s',
    'waiting 56 on triton-a',
    map('deployment', 'vision', 'model', 'vision_classifier'),
    '',
    3
FROM numbers(intDiv({seconds:UInt64}, 180))

-- name: transitions
INSERT INTO alert_transitions (time, rule, labels, state, value, threshold, reason, incident_id)
SELECT
    fromUnixTimestamp64Milli({start_ms:Int64} + intDiv(number, 3) * 180000 + 62000 + (number % 3) * 3000),
    'engine-waiting',
    map('deployment', 'vision', 'model', 'vision_classifier'),
    ['pending', 'firing', 'resolved'][1 + number % 3],
    56, 20,
    'waiting 56 on triton-a, limit 20',
    concat('day-', leftPad(toString(intDiv(number, 3)), 6, '0'))
FROM numbers(intDiv({seconds:UInt64}, 180) * 3)

-- name: last_incident
INSERT INTO incidents (id, opened_at, updated_at, resolved_at, state, severity, title, summary, labels, owner, version)
WITH fromUnixTimestamp64Milli({start_ms:Int64} + {seconds:UInt64} * 1000 - 200000) AS opened
SELECT
    'day-open', opened, opened, NULL, 'open', 'critical',
    'waiting 61 on triton-a, model vision_classifier, limit 20, for 9 s',
    'waiting 61 on triton-a', map('deployment', 'vision', 'model', 'vision_classifier'), '', 1
