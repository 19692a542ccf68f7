    WITH
{part:readers}
    SELECT
      ResourceAttributes,
      ResourceSchemaUrl,
      scoped.scope.name AS ScopeName,
      scoped.scope.version AS ScopeVersion,
      attribute_map(scoped.scope.attributes) AS ScopeAttributes,
      scoped.scope.dropped_attributes_count AS ScopeDroppedAttrCount,
      scoped.schema_url AS ScopeSchemaUrl,
      arrayJoin(scoped.metrics) AS metric
    FROM
    (
      SELECT
        attribute_map(resourced.resource.attributes) AS ResourceAttributes,
        resourced.schema_url AS ResourceSchemaUrl,
        arrayJoin(resourced.scope_metrics) AS scoped
      FROM (SELECT arrayJoin(resource_metrics) AS resourced FROM {database}.land_metrics)
    )
    WHERE ScopeName NOT IN ('servescope.sample', 'servescope.host', 'servescope.gpu')
