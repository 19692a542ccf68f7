  mapKeys(SpanAttributes) AS keys,
  k -> mapValues(SpanAttributes)[indexOf(keys, k)] AS text_of,
  k -> flags[indexOf(keys, k)] AS flag_of,
  k -> doubles[indexOf(keys, k)] + integers[indexOf(keys, k)] AS raw_of,
  k -> if(raw_of(k) > 0 AND raw_of(k) < 1e15, raw_of(k), 0) AS number_of,
  k -> toUInt32(if(raw_of(k) > 0 AND raw_of(k) < 4294967295, raw_of(k), 0)) AS count_of
