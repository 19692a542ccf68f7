  WITH
{part:readers}
  SELECT
    resource,
    scoped.scope.name AS scope_name,
    scoped.metrics AS metrics,
{part:identity}
  FROM
  (
    SELECT resourced.resource.attributes AS resource, arrayJoin(resourced.scope_metrics) AS scoped
    FROM (SELECT arrayJoin(resource_metrics) AS resourced FROM {database}.land_metrics)
  )
