  SELECT instance, deployment, engine, model, region, version, recording, arrayJoin(scoped.log_records) AS record
  FROM
  (
    WITH
{part:readers}
    SELECT
      scoped,
{part:identity}
    FROM
    (
      SELECT resourced.resource.attributes AS resource, arrayJoin(resourced.scope_logs) AS scoped
      FROM (SELECT arrayJoin(resource_logs) AS resourced FROM {database}.land_logs)
    )
    WHERE scoped.scope.name = 'servescope.event'
  )
