-- name: routers
-- A page is one instant of a router: what its models tell is added up first, and instants are averaged. A counter that a
-- router does not show is NULL, never 0.
SELECT
    name,
    recorded,
    count() AS instants,
    toUnixTimestamp64Milli(max(at)) AS newest_ms,
    argMaxIf(engine_of, at, engine_of != '') AS engine,
    argMaxIf(deployment_of, at, deployment_of != '') AS deployment,
    argMaxIf(version_of, at, version_of != '') AS version,
    sum(seconds) AS covered,
    sum(received_now) AS received,
    sum(ended_now) AS ended,
    sum(judged_now) AS judged,
    sum(failed_now) AS failed,
    avg(running_now) AS running,
    avg(waiting_now) AS waiting,
    max(waiting_now) AS waiting_most,
    avg(prefill_now) AS in_prefill,
    avg(decode_now) AS in_decode,
    argMaxIf(healthy_now, at, healthy_now IS NOT NULL) AS healthy
FROM
(
    SELECT
        instance AS name,
        recording AS recorded,
        time AS at,
        any(engine) AS engine_of,
        any(deployment) AS deployment_of,
        any(version) AS version_of,
        maxIf(interval_seconds, up = 1) AS seconds,
        sumOrNullIf(other_signals['requests_received_delta'], mapContains(other_signals, 'requests_received_delta')) AS received_now,
        sum(/*ended_requests*/) AS ended_now,
        sum(/*judged_requests*/) AS judged_now,
        sum(/*failed_requests*/) AS failed_now,
        sum(running) AS running_now,
        sum(waiting) AS waiting_now,
        sumOrNullIf(other_signals['requests_in_prefill'], mapContains(other_signals, 'requests_in_prefill')) AS prefill_now,
        sumOrNullIf(other_signals['requests_in_decode'], mapContains(other_signals, 'requests_in_decode')) AS decode_now,
        sumOrNullIf(other_signals['endpoints_healthy'], mapContains(other_signals, 'endpoints_healthy')) AS healthy_now
    FROM engine_samples FINAL
    WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:samples*/
      AND (role = 'router' OR /*router*/)
    GROUP BY name, recorded, at
)
GROUP BY name, recorded
ORDER BY name, recorded

-- name: routers_times
SELECT
    instance AS name,
    recording AS recorded,
    sumIf(sum, signal = 'queue_seconds') / nullIf(sumIf(count, signal = 'queue_seconds'), 0) AS queue_mean,
    sumIf(sum, signal = 'e2e_seconds') / nullIf(sumIf(count, signal = 'e2e_seconds'), 0) AS e2e_mean
FROM engine_histograms FINAL
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64}) /*filter:samples*/
  AND signal IN ('queue_seconds', 'e2e_seconds') AND instance IN {routers:Array(String)}
GROUP BY name, recorded
