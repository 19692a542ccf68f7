-- What the numbers were when an incident opened. Empty arrays in a filter mean "all".

-- name: requests
-- Requests count when they end: those that still wait when the incident opens are the ones that it is about.
SELECT
    sum(weight) AS requests,
    sumIf(weight, has({bad:Array(String)}, outcome)) AS failed
FROM requests
WHERE time >= fromUnixTimestamp64Milli({arrived_from:Int64}) AND time < fromUnixTimestamp64Milli({to:Int64})
  AND /*finished*/ >= fromUnixTimestamp64Milli({from:Int64})
  AND /*finished*/ < fromUnixTimestamp64Milli({to:Int64})
  AND operation != '' AND recording = ''
  AND (empty({deployments:Array(String)}) OR has({deployments:Array(String)}, deployment))
  AND (empty({instances:Array(String)}) OR has({instances:Array(String)}, instance))
  AND (empty({models:Array(String)}) OR has({models:Array(String)}, model))

-- name: tenants
SELECT tenant, sum(weight) AS requests, sum(prompt_tokens + completion_tokens) AS tokens, sum(e2e_seconds) AS seconds
FROM requests
WHERE time >= fromUnixTimestamp64Milli({arrived_from:Int64}) AND time < fromUnixTimestamp64Milli({to:Int64})
  AND /*finished*/ >= fromUnixTimestamp64Milli({from:Int64})
  AND /*finished*/ < fromUnixTimestamp64Milli({to:Int64})
  AND operation != '' AND recording = '' AND tenant != ''
  AND (empty({deployments:Array(String)}) OR has({deployments:Array(String)}, deployment))
  AND (empty({instances:Array(String)}) OR has({instances:Array(String)}, instance))
  AND (empty({models:Array(String)}) OR has({models:Array(String)}, model))
GROUP BY tenant
ORDER BY seconds DESC
LIMIT 5

-- name: samples
SELECT
    instance,
    max(running) AS running_max,
    max(waiting) AS waiting_max,
    max(kv_cache_usage_ratio) AS kv_cache_usage_ratio_max,
    sum(preemptions_delta) AS preemptions,
    argMax(version, time) AS version,
    min(up) AS up_min
FROM engine_samples
WHERE time >= fromUnixTimestamp64Milli({from:Int64}) AND time < fromUnixTimestamp64Milli({to:Int64})
  AND recording = ''
  AND (empty({deployments:Array(String)}) OR has({deployments:Array(String)}, deployment))
  AND (empty({instances:Array(String)}) OR has({instances:Array(String)}, instance))
  AND (empty({models:Array(String)}) OR has({models:Array(String)}, model))
GROUP BY instance
ORDER BY waiting_max DESC NULLS LAST, instance
LIMIT 5

-- name: events
SELECT toUnixTimestamp64Milli(time) AS at, event, message, instance, deployment, model, version
FROM events
WHERE time >= fromUnixTimestamp64Milli({from:Int64}) AND time < fromUnixTimestamp64Milli({to:Int64})
  AND recording = '' AND event != 'instance_config'
ORDER BY time DESC
LIMIT 200

-- name: acknowledgements
SELECT toUnixTimestamp64Milli(time) AS at, incident_id, attributes
FROM incident_events
WHERE kind = 'acknowledge_asked' AND incident_id IN {incidents:Array(String)}
ORDER BY time
LIMIT 1000
