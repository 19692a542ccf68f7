-- When servers began to answer and when they ended to. By this a pod that has had several tells which of them was there
-- while it had a GPU.

CREATE TABLE IF NOT EXISTS {database}.instance_lives_t {on_cluster}
(
  instance LowCardinality(String),
  time DateTime64(3, 'UTC') CODEC(ZSTD(1)),
  is_begun Bool,
  recording LowCardinality(String),
  tenant LowCardinality(String),
  sender_key_id LowCardinality(String),
  received_at DateTime('UTC') CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = {engine:ReplacingMergeTree}
PARTITION BY toYYYYMM(received_at)
ORDER BY (instance, time, is_begun, recording, tenant, sender_key_id)
{ttl:events received_at 400}
SETTINGS non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.instance_lives_mv {on_cluster} TO {database}.instance_lives_t AS
SELECT instance, time, event = 'instance_up' AS is_begun, recording, tenant, sender_key_id, received_at
FROM {database}.events
WHERE event IN ('instance_up', 'instance_down', 'target_left') AND instance != '';

-- Processes that were seen on a GPU, and servers of whose pod it is; several pods on one GPU all work on it, as several
-- processes do. Who does not tell the namespace of a server must tell its node.
-- A pod with one server is that server's. Of one with several names those count that were up while it had the GPU: one
-- alone has it all that time, one after the other each for its own, and servers beside each other do not say which of
-- them works on it. One of which no beginning is known has always been there.
CREATE OR REPLACE VIEW {database}.instance_gpus {on_cluster} AS
SELECT
  instance,
  rank,
  node,
  gpu,
  process_pid,
  recording,
  min(t.`from`) AS `from`,
  max(t.`to`) AS `to`,
  tenant,
  sender_key_id
FROM {database}.instance_gpus_t AS t
GROUP BY instance, rank, node, gpu, process_pid, recording, tenant, sender_key_id
UNION ALL
SELECT
  toLowCardinality(piece.1) AS instance,
  toLowCardinality('') AS rank,
  node,
  gpu,
  toLowCardinality('') AS process_pid,
  recording,
  piece.2 AS `from`,
  piece.3 AS `to`,
  tenant,
  sender_key_id
FROM
(
  SELECT
    h.node AS node,
    h.gpu AS gpu,
    h.recording AS recording,
    h.tenant AS tenant,
    h.sender_key_id AS sender_key_id,
    groupUniqArray(100)(toString(s.instance)) AS named,
    arraySort(one -> (one.2, one.3), groupUniqArrayArray(arrayMap(
      life -> (toString(s.instance), life.1, life.2),
      arrayFilter(life -> life.1 <= h.until AND life.2 >= h.since, s.lives)))) AS there,
    arrayDistinct(arrayMap(one -> one.1, there)) AS up,
    multiIf(
      length(named) = 1, [(named[1], h.since, h.until)],
      length(up) = 1, [(up[1], h.since, h.until)],
      arrayExists((one, next) -> one.1 != next.1 AND next.2 < one.3, arrayPopBack(there), arrayPopFront(there)), [],
      arrayMap(one -> (one.1, greatest(one.2, h.since), least(one.3, h.until)), there)) AS pieces
  FROM
  (
    SELECT gpu, node, namespace, pod, recording, tenant, sender_key_id, t.`from` AS since, max(t.`to`) AS until
    FROM {database}.gpu_pods_t AS t
    GROUP BY gpu, node, namespace, pod, t.`from`, recording, tenant, sender_key_id
  ) AS h
  INNER JOIN
  (
    SELECT
      p.pod AS pod,
      p.namespace AS namespace,
      p.node AS node,
      p.instance AS instance,
      p.recording AS recording,
      p.tenant AS tenant,
      if(empty(l.lives), [(toDateTime64('1970-01-01 00:00:00', 3, 'UTC'), toDateTime64('2200-01-01 00:00:00', 3, 'UTC'))], l.lives) AS lives
    FROM {database}.pod_servers_t AS p
    LEFT JOIN
    (
      SELECT
        instance,
        recording,
        tenant,
        arraySort(groupUniqArrayIf(time, is_begun)) AS begun,
        arraySort(groupUniqArrayIf(time, NOT is_begun)) AS ended,
        arrayConcat(
          if(notEmpty(ended) AND (empty(begun) OR ended[1] < begun[1]), [(toDateTime64('1970-01-01 00:00:00', 3, 'UTC'), ended[1])], []),
          arrayMap(
            one -> (one, arrayFirst(other -> other > one, arrayPushBack(ended, toDateTime64('2200-01-01 00:00:00', 3, 'UTC')))),
            begun)) AS lives
      FROM {database}.instance_lives_t
      WHERE instance IN
      (
        SELECT arrayJoin(groupUniqArray(100)(instance)) FROM {database}.pod_servers_t GROUP BY pod, recording HAVING uniqExact(instance) > 1
      )
      GROUP BY instance, recording, tenant
    ) AS l ON l.instance = p.instance AND l.recording = p.recording AND l.tenant = p.tenant
  ) AS s ON s.pod = h.pod AND s.recording = h.recording
  WHERE (s.namespace = h.namespace OR (s.namespace = '' AND s.node = h.node)) AND (h.tenant = '' OR h.tenant = s.tenant)
  GROUP BY h.gpu, h.node, h.namespace, h.pod, h.since, h.until, h.recording, h.tenant, h.sender_key_id
)
ARRAY JOIN pieces AS piece;
