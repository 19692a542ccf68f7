  v -> multiIf({part:value_text}, '') AS scalar_text,
  v -> multiIf(
    {part:value_text},
    v.value = 'array_value', toJSONString(arrayMap(x -> scalar_text(x), v.array_value.values)),
    v.value = 'kvlist_value', toJSONString(mapFromArrays(v.kvlist_value.values.key, arrayMap(x -> scalar_text(x), v.kvlist_value.values.value))),
    '') AS value_text,
  a -> CAST((a.key, arrayMap(x -> value_text(x), a.value)), 'Map(LowCardinality(String), String)') AS attribute_map,
  (a, k) -> a.value.string_value[indexOf(a.key, k)] AS attribute_text,
  (a, k) -> a.value.bool_value[indexOf(a.key, k)] AS attribute_flag,
  (a, k) -> a.value.double_value[indexOf(a.key, k)] + a.value.int_value[indexOf(a.key, k)] AS attribute_raw,
  (a, k) -> toFloat32(if(attribute_raw(a, k) > 0 AND attribute_raw(a, k) < 1e15, attribute_raw(a, k), 0)) AS attribute_number,
  (a, k) -> toUInt32(if(attribute_raw(a, k) > 0 AND attribute_raw(a, k) < 4294967295, attribute_raw(a, k), 0)) AS attribute_count,
  ns -> fromUnixTimestamp64Nano(toInt64(least(ns, 9000000000000000000))) AS instant
