-- What a pager without a journal takes up. A newer resolution wins over an older firing.

-- name: alerts
SELECT
    rule,
    labels,
    argMax(state, time) AS last_state,
    argMax(incident_id, time) AS incident_id,
    argMax(reason, time) AS reason,
    argMax(value, time) AS value,
    argMax(threshold, time) AS threshold,
    toUnixTimestamp64Milli(max(time)) AS at
FROM alert_transitions
WHERE state != 'pending' AND time > now() - INTERVAL 400 DAY
GROUP BY rule, labels
LIMIT 100000

-- name: incidents
SELECT
    id,
    toUnixTimestamp64Milli(opened_at) AS opened,
    toUnixTimestamp64Milli(updated_at) AS updated,
    state,
    severity,
    title,
    summary,
    labels,
    owner,
    version
FROM incidents FINAL
WHERE state != 'resolved'
ORDER BY opened_at
LIMIT 10000

-- name: notifications
SELECT
    id,
    toUnixTimestamp64Milli(time) AS at,
    incident_id,
    notifier,
    action,
    dedup_key,
    status,
    attempts,
    last_error,
    destination,
    payload,
    toUnixTimestamp64Milli(sent_at) AS sent,
    version
FROM notifications FINAL
WHERE incident_id IN {incidents:Array(String)}
ORDER BY at, id
LIMIT 100000
