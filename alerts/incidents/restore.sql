-- What a pager without a journal takes up. A newer resolution wins over an older firing.

-- name: alerts
SELECT
    name AS rule,
    newest.1 AS labels,
    newest.2 AS last_state,
    newest.3 AS incident_id,
    newest.4 AS reason,
    newest.5 AS value,
    newest.6 AS threshold,
    at
FROM
(
    SELECT
        any(rule) AS name,
        argMax((labels, state, incident_id, reason, value, threshold), time) AS newest,
        toUnixTimestamp64Milli(max(time)) AS at
    FROM alert_transitions
    WHERE state != 'pending' AND time > now() - INTERVAL 400 DAY
    GROUP BY if(alert_key = '', concat(rule, toString(mapSort(mapFilter((k, v) -> k != 'version', labels)))), alert_key)
)
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
