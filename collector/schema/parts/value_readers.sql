  x -> multiIf(
    x.value = 'string_value', x.string_value, x.value = 'double_value', toString(x.double_value),
    x.value = 'int_value', toString(x.int_value), x.value = 'bool_value', toString(x.bool_value),
    x.value = 'bytes_value', base64Encode(x.bytes_value), '') AS scalar_text,
  x -> multiIf(
    x.value = 'none', 'null',
    x.value IN ('string_value', 'bytes_value') OR (x.value = 'double_value' AND NOT isFinite(x.double_value)), toJSONString(scalar_text(x)),
    scalar_text(x)) AS scalar_json,
  (kind, s, d, i, b, y, a, m) -> multiIf(
    kind = 'string_value', s, kind = 'double_value', toString(d), kind = 'int_value', toString(i),
    kind = 'bool_value', toString(b), kind = 'bytes_value', base64Encode(y),
    kind = 'array_value', concat('[', arrayStringConcat(arrayMap(x -> scalar_json(x), a), ','), ']'),
    kind = 'kvlist_value', concat('{', arrayStringConcat(arrayMap(x -> concat(toJSONString(x.key), ':', scalar_json(x.value)), m), ','), '}'),
    '') AS value_text,
  a -> CAST((a.key, arrayMap((kind, s, d, i, b, y, l, m) -> value_text(kind, s, d, i, b, y, l, m),
    a.value.value, a.value.string_value, a.value.double_value, a.value.int_value, a.value.bool_value, a.value.bytes_value,
    a.value.array_value.values, a.value.kvlist_value.values)), 'Map(LowCardinality(String), String)') AS attribute_map,
  a -> CAST((a.key, arrayMap((kind, s, d, i, b, y) -> multiIf(
    kind = 'string_value', s, kind = 'double_value', toString(d), kind = 'int_value', toString(i),
    kind = 'bool_value', toString(b), kind = 'bytes_value', base64Encode(y), ''),
    a.value.value, a.value.string_value, a.value.double_value, a.value.int_value, a.value.bool_value, a.value.bytes_value)),
    'Map(LowCardinality(String), String)') AS scalar_map
