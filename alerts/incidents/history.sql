-- What dashboard and command line ask about incidents. The store is the mirror of the pager's journal: seconds behind.

-- name: incidents
SELECT
    i.id AS id,
    i.opened_at AS opened_at,
    i.updated_at AS updated_at,
    i.resolved_at AS resolved_at,
    i.state AS state,
    i.severity AS severity,
    i.title AS title,
    i.summary AS summary,
    i.labels AS labels,
    i.owner AS owner
FROM (SELECT * FROM incidents FINAL) AS i
WHERE i.opened_at < fromUnixTimestamp64Milli({to:Int64})
  AND (i.resolved_at IS NULL OR i.resolved_at >= fromUnixTimestamp64Milli({from:Int64}))
  AND (empty({states:Array(String)}) OR has({states:Array(String)}, i.state))
ORDER BY i.opened_at DESC
LIMIT {limit:UInt32}

-- name: incident
SELECT id, opened_at, updated_at, resolved_at, state, severity, title, summary, labels, owner
FROM incidents FINAL
WHERE id = {id:String}

-- name: timeline
SELECT DISTINCT time, kind, message, attributes
FROM incident_events
WHERE incident_id = {id:String}
ORDER BY time, kind = 'opened' DESC, message
LIMIT 2000

-- name: transitions
SELECT DISTINCT time, rule, labels, state, value, threshold, reason
FROM alert_transitions
WHERE incident_id = {id:String}
ORDER BY time
LIMIT 5000

-- name: notifications
SELECT id, time, notifier, action, dedup_key, status, attempts, last_error, destination, payload, sent_at
FROM notifications FINAL
WHERE incident_id = {id:String}
ORDER BY time, id
LIMIT 1000

-- name: undelivered
SELECT id, time, incident_id, notifier, action, status, attempts, last_error, destination
FROM notifications FINAL
WHERE status IN ('failed', 'dead') AND time >= fromUnixTimestamp64Milli({from:Int64})
ORDER BY time DESC
LIMIT 500

-- name: counts
SELECT
    countIf(state = 'open') AS open,
    countIf(state = 'acknowledged') AS acknowledged,
    countIf(state != 'resolved' AND severity = 'critical') AS critical
FROM incidents FINAL
WHERE state != 'resolved'

-- name: active_alerts
-- An alert whose incident is over fires no more, whatever its own last row says.
SELECT
    name AS rule,
    newest.1 AS labels,
    newest.2 AS state,
    since,
    newest.3 AS value,
    newest.4 AS threshold,
    newest.5 AS reason,
    newest.6 AS incident_id
FROM
(
    SELECT
        any(rule) AS name,
        argMax((labels, state, value, threshold, reason, incident_id, alert_key != ''), time) AS newest,
        max(time) AS since
    FROM alert_transitions
    WHERE time > now() - INTERVAL 30 DAY
    GROUP BY if(alert_key = '', concat(rule, toString(mapSort(mapFilter((k, v) -> k != 'version', labels)))), alert_key)
)
WHERE (newest.2 = 'firing' OR (newest.2 = 'pending' AND newest.7))
  AND newest.6 NOT IN (SELECT id FROM incidents FINAL WHERE state = 'resolved')
ORDER BY state, since DESC
LIMIT 1000

-- name: statistics
SELECT
    count() AS incidents,
    avgIf(dateDiff('millisecond', opened_at, resolved_at) / 1000, resolved_at IS NOT NULL) AS resolve_seconds_mean
FROM incidents FINAL
WHERE opened_at >= fromUnixTimestamp64Milli({from:Int64}) AND opened_at < fromUnixTimestamp64Milli({to:Int64})
