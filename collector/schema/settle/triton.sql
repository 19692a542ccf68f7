-- Triton's half of a request, from the spans InferRequest > model > compute. Only traces touched since {since} are read
-- again; max-merge makes repeating it harmless. Spans of one trace meet only where one tenant's key (or none) sent them, of one recording or none. The outermost model is the request's; an ensemble computes nothing
-- itself, so its phases are the sums of its steps'.
INSERT INTO {database}.requests_t
(
  time, key, trace_id, engine_request_id, engine_model, engine, engine_instance, engine_deployment, engine_version, role, region,
  cluster, pod, node, recording, engine_outcome, queue_seconds, compute_input_seconds, compute_infer_seconds,
  compute_output_seconds, engine_e2e_seconds, has_engine, orphan, engine_tenant, sender_tenant, engine_sender_key_id,
  engine_sender_peer, received_at
)
WITH
  touched AS (SELECT trace_id FROM {database}.triton_spans WHERE inserted_at > {since:DateTime64(3, 'UTC')}),
  spans AS
  (
    SELECT *
    FROM {database}.triton_spans
    WHERE inserted_at > {since:DateTime64(3, 'UTC')} - INTERVAL 10 MINUTE AND trace_id IN (touched)
  ),
  (later, earlier) -> if(later > earlier AND earlier > 0, toFloat64(later - earlier) / 1e9, 0) AS seconds_between,
  phases AS
  (
    SELECT
      model.trace_id AS trace_id,
      model.sender_tenant AS sender_tenant,
      model.recording AS recording,
      if(model.outermost = 1, model.span_id, model.parent_span_id) AS outer_span_id,
      if(countIf(model.outermost = 1) > 0, sumIf(seconds_between(compute.compute_start_ns, model.queue_start_ns), model.outermost = 1), sum(seconds_between(compute.compute_start_ns, model.queue_start_ns))) AS queue,
      if(countIf(model.outermost = 1) > 0, sumIf(seconds_between(compute.compute_input_end_ns, compute.compute_start_ns), model.outermost = 1), sum(seconds_between(compute.compute_input_end_ns, compute.compute_start_ns))) AS input,
      if(countIf(model.outermost = 1) > 0, sumIf(seconds_between(compute.compute_output_start_ns, compute.compute_input_end_ns), model.outermost = 1), sum(seconds_between(compute.compute_output_start_ns, compute.compute_input_end_ns))) AS infer,
      if(countIf(model.outermost = 1) > 0, sumIf(seconds_between(compute.compute_end_ns, compute.compute_output_start_ns), model.outermost = 1), sum(seconds_between(compute.compute_end_ns, compute.compute_output_start_ns))) AS output
    FROM (SELECT DISTINCT * EXCEPT inserted_at FROM spans WHERE kind = 'model') AS model
    INNER JOIN (SELECT DISTINCT * EXCEPT inserted_at FROM spans WHERE kind = 'compute') AS compute
      ON compute.trace_id = model.trace_id AND compute.parent_span_id = model.span_id AND compute.sender_tenant = model.sender_tenant
      AND compute.recording = model.recording
    GROUP BY trace_id, sender_tenant, recording, outer_span_id
  )
SELECT
  fromUnixTimestamp64Milli(if(timed, toInt64(bitShiftRight(id, 22)), toInt64(start_ms)), 'UTC') AS time,
  multiIf(recording != '', sipHash64(own_key, sender_tenant, recording), sender_tenant != '', sipHash64(own_key, sender_tenant), own_key) AS key,
  trace_id, request_id, model, if(engine = '', 'triton', engine), instance, deployment, version, role, region, cluster, pod, node, recording,
  multiIf(request_end_ns = 0, 'rejected', response_complete_ns = 0, 'client_abort', '') AS engine_outcome,
  toFloat32(queue), toFloat32(input), toFloat32(infer), toFloat32(output),
  toFloat32(seconds_between(end_ns, start_ns)),
  1,
  NOT timed,
  tenant, sender_tenant, sender_key_id, sender_peer, received_at
FROM
(
  SELECT
    r.trace_id AS trace_id, r.span_id AS span_id, m.request_id AS request_id, m.model AS model, r.engine AS engine, r.instance AS instance,
    r.deployment AS deployment, r.version AS version, r.role AS role, r.region AS region, r.cluster AS cluster,
    r.pod AS pod, r.node AS node, r.recording AS recording, m.request_end_ns AS request_end_ns, r.response_complete_ns AS response_complete_ns,
    r.start_ns AS start_ns, r.end_ns AS end_ns, p.queue AS queue, p.input AS input, p.infer AS infer, p.output AS output,
    reinterpretAsUInt64(reverse(r.parent_span_id)) AS id,
    intDiv(r.start_ns, 1000000) AS start_ms,
    length(r.parent_span_id) = 8 AND abs(toInt64(bitShiftRight(id, 22)) - toInt64(start_ms)) < 3600000 AS timed,
    if(timed, id, sipHash64(r.trace_id, r.span_id)) AS own_key,
    r.tenant AS tenant, r.sender_tenant AS sender_tenant, r.sender_key_id AS sender_key_id, r.sender_peer AS sender_peer,
    toDateTime(r.inserted_at, 'UTC') AS received_at
  FROM (SELECT * FROM spans WHERE kind = 'request') AS r
  INNER JOIN (SELECT * FROM spans WHERE kind = 'model') AS m ON m.trace_id = r.trace_id AND m.parent_span_id = r.span_id AND m.sender_tenant = r.sender_tenant AND m.recording = r.recording
  LEFT JOIN phases AS p ON p.trace_id = m.trace_id AND p.outer_span_id = m.span_id AND p.sender_tenant = m.sender_tenant AND p.recording = m.recording
)
SETTINGS join_use_nulls = 0
